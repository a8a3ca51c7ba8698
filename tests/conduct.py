"""Bob, whose conduct is watched: a member alone, what it is told, and everything that it wants."""

from dataclasses import replace
from random import Random
from typing import TypeVar

from protocol.identity import Identity
from protocol.messages import Advert, Message, Signed
from protocol.notary import Notary
from protocol.parts import AttemptId, Capability, Sampling, TaskId, Turn
from swarm.effects import Effect, Send, SetTimer
from swarm.events import (
    CapabilitiesChanged,
    Event,
    NeighbourUp,
    Received,
    Started,
    TimerFired,
)
from swarm.member import Member
from swarm.settings import Settings
from swarm.values import Privacy, Task, Usage
from tests.strategies import ADA, BOB, NOW_S, SWARM

CHAT = Capability("chat", "m", b"", 2048, 50.0, 20, 1, (), "")
USAGE = Usage("stop", 3, 2, 0.1, 0.2)
ATTEMPT = AttemptId(b"a" * 16)
M = TypeVar("M", bound=Message)
E = TypeVar("E", bound=Effect)


class Actor:
    """Bob's member under a clock that the test moves, and everything that it has wanted."""

    def __init__(self, *capabilities: Capability, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.member = Member(BOB.node, "bob", self.settings, Notary(BOB, SWARM, Random(1)), Random(2))
        self.now = NOW_S
        self.wanted: list[Effect] = []
        self.tell(Started(("/memory/bob",)))
        self.tell(CapabilitiesChanged(capabilities))
        self.wanted = list(self.all(SetTimer))

    def tell(self, event: Event) -> list[Effect]:
        """What comes of one event."""
        effects = self.member.handle(event, self.now)
        self.wanted += effects
        return effects

    def up(self, *peers: Identity) -> None:
        for peer in peers:
            self.tell(NeighbourUp(peer.node, "peer", ("/memory/peer",), ""))

    def hear(self, message: Message, sender: Identity = ADA) -> list[Message]:
        """What is said in answer to the sender."""
        return [
            e.message for e in self.tell(Received(sender.node, message)) if isinstance(e, Send) and e.to == sender.node
        ]

    def all(self, kind: type[E]) -> list[E]:
        return [effect for effect in self.wanted if isinstance(effect, kind)]

    def said(self, kind: type[M], to: Identity = ADA) -> list[M]:
        sends = [effect for effect in self.all(Send) if effect.to == to.node]
        return [send.message for send in sends if isinstance(send.message, kind)]

    def wait(self, seconds: float) -> None:
        """Time passes; timers that are due go off, each once, in the order in which they were set."""
        end = self.now + seconds
        due = [(self.now + effect.delay_s, effect) for effect in self.all(SetTimer)]
        self.wanted = [effect for effect in self.wanted if not isinstance(effect, SetTimer)]
        for at, effect in sorted(due, key=lambda pair: pair[0]):
            if at > end:
                self.wanted.append(SetTimer(at - end, effect.timer))
                continue
            self.now = max(self.now, at)
            self.tell(TimerFired(effect.timer))
        self.now = end


def advert(
    issuer: Identity, *, now: float = NOW_S, lifetime_s: float = 60.0, slots: int = 1, numerics: bytes = b""
) -> Signed[Advert]:
    said = Advert("peer", ("/memory/peer",), (replace(CHAT, numerics=numerics),), slots, 0, 0, False)
    return Notary(issuer, SWARM, Random(5)).sign(said, lifetime_s, now)


def task(**changes: object) -> Task:
    fields: dict[str, object] = {"text": "hello"}
    turns = (Turn("user", str({**fields, **changes}["text"])),)
    return Task(
        TaskId(b"t" * 16), "chat", turns, "", 64, Sampling(temperature=0.7, top_p=0.95), (), 30.0, Privacy.SWARM, None
    )
