"""What the vectors are made of: three nodes, one message of every kind, and how a field is written as JSON."""

import dataclasses
from collections.abc import Callable
from random import Random
from typing import Any

import msgpack

from protocol import codec, envelope
from protocol import limits as lim
from protocol.envelope import Header
from protocol.errors import RemoteProtocolError
from protocol.genesis import swarm_id
from protocol.identity import Identity, NodeId
from protocol.messages import (
    Advert,
    AdvertDigest,
    AdvertPull,
    AdvertPush,
    AdvertWant,
    Digest,
    Goodbye,
    Hello,
    Message,
    Ping,
    Pong,
    Pulse,
    ReachAnswer,
    ReachAsk,
    Rumours,
    Signed,
    Suspicion,
    TaskAccepted,
    TaskCancelled,
    TaskFailed,
    TaskFinished,
    TaskPiece,
    TaskRefused,
    TaskRequest,
)  # fmt: skip
from protocol.notary import Notary
from protocol.parts import Alternative, AttemptId, Capability, Demands, FunctionCall, Logprob, Sampling, TaskId, Turn

ADA, BOB, EVE = (Identity(bytes([number]) * 32) for number in (1, 2, 3))
SWARM = swarm_id("vectors")
NOW_MS = 1_790_000_000_000
NOW_S = NOW_MS / 1000
ATTEMPT, TASK = AttemptId(bytes(range(16))), TaskId(bytes(range(16, 32)))
HEADER = Header(SWARM, ADA.node, BOB.node, b"n" * 16, NOW_MS, lim.MESSAGE_LIFETIME_MS)

CAPABILITY = Capability(
    "classify:language",
    "language",
    bytes(range(32)),
    16_384,
    25_000.0,
    1,
    64,
    ("English", "Português"),
    "Names a language.",
    bytes(range(8)),
    ("schema", "logprobs"),
    900.0,
)
ADVERT = Advert("kestrel", ("/ip4/192.0.2.7/tcp/4976",), (CAPABILITY,), 64, 3, 0, False, True, (bytes(range(8)),))
REQUEST = TaskRequest(
    ATTEMPT, TASK, "chat", "", (
        Turn("system", "Be brief."), Turn("user", "Why is the sky blue? 🐦"),
        Turn("assistant", "", (FunctionCall("1", "look_up", '{"what":"sky"}'),)), Turn("tool", "It scatters.", (), "1"),
    ),
    256, Sampling(temperature=0.7, top_p=0.95, seed=4_294_967_295), ("\n\n",), 30_000,
    "Because air", (4_963, 2_147_483_647), Demands(schema='{"type":"string"}', logprobs=3),
)  # fmt: skip
SIGNED = Notary(EVE, SWARM, Random(3)).sign(ADVERT, 60.0, NOW_S)
PULSE = Pulse(NOW_MS - 1, 3, 1, False, False)
SUSPICION = Suspicion(ADA.node, NOW_MS - 2)
SIGNED_PULSE = Notary(EVE, SWARM, Random(4)).sign(PULSE, 60.0, NOW_S)
SIGNED_SUSPICION = Notary(EVE, SWARM, Random(5)).sign(SUSPICION, 60.0, NOW_S)
MESSAGES: tuple[Message, ...] = (
    Hello(b"tokentok", "kestrel", "starlings/1", ("/ip4/192.0.2.7/tcp/4976", "/ip6/2001:db8::7/tcp/4976")),
    Ping(128),
    Pong(127),
    Goodbye(True, "stopping", True),
    ADVERT,
    AdvertPush((SIGNED,)),
    AdvertPull("", 64),
    PULSE,
    SUSPICION,
    Rumours((SIGNED_PULSE,), (SIGNED_SUSPICION,)),
    AdvertDigest(NodeId(bytes(32)), NodeId(b"\xff" * 32), (Digest(EVE.node, NOW_MS, 0),)),
    AdvertWant((EVE.node, ADA.node)),
    ReachAsk(("/ip4/192.0.2.7/tcp/4976",)),
    ReachAnswer("/ip4/192.0.2.7", ("/ip4/192.0.2.7/tcp/4976",)),
    REQUEST,
    TaskAccepted(ATTEMPT, "smollm2-135m", 2),
    TaskRefused(ATTEMPT, 1, "2 at work, 16 waiting"),
    TaskPiece(
        ATTEMPT, 65_536, " scattered", (0, 128, 49_152),
        (Logprob(b" scat", -0.25, (Alternative(b" scat", -0.25), Alternative(b"\xf0\x9f", -1.5))), Logprob(b"", 0.0)),
    ),
    TaskFinished(
        ATTEMPT, 65_537, "tool_calls", 24, 65_537, 0, 80, 60_000, (FunctionCall("2", "look_up", "{}"),)
    ),
    TaskFailed(ATTEMPT, 17, "the model failed while it worked"),
    TaskCancelled(ATTEMPT),
)


def as_json(value: Any) -> Any:
    """A message, a part or a field as JSON."""
    if isinstance(value, Signed):
        return as_json(value.sealed)
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if isinstance(value, tuple):
        return [as_json(item) for item in value]
    if dataclasses.is_dataclass(value):
        return {item.name: as_json(getattr(value, item.name)) for item in dataclasses.fields(value)}
    return value


def named(message: Message) -> dict[str, Any]:
    return {"message": type(message).__name__, "fields": as_json(message)}


def packed(parts: Any) -> bytes:
    result: bytes = msgpack.packb(parts, use_bin_type=True)
    return result


def sealed_by_issuer(message: Message, header: Header) -> bytes:
    return envelope.seal({ADA.node: ADA, EVE.node: EVE}[header.issuer], header, codec.encode(message))


def kind_of(read: Callable[[], object]) -> str:
    """The kind of the refusal that must come."""
    try:
        read()
    except RemoteProtocolError as error:
        return error.kind
    raise AssertionError("a bad vector is good")
