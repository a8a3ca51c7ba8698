"""How adverts travel: news only, soon, each to a few neighbours, within a budget; and what this node says of itself."""

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
from swarm.effects import AdvertDue, Effect, GossipDue, Provide, Send
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

    def round(self, *neighbours: NodeId, at: float = NOW) -> list[tuple[NodeId, list[NodeId]]]:
        """Whom a round tells about whom."""
        return told(self.gossip.round(list(neighbours), at))


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


def test_each_version_is_passed_on_once_to_a_few_neighbours_and_then_rests() -> None:
    ada = Ada(gossip_copies=2)
    crowd = [node_id(10 + number) for number in range(9)]
    ada.hears(of(BOB))
    first = ada.round(*crowd)
    assert [issuers for _, issuers in first] == [[BOB], [BOB]]
    assert len({node for node, _ in first}) == 2
    assert ada.round(*crowd) == []
    ada.hears(of(BOB, at=NOW + 1))
    assert len(ada.round(*crowd)) == 2


def test_a_renewal_that_says_nothing_new_goes_to_fewer() -> None:
    ada = Ada(gossip_copies=4, gossip_renewals=1)
    crowd = [node_id(10 + number) for number in range(9)]
    for at, offered, copies in ((NOW, CHAT, 4), (NOW + 1, CHAT, 1), (NOW + 2, CODE, 4)):
        ada.hears(of(BOB, offered, at=at), at=at)
        assert len(ada.round(*crowd, at=at)) == copies


def test_nobody_is_told_about_itself_or_what_it_has_told() -> None:
    ada = Ada()
    ada.hears(of(BOB), of(CYD), sender=DAN)
    assert ada.round(BOB, DAN) == [(BOB, [CYD])]
    assert ada.round(BOB, DAN, EVE) == [], "once is enough"


def test_what_may_be_told_in_a_second_is_bounded_and_the_oldest_news_comes_first() -> None:
    ada = Ada(gossip_adverts=1, gossip_copies=1)
    ada.hears(of(BOB), of(CYD), of(DAN))
    assert ada.round(EVE, node_id(9)) != []
    ada.hears(of(BOB, at=NOW + 1), of(CYD, at=NOW + 1), of(DAN, at=NOW + 1))
    spent = ada.gossip.round([node_id(9)], NOW + 0.1)
    assert told(spent) == []
    assert [effect.timer for effect in spent] == [GossipDue()], "the rest waits for its turn"
    assert ada.round(node_id(9), at=NOW + 1.1) == [(node_id(9), [BOB])]
    assert ada.round(node_id(9), at=NOW + 9.0) == [(node_id(9), [CYD, DAN])], "what was saved is bounded too"


def test_a_round_without_news_or_neighbours_costs_no_message() -> None:
    ada = Ada()
    assert ada.round(BOB) == []
    ada.hears(of(BOB))
    assert ada.round() == []


def test_news_sets_a_round_soon_and_only_one() -> None:
    ada = Ada()
    assert ada.gossip.stir() == []
    ada.hears(of(BOB))
    [timer] = ada.gossip.stir()
    assert timer.timer == GossipDue()
    period_s = ada.settings.gossip_period_s
    assert JITTER[0] * period_s <= timer.delay_s <= JITTER[1] * period_s
    assert ada.gossip.stir() == []
    ada.round(DAN)
    assert ada.gossip.stir() == [], "nothing is left to tell"
    ada.hears(of(CYD))
    assert len(ada.gossip.stir()) == 1


def test_what_was_forgotten_since_is_not_passed_on() -> None:
    ada = Ada()
    ada.hears(of(BOB), of(CYD))
    ada.index.forget(BOB)
    assert ada.round(DAN) == [(DAN, [CYD])]


def test_news_to_tell_are_bounded_and_the_oldest_go() -> None:
    ada = Ada(adverts_max=2, gossip_adverts=2)
    ada.hears(of(BOB), of(CYD), of(DAN))
    assert ada.round(node_id(9)) == [(node_id(9), [CYD, DAN])]


def test_the_neighbours_to_tell_are_drawn() -> None:
    ada, seen = Ada(gossip_copies=1), set()
    for number in range(50):
        ada.hears(of(BOB, at=NOW + number))
        seen.add(ada.round(CYD, DAN, node_id(9), at=NOW + number)[0][0])
    assert seen == {CYD, DAN, node_id(9)}


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
        ((2, 2, 0), 0.1, False),  # Sooner than the gap.
        ((2, 2, 1), 5, True),
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


def test_a_change_within_the_gap_is_told_when_the_gap_is_over() -> None:
    ada = Ada()
    ada.load = (1, 0, 0)
    ada.gossip.issue([], NOW)
    ada.load = (1, 1, 0)
    [soon] = ada.gossip.load_changed([BOB], NOW + 0.1)
    assert soon.delay_s == pytest.approx(ada.settings.advert_gap_s - 0.1, abs=0.001)
    assert ada.gossip.load_changed([BOB], NOW + 0.2) == [], "once is enough"
    assert told(ada.gossip.due(soon.timer, [BOB], NOW + 0.3)) == [(BOB, [ADA])]
    assert ada.gossip.own.advert.busy == 1


@pytest.mark.parametrize(("before", "after", "is_told"), [(1, 3, True), (4, 5, False), (4, 8, False), (4, 9, True), (4, 1, True)])
def test_a_queue_is_told_again_when_it_is_another(before: int, after: int, is_told: bool) -> None:
    ada = Ada()
    ada.load = (1, 1, before)
    ada.gossip.issue([], NOW)
    ada.load = (1, 1, after)
    assert bool(told(ada.gossip.load_changed([BOB], NOW + 5))) is is_told


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
