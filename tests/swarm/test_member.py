"""One member alone: what several of its parts have a share in."""

from collections.abc import Iterable
from random import Random

from protocol.identity import NodeId
from protocol.messages import Advert, AdvertPush, Goodbye, Message, SignedAdvert
from swarm.effects import Disconnect, Effect, Send, SweepDue
from swarm.events import CapabilitiesChanged, NeighbourDown, NeighbourUp, Received, Started, TimerFired
from swarm.member import Member
from swarm.settings import Settings
from tests.swarm.samples import ADA, BOB, CYD, DAN, NOW, capability, request, signed

CHAT = capability("chat")


class BelievesAll:
    """A notary without signatures."""

    def sign(self, advert: Advert, lifetime_s: float, now: float) -> SignedAdvert:
        return SignedAdvert(ADA, round(now * 1000), round(lifetime_s * 1000), advert, b"")

    def holds(self, signed: SignedAdvert, now: float) -> bool:
        return True


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


def sent(effects: Iterable[Effect], kind: type[Message]) -> list[NodeId]:
    """To whom messages of this kind go."""
    return [effect.to for effect in effects if isinstance(effect, Send) and isinstance(effect.message, kind)]


def test_a_link_closed_to_make_room_does_not_hide_the_worker_behind_it() -> None:
    member = ada(neighbours_target=1, neighbours_max=1)
    meet(member, BOB)
    meet(member, CYD, at=NOW + 1)
    effects = member.handle(TimerFired(SweepDue()), NOW + 2)
    assert Disconnect(BOB, "too many links") in effects
    member.handle(NeighbourDown(BOB, "too many links"), NOW + 2)
    assert member.index.get(BOB) is not None
    assert BOB not in member.roster


def test_a_link_over_which_work_is_under_way_is_not_closed_to_make_room() -> None:
    member = ada(neighbours_target=1, neighbours_max=1)
    member.handle(CapabilitiesChanged((CHAT,)), NOW)
    meet(member, BOB)
    member.handle(Received(BOB, request()), NOW)
    meet(member, CYD, DAN, at=NOW + 1)
    effects = member.handle(TimerFired(SweepDue()), NOW + 2)
    assert sent(effects, Goodbye) == [CYD, DAN]


def test_a_link_that_brought_work_counts_as_used() -> None:
    member = ada(neighbours_target=1, neighbours_max=1)
    meet(member, BOB, CYD)
    member.handle(Received(BOB, request()), NOW + 1)  # Refused: nothing is offered here.
    effects = member.handle(TimerFired(SweepDue()), NOW + 2)
    assert sent(effects, Goodbye) == [CYD]
