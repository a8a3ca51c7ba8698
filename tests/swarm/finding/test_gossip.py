"""How news travels: soon, each to a few neighbours, within a budget."""

from dataclasses import replace
from random import Random

from protocol.genesis import swarm_id
from protocol.messages import AdvertDigest, Digest, Rumours
from protocol.notary import Notary
from swarm.effects import GossipDue
from swarm.finding.backlog import BURST_S, GONE_COPIES, Worth
from swarm.finding.gossip import CHANGED_S, FIRST, JITTER, LAST
from tests.swarm.finding.hearing import (
    ADA,
    BOB,
    CHAT,
    CODE,
    CYD,
    DAN,
    EVE,
    KEYS,
    NOW_MS,
    Ada,
    doubt,
    notary,
    of,
    pulse,
    rumoured,
    told,
)  # fmt: skip
from tests.swarm.samples import NOW, advert, node_id

# --- Hearing ------------------------------------------------------------------------------------------------------------


def test_what_is_news_is_learned_and_passed_on() -> None:
    ada = Ada()
    assert [signed.issuer for signed in ada.hears(of(BOB), of(CYD))] == [BOB, CYD]
    assert [known.signed.issuer for known, _ in ada.index.able("chat")] == [BOB, CYD]
    assert ada.round(DAN) == [(DAN, [CYD, BOB])]


def test_what_is_known_is_neither_news_nor_passed_on() -> None:
    ada = Ada(gossip_copies=1)
    ada.hears(of(BOB))
    ada.round(DAN)
    assert ada.hears(of(BOB), of(BOB, at=NOW - 1)) == []
    assert ada.round(DAN) == []


def test_what_others_say_of_this_node_is_not_news() -> None:
    ada = Ada()
    ada.issuer.start((), NOW + 10)
    assert ada.hears(of(ADA, at=NOW + 9)) == []
    assert ada.index.get(ADA).signed is ada.issuer.advert
    assert ada.gossip.refused == {}


def test_a_second_node_with_this_identity_is_noticed_and_outdone() -> None:
    ada = Ada()
    ada.issuer.start((), NOW)
    twin = replace(advert(CHAT), addresses=("/ip4/192.0.2.9/tcp/4976",))
    ada.hears(notary(ADA).sign(twin, 60.0, NOW + 9), at=NOW + 9)
    ada.feels(pulse(ADA, at=NOW + 10), at=NOW + 10)
    assert ada.gossip.refused == {"own identity": 2}
    assert ada.gossip.twin == "at /ip4/192.0.2.9/tcp/4976"
    assert ada.issuer.issue(NOW + 1)
    assert ada.issuer.version == NOW_MS + 10_001, "what it says next is the newest of all"
    ada.hears(replace(of(ADA, at=NOW + 99), sealed=of(ADA, at=NOW + 99).sealed[:-1] + b"\0"), at=NOW + 99)
    assert ada.gossip.refused == {"own identity": 2}, "anybody can make that up"


def test_a_node_that_has_said_more_than_it_knows_is_told() -> None:
    """Only a twin of it, or its clock set back, makes that so."""
    ada = Ada()
    newest = of(EVE, at=NOW + 5)
    ada.hears(newest, sender=BOB, at=NOW + 5)
    assert ada.gossip.remind(EVE, round((NOW + 5) * 1000)) == []
    assert told(ada.gossip.remind(EVE, round(NOW * 1000))) == [(EVE, [EVE])]
    assert told(ada.gossip.hear_rumours(EVE, Rumours((pulse(EVE, at=NOW + 1),), ()), NOW + 6)[0]) == [(EVE, [EVE])]
    behind = AdvertDigest(FIRST, LAST, (Digest(EVE, round(NOW * 1000), 0),))
    assert told(ada.gossip.compare(EVE, behind, NOW + 1)) == [(EVE, [EVE])]
    assert told(ada.gossip.compare(EVE, AdvertDigest(FIRST, LAST, ()), NOW + 1)) == []


def test_a_forged_advert_is_counted_and_believed_by_nobody() -> None:
    ada = Ada()
    sealed = of(EVE).sealed
    forged = replace(of(BOB), sealed=sealed[:-1] + bytes([sealed[-1] ^ 1]))
    foreign = Notary(KEYS["bob"], swarm_id("elsewhere"), Random(1)).sign(advert(CHAT), 60.0, NOW)
    assert ada.hears(forged, foreign) == []
    assert ada.gossip.refused == {"forged": 1, "foreign": 1}
    assert len(ada.index) == 0
    assert ada.round(DAN) == []


def test_an_advert_that_is_no_news_is_not_even_checked() -> None:
    """Checking a seal costs a hundred times as much as looking it up; old adverts come all the time."""
    ada = Ada()
    ada.hears(of(BOB))
    ada.hears(replace(of(BOB), sealed=b"nonsense"))
    assert ada.gossip.refused == {}


def test_the_ghost_of_a_dead_node_is_not_news() -> None:
    """Seals hold for two minutes longer than adverts, for clocks that differ; a rumour that old is of the dead."""
    ada = Ada()
    assert ada.hears(of(BOB, at=NOW), at=NOW + 60) == []
    assert (ada.gossip.refused, len(ada.index)) == ({}, 0)
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


def test_in_calm_times_news_goes_to_all_neighbours() -> None:
    """Of fifty nodes, four copies each miss one more often than not."""
    ada = Ada()
    crowd = [node_id(10 + number) for number in range(9)]
    ada.hears(of(BOB), of(CYD))
    assert len(ada.round(*crowd)) == len(crowd)
    ada.feels(pulse(BOB, at=NOW + 1, busy=1), at=NOW + 1)
    assert len(rumoured(ada.gossip.round(crowd, NOW + 1))) == len(crowd)
    ada.feels(pulse(BOB, at=NOW + 2, busy=1), at=NOW + 2)
    assert len(rumoured(ada.gossip.round(crowd, NOW + 2))) == ada.settings.gossip_renewals, "what only renews does not"
    ada.feels(pulse(CYD, at=NOW + 3, leaving=True), at=NOW + 3)
    assert len(rumoured(ada.gossip.round(crowd, NOW + 3))) == len(crowd)


def test_whoever_tells_the_same_meanwhile_is_not_told() -> None:
    ada = Ada()
    ada.hears(of(BOB), of(DAN), sender=CYD)
    ada.hears(of(BOB), sender=EVE)
    assert ada.round(CYD, EVE, node_id(9)) == [(node_id(9), [DAN, BOB]), (EVE, [DAN])]
    ada.feels(pulse(BOB, at=NOW + 1, busy=1), sender=CYD, at=NOW + 1)
    ada.feels(pulse(BOB, at=NOW + 1, busy=1), sender=EVE, at=NOW + 1)
    assert [node for node, _ in rumoured(ada.gossip.round([CYD, EVE, node_id(9)], NOW + 1))] == [node_id(9)]
    ada.hears(of(EVE), sender=EVE)
    ada.round()
    ada.doubts(doubt(EVE, DAN), sender=CYD)
    ada.doubts(doubt(EVE, DAN), sender=node_id(8))
    assert [node for node, _ in rumoured(ada.gossip.round([CYD, node_id(8), node_id(9)], NOW + 2))] == [node_id(9)]


def test_each_version_is_passed_on_once_to_a_few_neighbours_and_then_rests() -> None:
    ada = Ada(gossip_copies=2)
    ada.has_told_much()
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
    ada.has_told_much()
    crowd = [node_id(10 + number) for number in range(9)]
    for at, offered, copies in ((NOW, CHAT, 4), (NOW + 1, CHAT, 1), (NOW + 2, CODE, 4)):
        ada.hears(of(BOB, offered, at=at), at=at)
        assert len(ada.round(*crowd, at=at)) == copies
    for at, busy, copies in ((NOW + 3, 0, 1), (NOW + 4, 1, 4), (NOW + 5, 1, 1)):
        ada.feels(pulse(BOB, at=at, busy=busy), at=at)
        assert len(rumoured(ada.gossip.round(crowd, at))) == copies


def test_what_makes_others_forget_a_node_goes_to_more() -> None:
    ada = Ada()
    ada.has_told_much()
    crowd = [node_id(10 + number) for number in range(9)]
    ada.hears(of(BOB), of(CYD))
    ada.round(*crowd)
    ada.feels(pulse(BOB, leaving=True))
    assert len(rumoured(ada.gossip.round(crowd, NOW + 1))) == GONE_COPIES
    ada.hears(of(EVE))
    ada.round(*crowd)
    ada.doubts(doubt(EVE, CYD))
    assert len(rumoured(ada.gossip.round(crowd, NOW + 2))) == GONE_COPIES


def test_nobody_is_told_about_itself_or_what_it_has_told() -> None:
    ada = Ada()
    ada.hears(of(BOB), of(CYD), sender=DAN)
    assert ada.round(BOB, DAN) == [(BOB, [CYD])]
    assert ada.round(BOB, DAN, EVE) == [], "once is enough"


def test_what_may_be_told_in_a_second_is_bounded_and_the_newest_adverts_come_first() -> None:
    """What is told too late is found by comparing; a swarm that has just begun must still hear of what changes now."""
    ada = Ada(gossip_budget=4, gossip_copies=1)
    burst = BURST_S * 4 / 4
    for number in range(int(burst)):
        ada.hears(of(BOB, at=NOW + number), at=NOW + number)
        assert ada.round(node_id(9), at=NOW) == [(node_id(9), [BOB])]
    ada.hears(of(BOB, at=NOW + 100), of(CYD, at=NOW + 100), of(DAN, at=NOW + 100), at=NOW + 100)
    spent = ada.gossip.round([node_id(9)], NOW + 0.1)
    assert told(spent) == []
    assert [effect.timer for effect in spent] == [GossipDue()], "the rest waits for its turn"
    assert ada.round(node_id(9), at=NOW + 1.2) == [(node_id(9), [DAN])]
    assert ada.round(node_id(9), at=NOW + 9.0) == [(node_id(9), [CYD, BOB])]


def test_what_anybody_can_make_up_is_kept_apart_from_what_changes() -> None:
    """A new node, a pulse without a node, and an advert that changes again and again; not one that changes now and then."""
    ada = Ada()
    ada.hears(of(BOB), of(CYD, at=NOW - CHANGED_S))
    ada.round(DAN)
    ada.hears(of(BOB, CODE, at=NOW + 1), of(CYD, CODE, at=NOW + 1), of(EVE, at=NOW + 1), at=NOW + 1)
    ada.feels(pulse(DAN))
    waiting = ada.gossip._backlog._waiting
    assert [key.subject for key in waiting[Worth.CHANGE]] == [CYD]
    assert [key.subject for key in waiting[Worth.STRANGER]] == [BOB, EVE, DAN]


def test_of_loads_the_oldest_is_told_first() -> None:
    """No later word may come of a worker that has become free."""
    ada = Ada(gossip_budget=1, gossip_copies=1)
    ada.hears(of(BOB), of(CYD), of(DAN))
    for _ in range(60):
        ada.round(node_id(9))
    ada.gossip._backlog._allowance = 0
    ada.feels(pulse(BOB, busy=1), pulse(CYD, busy=1), at=NOW + 1)
    assert rumoured(ada.gossip.round([node_id(9)], NOW + 1)) == [(node_id(9), [pulse(BOB, busy=1).body])]


def test_a_round_without_news_or_neighbours_costs_no_message() -> None:
    ada = Ada()
    assert ada.round(BOB) == []
    ada.hears(of(BOB))
    assert ada.round() == []


def test_news_sets_a_round_soon_and_only_one() -> None:
    ada = Ada()
    assert ada.gossip.stir(NOW) == []
    ada.hears(of(BOB))
    [timer] = ada.gossip.stir(NOW)
    assert timer.timer == GossipDue()
    period_s = ada.settings.gossip_period_s
    assert JITTER[0] * period_s <= timer.delay_s <= JITTER[1] * period_s
    assert ada.gossip.stir(NOW) == []
    assert told(ada.gossip.due([DAN], NOW + timer.delay_s)) == [(DAN, [BOB])]
    assert ada.gossip.stir(NOW) == [], "nothing is left to tell"
    ada.hears(of(CYD))
    assert len(ada.gossip.stir(NOW)) == 1


def test_a_renewal_waits_longer_unless_there_is_news_meanwhile() -> None:
    ada = Ada()
    ada.hears(of(BOB))
    ada.round(DAN)
    ada.feels(pulse(BOB))
    [late] = ada.gossip.stir(NOW + 1)
    assert late.delay_s >= JITTER[0] * ada.settings.gossip_renewal_period_s
    ada.hears(of(CYD), at=NOW + 1)
    [soon] = ada.gossip.stir(NOW + 1)
    assert soon.delay_s <= JITTER[1] * ada.settings.gossip_period_s
    both = ada.gossip.due([DAN], NOW + 1 + soon.delay_s)
    assert (told(both), len(rumoured(both))) == ([(DAN, [CYD])], 1)
    assert ada.gossip.due([DAN], NOW + 1 + late.delay_s) == [], "its timer finds nothing"


def test_what_was_forgotten_since_is_not_passed_on() -> None:
    ada = Ada()
    ada.hears(of(BOB), of(CYD))
    ada.index.forget(BOB)
    assert ada.round(DAN) == [(DAN, [CYD])]


def test_news_to_tell_are_bounded_and_the_oldest_go() -> None:
    ada = Ada(adverts_max=2)
    ada.hears(of(BOB), of(CYD), of(DAN))
    assert ada.round(node_id(9)) == [(node_id(9), [DAN, CYD])]


def test_the_neighbours_to_tell_are_drawn() -> None:
    ada, seen = Ada(gossip_copies=1), set()
    for number in range(50):
        ada.hears(of(BOB, at=NOW + number))
        seen.add(ada.round(CYD, DAN, node_id(9), at=NOW + number)[0][0])
    assert seen == {CYD, DAN, node_id(9)}
