"""One member without a world: what a test tells it, and what it wants."""

from collections.abc import Iterable
from random import Random
from typing import TypeVar

from protocol.identity import NodeId
from protocol.messages import AdvertPush, Message, Signed, TaskRequest
from protocol.parts import AttemptId
from swarm.effects import (
    Effect,
    Send,
)
from swarm.events import (
    NeighbourUp,
    Received,
    Started,
)
from swarm.member import Member
from swarm.settings import Settings
from swarm.values import Contact
from tests.swarm.samples import ADA, BOB, NOW, capability, signed

CHAT = capability("chat")
AT_BOB = Contact(BOB, ("/memory/bob",))
_Found = TypeVar("_Found")
_M = TypeVar("_M", bound=Message)


class BelievesAll:
    """A notary without signatures."""

    def sign(self, message: _M, lifetime_s: float, now: float) -> Signed[_M]:
        return Signed(ADA, round(now * 1000), round(lifetime_s * 1000), message, b"")

    def fault(self, signed: Signed[Message], now: float) -> str:
        return ""


def ada(**settings: float) -> Member:
    """A member that has started."""
    member = Member(ADA, "ada", Settings(**settings), BelievesAll(), Random(1))
    member.handle(Started(("/memory/ada",)), NOW)
    return member


def meet(member: Member, *nodes: NodeId, at: float = NOW) -> None:
    """Links with workers that offer chat."""
    for node in nodes:
        member.handle(NeighbourUp(node, "bob", ("/memory/bob",), ""), at)
        member.handle(Received(node, AdvertPush((signed(node, CHAT, issued_at=at),))), at)


def found(effects: Iterable[Effect], kind: type[_Found]) -> list[_Found]:
    return [effect for effect in effects if isinstance(effect, kind)]


def sent(effects: Iterable[Effect], kind: type[Message]) -> list[NodeId]:
    """To whom messages of this kind go."""
    return [effect.to for effect in found(effects, Send) if isinstance(effect.message, kind)]


def placed(effects: Iterable[Effect]) -> AttemptId:
    [attempt] = [effect.message.attempt for effect in found(effects, Send) if isinstance(effect.message, TaskRequest)]
    return attempt
