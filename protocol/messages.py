"""Every message body that two nodes exchange, and the registry of them. Field order is wire order."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Generic, TypeVar

from protocol import limits as lim
from protocol.bounds import Blob, Many, Text, Whole
from protocol.identity import NodeId
from protocol.parts import (
    Address,
    Agent,
    AttemptId,
    Capability,
    Code,
    Demands,
    FunctionCall,
    Id16,
    Logprob,
    Milliseconds,
    Model,
    Name,
    Node,
    Prefix,
    Reason,
    Sampling,
    Skill,
    Slots,
    TaskId,
    Token,
    Tokens,
    Turn,
    Version,
)

_Class = TypeVar("_Class", bound=type)
_Body = TypeVar("_Body", bound="Message", covariant=True)

MESSAGES: dict[int, type["Message"]] = {}
"""Kind number to message class."""


class Message:
    """What every message class has. `sealed` messages travel in a signed envelope, the others rely on the link's channel."""

    __slots__ = ()
    KIND: ClassVar[int]
    SEALED: ClassVar[bool]


def _message(kind: int, *, sealed: bool) -> Callable[[_Class], _Class]:
    def register(cls: _Class) -> _Class:
        assert kind not in MESSAGES, kind
        cls.KIND, cls.SEALED = kind, sealed  # type: ignore[attr-defined]
        MESSAGES[kind] = cls
        return cls

    return register


# --- Link: kinds 1 to 15 ----------------------------------------------------------------------------------------------


@_message(1, sealed=True)
@dataclass(frozen=True, slots=True)
class Hello(Message):
    """The first message in each direction of a link: who is here and where else they can be reached.

    `token` is drawn afresh for each link by its sender; the peer puts it into the nonce of every envelope that follows, so
    that none of them can be replayed on another link.
    """

    token: Annotated[bytes, Blob(8, 8)]
    name: Name
    agent: Agent
    addresses: Annotated[tuple[Address, ...], Many(lim.ADDRESSES_MAX)]


@_message(2, sealed=False)
@dataclass(frozen=True, slots=True)
class Ping(Message):
    """Asks the peer's member, not only its machine, for a sign of life."""

    nonce: Annotated[int, Whole(2**32 - 1)]


@_message(3, sealed=False)
@dataclass(frozen=True, slots=True)
class Pong(Message):
    """Answers a Ping with its nonce."""

    nonce: Annotated[int, Whole(2**32 - 1)]


@_message(4, sealed=True)
@dataclass(frozen=True, slots=True)
class Goodbye(Message):
    """The sender closes the link on purpose. `leaving` means that the node stops: forget its adverts at once.

    `replaced`: the receiver's identity has opened another link. A receiver that is still there to hear it has a twin.
    """

    leaving: bool
    reason: Reason
    replaced: bool = False


# --- Finding: kinds 16 to 31 ------------------------------------------------------------------------------------------


@_message(16, sealed=True)
@dataclass(frozen=True, slots=True)
class Advert(Message):
    """A node's signed, short-lived statement of its capabilities and load. The envelope's time is its version.

    `relays`: it carries links to nodes that cannot be dialled, as a circuit relay. `prefixes`: digests of what its models have read
    already (see `protocol.prefixes`), as far as several requesters have sent the same.
    """

    name: Name
    addresses: Annotated[tuple[Address, ...], Many(lim.ADDRESSES_MAX)]
    capabilities: Annotated[tuple[Capability, ...], Many(lim.CAPABILITIES_MAX)]
    slots: Slots
    busy: Slots
    queued: Slots
    draining: bool
    relays: bool = False
    prefixes: Annotated[tuple[Prefix, ...], Many(lim.PREFIXES_MAX)] = ()


@dataclass(frozen=True, slots=True)
class Signed(Generic[_Body]):
    """A message with the envelope that proves it, so that it can be passed on. On the wire only `sealed` travels."""

    issuer: NodeId
    issued_at_ms: int
    lifetime_ms: int
    body: _Body
    sealed: bytes


@_message(17, sealed=False)
@dataclass(frozen=True, slots=True)
class AdvertPush(Message):
    """Adverts that the sender believes the receiver has not heard. Each proves itself."""

    adverts: Annotated[tuple[Signed[Advert], ...], Many(lim.ADVERTS_PER_PUSH_MAX)]


@_message(18, sealed=False)
@dataclass(frozen=True, slots=True)
class AdvertPull(Message):
    """Asks for the freshest adverts that offer a skill; the empty skill means any. Answered by AdvertPush."""

    skill: Skill
    adverts_max: Annotated[int, Whole(256)]


@_message(19, sealed=True)
@dataclass(frozen=True, slots=True)
class Pulse(Message):
    """A node's signed sign of life with its load, small enough to be told often. `card` is the version of its advert.

    `leaving` means that the node stops: what is known of it is forgotten at once.
    """

    card: Version
    busy: Slots
    queued: Slots
    draining: bool
    leaving: bool


@_message(20, sealed=True)
@dataclass(frozen=True, slots=True)
class Suspicion(Message):
    """The sender's link with `node` has ended without a word. `seen` is the newest version that it knows of the node."""

    node: Node
    seen: Version


@_message(21, sealed=False)
@dataclass(frozen=True, slots=True)
class Rumours(Message):
    """Pulses and suspicions that the sender believes the receiver has not heard. Each proves itself."""

    pulses: Annotated[tuple[Signed[Pulse], ...], Many(lim.RUMOURS_MAX)]
    suspicions: Annotated[tuple[Signed[Suspicion], ...], Many(lim.RUMOURS_MAX)]


@dataclass(frozen=True, slots=True)
class Digest:
    """What is known of one node: the versions of its newest advert and of its newest pulse, 0 for none."""

    node: Node
    card: Version
    pulse: Version


@_message(22, sealed=False)
@dataclass(frozen=True, slots=True)
class AdvertDigest(Message):
    """All that the sender knows of the nodes from `first` to `last`, both included, ids compared as bytes.

    Answered by what the receiver has that is newer, and by an AdvertWant for what it has not.
    """

    first: Node
    last: Node
    known: Annotated[tuple[Digest, ...], Many(lim.DIGESTS_MAX)]


@_message(23, sealed=False)
@dataclass(frozen=True, slots=True)
class AdvertWant(Message):
    """Asks for the adverts and pulses of these nodes. Answered by AdvertPush and Rumours, as far as they are known."""

    nodes: Annotated[tuple[Node, ...], Many(lim.DIGESTS_MAX)]


@_message(24, sealed=False)
@dataclass(frozen=True, slots=True)
class ReachAsk(Message):
    """Asks where the receiver sees the sender, and to dial it there: at the ports of these addresses, and nowhere else."""

    addresses: Annotated[tuple[Address, ...], Many(lim.ADDRESSES_MAX)]


@_message(25, sealed=False)
@dataclass(frozen=True, slots=True)
class ReachAnswer(Message):
    """Answers a ReachAsk. `seen` is where the asker's link comes from, without a port; `reached` are the addresses that answered.

    An empty `seen` tells nothing: the link is relayed, or there was no time to try.
    """

    seen: Address
    reached: Annotated[tuple[Address, ...], Many(lim.ADDRESSES_MAX)]


# --- Doing: kinds 32 to 47 --------------------------------------------------------------------------------------------


@_message(32, sealed=True)
@dataclass(frozen=True, slots=True)
class TaskRequest(Message):
    """Places one attempt of a task on a worker. An empty `model` means any.

    `delivered` is the beginning of the answer that another worker gave before it was lost, and `delivered_tokens` the tokens
    that it was made of. The worker goes on from there and sends only what follows.
    """

    attempt: Annotated[AttemptId, Id16]
    task: Annotated[TaskId, Id16]
    skill: Skill
    model: Model
    turns: Annotated[tuple[Turn, ...], Many(lim.TURNS_MAX)]
    tokens_max: Annotated[int, Whole(lim.TOKENS_MAX)]
    sampling: Sampling
    stops: Annotated[tuple[Annotated[str, Text(lim.STOP_BYTES_MAX)], ...], Many(lim.STOPS_MAX)]
    deadline_ms: Milliseconds
    delivered: Annotated[str, Text(lim.DELIVERED_BYTES_MAX)] = ""
    delivered_tokens: Annotated[tuple[Token, ...], Many(lim.DELIVERED_TOKENS_MAX)] = ()
    demands: Demands = Demands()  # noqa: RUF009 It is frozen.


@_message(33, sealed=True)
@dataclass(frozen=True, slots=True)
class TaskAccepted(Message):
    """The worker will do it. `ahead` attempts, running or waiting, must end before it can begin."""

    attempt: Annotated[AttemptId, Id16]
    model: Model
    ahead: Slots


@_message(34, sealed=True)
@dataclass(frozen=True, slots=True)
class TaskRefused(Message):
    """The worker will not do it, and why. A refusal is not a failure."""

    attempt: Annotated[AttemptId, Id16]
    code: Code
    reason: Reason


@_message(35, sealed=False)
@dataclass(frozen=True, slots=True)
class TaskPiece(Message):
    """The next piece of the answer's text. `index` counts from 0 without gaps.

    `tokens` are those drawn since the piece before: with them another worker of the same model can go on exactly here. Empty
    where there are none to tell. `logprobs` are theirs if the request demands them; of `options` there is one, with all of them.
    """

    attempt: Annotated[AttemptId, Id16]
    index: Annotated[int, Whole(2**31 - 1)]
    text: Annotated[str, Text(lim.PIECE_BYTES_MAX)]
    tokens: Annotated[tuple[Token, ...], Many(lim.PIECE_TOKENS_MAX)] = ()
    logprobs: Annotated[tuple[Logprob, ...], Many(lim.PIECE_TOKENS_MAX)] = ()


@_message(36, sealed=True)
@dataclass(frozen=True, slots=True)
class TaskFinished(Message):
    """The answer is complete. `finish` is `stop`, `length` or `tool_calls`, and then `calls` is not empty.

    `pieces` proves that none is missing.
    """

    attempt: Annotated[AttemptId, Id16]
    pieces: Annotated[int, Whole(2**31 - 1)]
    finish: Annotated[str, Text(16)]
    tokens_in: Tokens
    tokens_out: Tokens
    queued_ms: Milliseconds
    first_token_ms: Milliseconds
    total_ms: Milliseconds
    calls: Annotated[tuple[FunctionCall, ...], Many(lim.CALLS_MAX)] = ()


@_message(37, sealed=True)
@dataclass(frozen=True, slots=True)
class TaskFailed(Message):
    """The accepted attempt ends without a complete answer."""

    attempt: Annotated[AttemptId, Id16]
    code: Code
    reason: Reason


@_message(38, sealed=True)
@dataclass(frozen=True, slots=True)
class TaskCancelled(Message):
    """The requester takes the attempt back; the worker stops and closes with TaskFailed."""

    attempt: Annotated[AttemptId, Id16]
