"""How adverts travel: news only, each a few times, to one neighbour a round; and what this node says of itself."""

from collections.abc import Iterable
from dataclasses import replace
from random import Random

import pytest

from protocol import codec
from protocol import limits as lim
from protocol.genesis import swarm_id
from protocol.identity import Identity, NodeId
from protocol.messages import Advert, AdvertPull, AdvertPush, Capability, SignedAdvert
from protocol.notary import Notary
from swarm.effects import AdvertDue, Effect, GossipDue, Provide, Send, SetTimer
from swarm.finding.capabilities import CapabilityIndex
from swarm.finding.gossip import JITTER, Gossip
from swarm.settings import Settings
from tests.swarm.samples import NOW, advert, capability, node_id, signed

SWARM = swarm_id("attic")
CHAT, CODE = capability("chat"), capability("code", "coder")
KEYS = {name: Identity(name.encode().ljust(32)) for name in ("ada", "bob", "cyd", "dan", "eve")}
ADA, BOB, CYD, DAN, EVE = (key.node for key in KEYS.values())


def of(node: NodeId, *capabilities: Capability, at: float = NOW, name: str = "") -> SignedAdvert:
    """An advert with a true seal."""
    key = next(key for key in KEYS.values() if key.node == node)
    return Notary(key, SWARM, Random(1)).sign(advert(*(capabilities or (CHAT,)), name=name), 60.0, at)


class Ada:
    """Ada's gossip, her index, and a load that the test sets."""

    def __init__(self, **settings: float) -> None:
        self.settings = Settings(**settings)
        self.index = CapabilityIndex(ADA, self.settings)
        self.load = (0, 0, 0)
        notary = Notary(KEYS["ada"], SWARM, Random(1))
        self.gossip = Gossip(ADA, "ada", self.settings, notary, Random(1), self.index, lambda: self.load)

    def hears(self, *adverts: SignedAdvert, sender: NodeId = EVE, at: float = NOW) -> list[SignedAdvert]:
        return self.gossip.hear(sender, AdvertPush(adverts), at)

    def round(self, *neighbours: NodeId) -> list[tuple[NodeId, list[NodeId]]]:
        """Whom a round tells about whom."""
        return told(self.gossip.round(list(neighbours)))


def told(effects: Iterable[Effect]) -> list[tuple[NodeId, list[NodeId]]]:
    return [
        (effect.to, [signed.issuer for signed in effect.message.adverts])
        for effect in effects
        if isinstance(effect, Send) and isinstance(effect.message, AdvertPush)
    ]


# --- Hearing ------------------------------------------------------------------------------------------------------------


def test_what_is_news_is_learned_and_passed_on() -> None:
    ada = Ada()
    assert [signed.issuer for signed in ada.hears(of(BOB), of(CYD))] == [BOB, CYD]
    assert [known.signed.issuer for known, _ in ada.index.able("chat")] == [BOB, CYD]
    assert ada.round(DAN) == [(DAN, [BOB, CYD])]


def test_what_is_known_is_neither_news_nor_passed_on() -> None:
    ada = Ada(gossip_copies=1)
    ada.hears(of(BOB))
    ada.round(DAN)
    assert ada.hears(of(BOB), of(BOB, at=NOW - 1)) == []
    assert ada.round(DAN) == []


def test_what_others_say_of_this_node_is_not_news() -> None:
    ada = Ada()
    assert ada.hears(of(ADA, at=NOW + 9)) == []
    assert ada.index.get(ADA) is None


def test_a_forged_advert_is_counted_and_believed_by_nobody() -> None:
    ada = Ada()
    forged = replace(of(BOB), sealed=of(EVE).sealed[:-1] + b"\0")
    foreign = Notary(KEYS["bob"], swarm_id("elsewhere"), Random(1)).sign(advert(CHAT), 60.0, NOW)
    assert ada.hears(forged, foreign) == []
    assert ada.gossip.forged == 2
    assert len(ada.index) == 0
    assert ada.round(DAN) == []


def test_an_advert_that_is_no_news_is_not_even_checked() -> None:
    """Checking a seal costs a hundred times as much as looking it up; old adverts come all the time."""
    ada = Ada()
    ada.hears(of(BOB))
    ada.hears(replace(of(BOB), sealed=b"nonsense"))
    assert ada.gossip.forged == 0


def test_the_ghost_of_a_dead_node_is_not_news() -> None:
    """Seals hold for two minutes longer than adverts, for clocks that differ; a rumour that old is of the dead."""
    ada = Ada()
    assert ada.hears(of(BOB, at=NOW), at=NOW + 60) == []
    assert (ada.gossip.forged, len(ada.index)) == (0, 0)
    assert ada.hears(of(BOB, at=NOW), at=NOW + 59.9)


def test_a_neighbour_whose_clock_is_behind_is_believed_when_it_speaks_for_itself() -> None:
    ada = Ada()
    behind = of(BOB, at=NOW - 100)
    assert ada.hears(behind, sender=CYD) == []
    assert ada.hears(behind, sender=BOB) == [behind]
    assert ada.index.sweep(NOW + 30) == []


def test_a_forgotten_node_is_believed_again_only_from_itself() -> None:
    ada = Ada()
    ada.hears(of(BOB), sender=BOB)
    ada.index.forget(BOB)
    assert ada.hears(of(BOB), sender=CYD) == []
    assert ada.hears(of(BOB), sender=BOB)


# --- Rounds -------------------------------------------------------------------------------------------------------------


def test_each_version_is_passed_on_a_few_times_and_then_rests() -> None:
    ada = Ada(gossip_copies=3)
    ada.hears(of(BOB))
    assert [ada.round(DAN) for _ in range(4)] == [[(DAN, [BOB])]] * 3 + [[]]
    ada.hears(of(BOB, at=NOW + 1))
    assert ada.round(DAN) == [(DAN, [BOB])]


def test_a_node_is_not_told_about_itself() -> None:
    ada = Ada(gossip_copies=1)
    ada.hears(of(BOB), of(CYD))
    assert ada.round(BOB) == [(BOB, [CYD])]
    assert ada.round(BOB) == [], "nothing else to tell"
    assert ada.round(DAN) == [(DAN, [BOB])], "and the copy was not lost"


def test_a_round_tells_a_bounded_number_the_oldest_news_first() -> None:
    ada = Ada(gossip_adverts=2, gossip_copies=2)
    ada.hears(of(BOB), of(CYD), of(DAN))
    assert [ada.round(EVE) for _ in range(3)] == [[(EVE, [BOB, CYD])], [(EVE, [DAN, BOB])], [(EVE, [CYD, DAN])]]
    assert ada.round(EVE) == []


def test_a_round_without_news_or_neighbours_costs_no_message() -> None:
    ada = Ada()
    assert ada.round(BOB) == []
    ada.hears(of(BOB))
    assert ada.round() == []


def test_every_round_sets_the_next_with_jitter() -> None:
    ada = Ada()
    ada.hears(of(BOB))
    period_s = ada.settings.gossip_period_s
    for neighbours in ([], [BOB], [DAN], [DAN]):
        timers = [effect for effect in ada.gossip.round(neighbours) if isinstance(effect, SetTimer)]
        assert [timer.timer for timer in timers] == [GossipDue()]
        assert JITTER[0] * period_s <= timers[0].delay_s <= JITTER[1] * period_s


def test_what_was_forgotten_since_is_not_passed_on() -> None:
    ada = Ada()
    ada.hears(of(BOB), of(CYD))
    ada.index.forget(BOB)
    assert ada.round(DAN) == [(DAN, [CYD])]


def test_news_to_tell_are_bounded_and_the_oldest_go() -> None:
    ada = Ada(adverts_max=2, gossip_adverts=2)
    ada.hears(of(BOB), of(CYD), of(DAN))
    assert ada.round(EVE) == [(EVE, [CYD, DAN])]


def test_the_neighbour_to_tell_is_drawn() -> None:
    ada = Ada(gossip_copies=100)
    ada.hears(of(BOB))
    assert {ada.round(CYD, DAN, EVE)[0][0] for _ in range(50)} == {CYD, DAN, EVE}


# --- Greetings and pulls --------------------------------------------------------------------------------------------------


def test_a_new_neighbour_is_told_and_asked() -> None:
    ada = Ada()
    pull = Send(BOB, AdvertPull("", ada.settings.pull_adverts))
    assert ada.gossip.greet(BOB) == [pull], "a link that opened before the node has started"
    ada.gossip.start((), [], NOW)
    assert ada.gossip.own is not None
    assert ada.gossip.greet(BOB) == [Send(BOB, AdvertPush((ada.gossip.own,))), pull]


def test_a_new_neighbour_is_asked_for_no_more_than_there_is_room_for() -> None:
    ada = Ada(adverts_max=10)
    for known, wanted in ((CYD, 9), (DAN, 8)):
        ada.index.learn(of(known), NOW, False)
        assert ada.gossip.greet(BOB) == [Send(BOB, AdvertPull("", wanted))]
    for number in range(8):
        ada.index.learn(signed(node_id(number), CHAT), NOW, False)
    assert ada.gossip.greet(BOB) == []


@pytest.mark.parametrize(
    ("skill", "adverts_max", "expected"),
    [("", 256, [CYD, DAN]), ("code", 256, [DAN]), ("", 1, [DAN]), ("", 0, []), ("paint", 256, [])],
)
def test_a_pull_is_answered_with_the_freshest_without_the_askers_own(
    skill: str, adverts_max: int, expected: list[NodeId]
) -> None:
    ada = Ada()
    ada.hears(of(BOB), of(CYD), of(DAN, CODE))
    answered = told(ada.gossip.answer(BOB, AdvertPull(skill, adverts_max)))
    assert answered == ([(BOB, expected)] if expected else [])


def test_a_long_answer_comes_in_several_messages() -> None:
    ada = Ada(pull_adverts=40)
    keys = [Identity(bytes([number]) * 32) for number in range(50)]
    for key in keys:
        ada.hears(Notary(key, SWARM, Random(1)).sign(advert(CHAT), 60.0, NOW))
    sizes = [len(issuers) for _, issuers in told(ada.gossip.answer(BOB, AdvertPull("", 256)))]
    assert sizes == [16, 16, 8]


# --- What this node says of itself ----------------------------------------------------------------------------------------


def test_a_started_node_knows_itself() -> None:
    ada = Ada()
    effects = ada.gossip.start(("/memory/ada",), [BOB], NOW)
    assert ada.index.get(ADA).signed is ada.gossip.own
    assert ada.gossip.own.advert == Advert("ada", ("/memory/ada",), (), 0, 0, 0, False)
    assert told(effects) == [(BOB, [ADA])]


def test_new_capabilities_are_told_at_once_and_provided() -> None:
    ada = Ada()
    effects = ada.gossip.offer((CODE, CHAT, capability("chat", "other")), [BOB, CYD], NOW)
    assert effects[0] == Provide(("chat", "code"))
    assert told(effects) == [(BOB, [ADA]), (CYD, [ADA])]
    assert len(ada.gossip.own.advert.capabilities) == 3


def test_versions_grow_even_within_a_millisecond() -> None:
    ada = Ada()
    versions = []
    for _ in range(3):
        ada.gossip.issue([], NOW)
        versions.append(ada.gossip.own.issued_at_ms)
    assert versions == sorted(set(versions))
    assert ada.index.get(ADA).signed.issued_at_ms == versions[-1]


def test_only_the_timer_of_the_latest_version_renews() -> None:
    ada = Ada()
    [first] = ada.gossip.issue([], NOW)
    [second] = ada.gossip.issue([], NOW + 1)
    assert (first.timer, second.timer) == (AdvertDue(1), AdvertDue(2))
    assert ada.gossip.due(first.timer, [BOB], NOW + 15) == []
    assert told(ada.gossip.due(second.timer, [BOB], NOW + 16)) == [(BOB, [ADA])]
    assert ada.gossip.own.issued_at_ms == round((NOW + 16) * 1000)


@pytest.mark.parametrize(
    ("load", "seconds", "is_told"),
    [
        ((2, 1, 0), 5, False),  # Still room.
        ((2, 2, 0), 5, True),
        ((2, 2, 0), 0.5, False),  # Sooner than the gap; refusals will tell.
        ((0, 0, 0), 5, False),  # Nothing to be full of.
    ],
)
def test_a_node_that_fills_up_says_so(load: tuple[int, int, int], seconds: float, is_told: bool) -> None:
    ada = Ada()
    assert ada.gossip.load_changed([BOB], NOW) == [], "before there is an advert"
    ada.load = (2, 0, 0)
    ada.gossip.issue([], NOW)
    ada.load = load
    assert bool(told(ada.gossip.load_changed([BOB], NOW + seconds))) is is_told


def test_a_node_that_has_room_again_says_so_once() -> None:
    ada = Ada()
    ada.load = (1, 1, 3)
    ada.gossip.issue([], NOW)
    ada.load = (1, 0, 0)
    assert told(ada.gossip.load_changed([BOB], NOW + 2))
    assert not ada.gossip.load_changed([BOB], NOW + 4)
    assert ada.gossip.own.advert.busy == 0


def test_a_node_that_is_about_to_stop_says_so() -> None:
    ada = Ada()
    ada.gossip.offer((CHAT,), [], NOW)
    assert told(ada.gossip.drain([BOB], NOW + 1)) == [(BOB, [ADA])]
    assert ada.gossip.own.advert.draining
    ada.gossip.issue([], NOW + 2)
    assert ada.gossip.own.advert.draining


def test_an_advert_always_fits_its_bounds() -> None:
    """Sixteen capabilities with long texts are more than an advert holds: the texts go before the capabilities do."""
    ada = Ada()
    long = "x" * lim.DESCRIPTION_BYTES_MAX
    labels = tuple("y" * lim.LABEL_BYTES_MAX for _ in range(lim.LABELS_MAX))
    offered = tuple(
        capability(f"skill{number}", "m" * lim.MODEL_BYTES_MAX, digest=b"d" * 32, description=long, labels=labels)
        for number in range(lim.CAPABILITIES_MAX)
    )
    addresses = tuple("a" * lim.ADDRESS_BYTES_MAX for _ in range(lim.ADDRESSES_MAX + 1))
    ada.load = (5000, 5000, 5000)
    ada.gossip.start(addresses, [], NOW)
    ada.gossip.offer((*offered, CHAT), [], NOW + 1)
    own = ada.gossip.own
    assert len(own.sealed) <= lim.ADVERT_BYTES_MAX
    assert codec.signed_advert(own.sealed) == own
    assert [found.skill for found in own.advert.capabilities] == [found.skill for found in offered]
    assert (own.advert.slots, own.advert.busy, own.advert.queued) == (lim.SLOTS_MAX,) * 3


def test_texts_that_fit_are_kept() -> None:
    ada = Ada()
    spoken = capability("chat", description="talks", labels=("yes", "no"))
    ada.gossip.offer((spoken,), [], NOW)
    assert ada.gossip.own.advert.capabilities == (spoken,)
