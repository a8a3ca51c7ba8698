"""Vectors of whole conversations on a link, and of the order of one attempt's messages."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from random import Random
from typing import Any

from protocol import codec, envelope, framing
from protocol.errors import RemoteProtocolError
from protocol.exchange import TASK_MESSAGES, TRANSITIONS, Stage
from protocol.framing import Form
from protocol.link import Link
from protocol.messages import (
    AdvertPush,
    Goodbye,
    Hello,
    Message,
    Ping,
    TaskAccepted,
    TaskCancelled,
    TaskFinished,
    TaskPiece,
)  # fmt: skip
from tests.vectors.samples import (
    ADA,
    ADVERT,
    ATTEMPT,
    BOB,
    EVE,
    HEADER,
    NOW_MS,
    NOW_S,
    REQUEST,
    SIGNED,
    SWARM,
    named,
    sealed_by_issuer,
)  # fmt: skip


def links() -> Any:
    """What Bob hears of Ada, and what he says in between, as far as it matters to the order of attempts."""
    return [_conversation(why, script) for why, script in SCRIPTS.items()]


class _Talk:
    """A link between Ada and Bob whose bytes are written down at Bob's end."""

    def __init__(self) -> None:
        self.ada = Link(ADA, BOB.node, SWARM, Random(11))
        self.bob = Link(BOB, ADA.node, SWARM, Random(12))
        self.greeting_of_bob = self.bob.hello("bob", "vectors", (), NOW_S)
        _, body, _ = envelope.split(self.greeting_of_bob[framing.HEAD_BYTES :])
        hello = codec.decode(body)
        assert isinstance(hello, Hello)
        self.token = hello.token
        self.steps: list[dict[str, Any]] = []
        self.count = 0

    def greet(self) -> bytes:
        """Both Hellos pass."""
        hello = self.ada.hello("ada", "vectors", (), NOW_S)
        self.ada.receive(self.greeting_of_bob, NOW_S)
        self.hear(hello)
        return hello

    def hear(self, chunk: bytes, now_ms: int = NOW_MS) -> None:
        step: dict[str, Any] = {"hear": chunk.hex(), "now_ms": now_ms}
        try:
            step["messages"] = [named(message) for message in self.bob.receive(chunk, now_ms / 1000)]
        except RemoteProtocolError as error:
            step["kind"] = error.kind
        self.steps.append(step)

    def from_ada(self, *messages: Message) -> None:
        for message in messages:
            self.hear(self.ada.send(message, NOW_S))

    def from_bob(self, *messages: Message) -> None:
        for message in messages:
            assert self.bob.send(message, NOW_S)
            self.steps.append({"say": named(message)})

    def forge(self, message: Message, counter: int, **changes: Any) -> bytes:
        """A frame with a signature that holds, around whatever header."""
        header = replace(HEADER, nonce=self.token + counter.to_bytes(8, "big"))
        return framing.frame(Form.SEALED, sealed_by_issuer(message, replace(header, **changes)))


def _conversation(why: str, script: Callable[[_Talk], None]) -> Any:
    talk = _Talk()
    script(talk)
    return {
        "why": why,
        "swarm": SWARM.hex(),
        "own": BOB.node.hex(),
        "peer": ADA.node.hex(),
        "token": talk.token.hex(),
        "steps": talk.steps,
    }


def _whole(talk: _Talk) -> None:
    talk.greet()
    talk.from_ada(Ping(1), REQUEST)
    talk.from_bob(TaskAccepted(ATTEMPT, "m", 0), TaskPiece(ATTEMPT, 0, "blue"))
    talk.from_ada(AdvertPush((SIGNED,)))
    talk.from_bob(TaskFinished(ATTEMPT, 1, "stop", 9, 1, 0, 1, 2))
    talk.from_ada(Goodbye(True, "stopping"))


def _late_cancel(talk: _Talk) -> None:
    talk.greet()
    talk.from_ada(REQUEST)
    talk.from_bob(TaskAccepted(ATTEMPT, "m", 0), TaskFinished(ATTEMPT, 0, "stop", 9, 0, 0, 1, 2))
    talk.from_ada(TaskCancelled(ATTEMPT), Ping(2))


def _in_pieces(talk: _Talk) -> None:
    hello = talk.ada.hello("ada", "vectors", (), NOW_S)
    talk.ada.receive(talk.greeting_of_bob, NOW_S)
    stream = hello + talk.ada.send(Ping(1), NOW_S) + talk.ada.send(Goodbye(False, ""), NOW_S)
    for at in (0, 3, 100, len(hello) + 2):
        talk.hear(stream[at : {0: 3, 3: 100, 100: len(hello) + 2}.get(at, len(stream))])


def _replayed(talk: _Talk) -> None:
    talk.greet()
    frame = talk.ada.send(Goodbye(False, ""), NOW_S)
    talk.hear(frame)
    talk.hear(frame)


def _after_greeting(*frames_of: Callable[[_Talk], bytes]) -> Callable[[_Talk], None]:
    def script(talk: _Talk) -> None:
        talk.greet()
        for make in frames_of:
            talk.hear(make(talk))

    return script


def _bare(message: Message) -> bytes:
    return framing.frame(Form.BARE, codec.encode(message))


_BYE = Goodbye(False, "")
SCRIPTS: dict[str, Callable[[_Talk], None]] = {
    "a whole conversation": _whole,
    "a cancel that crossed the end": _late_cancel,
    "the stream in pieces": _in_pieces,
    "an envelope twice": _replayed,
    "a Hello twice": lambda talk: talk.hear(talk.greet()),
    "another Hello": _after_greeting(lambda talk: talk.forge(Hello(bytes(8), "", "", ()), 1)),
    "a bare message first": lambda talk: talk.hear(_bare(Ping(1))),
    "a sealed message first": lambda talk: talk.hear(talk.forge(_BYE, 1)),
    "counters with a gap": _after_greeting(lambda talk: talk.forge(_BYE, 5), lambda talk: talk.forge(_BYE, 6)),
    "a counter that goes back": _after_greeting(lambda talk: talk.forge(_BYE, 6), lambda talk: talk.forge(_BYE, 5)),
    "a counter of zero": _after_greeting(lambda talk: talk.forge(_BYE, 0)),
    "a token of another link": _after_greeting(lambda talk: talk.forge(_BYE, 1, nonce=bytes(15) + b"\x01")),
    "for somebody else": _after_greeting(lambda talk: talk.forge(_BYE, 1, audience=EVE.node)),
    "of another swarm": _after_greeting(lambda talk: talk.forge(_BYE, 1, swarm=bytes(32))),
    "by somebody else": _after_greeting(lambda talk: talk.forge(_BYE, 1, issuer=EVE.node)),
    "too late": _after_greeting(lambda talk: talk.forge(_BYE, 1, sent_at_ms=NOW_MS - 10**6)),
    "a sealed kind bare": _after_greeting(lambda talk: _bare(REQUEST)),
    "a bare kind sealed": _after_greeting(lambda talk: talk.forge(Ping(1), 1)),
    "an advert on its own": _after_greeting(lambda talk: talk.forge(ADVERT, 1)),
    "a signature that does not hold": _after_greeting(lambda talk: talk.forge(_BYE, 1)[:-1] + b"\x00"),
    "a piece that nobody asked for": _after_greeting(lambda talk: _bare(TaskPiece(ATTEMPT, 0, "x"))),
    "a request twice": _after_greeting(lambda talk: talk.forge(REQUEST, 1), lambda talk: talk.forge(REQUEST, 2)),
    "a frame of an unknown form": _after_greeting(lambda talk: b"\x00\x00\x00\x00\x09"),
}


def attempts() -> Any:
    """Every legal order with at most one piece, and each first wrong step."""
    return list(_orders(Stage.IDLE, []))


def _orders(stage: Stage, before: list[str]) -> Iterator[dict[str, Any]]:
    for kind in TASK_MESSAGES:
        after = next((to for (at, _, cls), to in TRANSITIONS.items() if (at, cls) == (stage, kind)), None)
        steps = [*before, kind.__name__]
        late = after is None and stage is Stage.IDLE and kind is TaskCancelled
        if steps.count("TaskPiece") > 1:
            continue
        yield {"steps": steps, "last": "late" if late else "disorder" if after is None else after.value}
        if after is not None and after is not Stage.CLOSED:
            yield from _orders(after, steps)
