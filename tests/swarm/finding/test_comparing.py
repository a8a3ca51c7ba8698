"""What neighbours tell each other when they meet, compare what they know and ask for what they lack."""

from random import Random

import pytest

from protocol import limits as lim
from protocol.identity import Identity, NodeId
from protocol.messages import AdvertDigest, AdvertPull, AdvertPush, AdvertWant, Digest, Rumours
from protocol.notary import Notary
from swarm.effects import Send
from swarm.finding.gossip import ANSWERED_BURST, FIRST, LAST
from tests.swarm.finding.hearing import (
    ADA,
    BOB,
    CHAT,
    CODE,
    CYD,
    DAN,
    EVE,
    NOW_MS,
    SWARM,
    Ada,
    asked,
    of,
    pulse,
    rumoured,
    told,
)  # fmt: skip
from tests.swarm.samples import NOW, advert, node_id, signed


def test_a_new_neighbour_is_told_who_is_here_and_whoever_dialled_compares() -> None:
    ada = Ada()
    empty = Send(BOB, AdvertDigest(FIRST, LAST, ()))
    assert ada.gossip.greet(BOB, True, NOW) == [empty], "a link that opened before the node has started"
    assert ada.gossip.greet(BOB, False, NOW) == []
    ada.issuer.start((), NOW)
    [push, digest] = ada.gossip.greet(BOB, True, NOW)
    assert push == Send(BOB, AdvertPush((ada.issuer.advert,)))
    assert digest == Send(BOB, AdvertDigest(FIRST, LAST, (Digest(ADA, NOW_MS, 0),)))
    ada.issuer.speak(NOW + 5)
    assert [type(effect.message) for effect in ada.gossip.greet(BOB, False, NOW)] == [Rumours, AdvertPush]


def test_what_is_newer_here_is_told_and_what_is_newer_there_is_asked_for() -> None:
    """[ADV-9]"""
    ada = Ada()
    ada.hears(of(BOB), of(CYD, at=NOW + 2), of(DAN), at=NOW + 2)
    ada.feels(pulse(DAN, at=NOW + 3), at=NOW + 3)
    theirs = (
        Digest(BOB, NOW_MS + 1, 0), Digest(CYD, NOW_MS, 0), Digest(DAN, NOW_MS, 0), Digest(node_id(9), NOW_MS, 0),
        Digest(ADA, 0, 0),
    )  # fmt: skip
    effects = ada.gossip.compare(EVE, AdvertDigest(FIRST, LAST, theirs), NOW + 1)
    assert told(effects) == [(EVE, [CYD])]
    assert rumoured(effects) == [(EVE, [pulse(DAN).body])]
    assert asked(effects) == [(EVE, (BOB, node_id(9)))]


def test_who_knows_more_of_a_node_than_the_node_itself_is_asked_for_it() -> None:
    """[ADV-9] Neighbours tell nobody of itself, so two nodes with one identity would never hear of each other."""
    ada = Ada()
    ada.issuer.start((), NOW)
    for version, wanted in ((ada.issuer.version, []), (ada.issuer.version + 1, [(EVE, (ADA,))])):
        assert asked(ada.gossip.compare(EVE, AdvertDigest(FIRST, LAST, (Digest(ADA, version, 0),)), NOW + 1)) == wanted


def test_only_the_range_of_a_digest_is_compared_and_nobody_is_told_of_itself() -> None:
    """[ADV-9]"""
    ada = Ada()
    nodes = sorted([BOB, CYD, DAN])
    ada.hears(of(BOB), of(CYD), of(DAN))
    assert told(ada.gossip.compare(EVE, AdvertDigest(nodes[1], nodes[1], ()), NOW + 1)) == [(EVE, [nodes[1]])]
    assert told(ada.gossip.compare(nodes[1], AdvertDigest(nodes[1], nodes[1], ()), NOW + 1)) == []


def test_a_full_view_asks_for_nobody_new() -> None:
    """[ADV-9] As far as it has room."""
    ada = Ada(adverts_max=1)
    ada.hears(of(BOB))
    theirs = (Digest(BOB, NOW_MS + 1, 0), Digest(CYD, NOW_MS, 0))
    assert asked(ada.gossip.compare(EVE, AdvertDigest(FIRST, LAST, theirs), NOW + 1)) == [(EVE, (BOB,))]


def test_no_more_are_asked_for_than_there_is_room() -> None:
    """[ADV-9] Or in a swarm too large for any view everybody would exchange all of it with everybody, again and again."""
    ada = Ada(adverts_max=3)
    ada.hears(of(BOB))
    theirs = tuple(Digest(node, NOW_MS + 1, 0) for node in (CYD, DAN, BOB, node_id(9)))
    assert asked(ada.gossip.compare(EVE, AdvertDigest(FIRST, LAST, theirs), NOW + 1)) == [(EVE, (CYD, DAN, BOB))]
    ada = Ada(adverts_max=2)
    ada.hears(of(BOB))
    effects, _ = ada.gossip.hear_rumours(EVE, Rumours((pulse(CYD), pulse(DAN)), ()), NOW)
    assert asked(effects) == [(EVE, (CYD,))]


def test_what_one_digest_brings_is_bounded() -> None:
    """[ADV-9]"""
    ada = Ada(pull_adverts=2)
    ada.hears(of(BOB), of(CYD), of(DAN))
    [(_, issuers)] = told(ada.gossip.compare(EVE, AdvertDigest(FIRST, LAST, ()), NOW + 1))
    assert len(issuers) == 2


def test_a_large_view_is_compared_part_by_part() -> None:
    ada = Ada()
    for number in range(200):
        ada.index.learn(signed(node_id(number + 1), CHAT), NOW, False)
    covered: set[NodeId] = set()
    for _ in range(60):
        [_, digest] = ada.gossip.digest_due([BOB])
        told_of = [each.node for each in digest.message.known]
        assert len(told_of) <= lim.DIGESTS_MAX
        assert told_of == [node for node in told_of if digest.message.first <= node <= digest.message.last]
        covered.update(told_of)
    assert len(covered) == 200


def test_without_neighbours_there_is_nobody_to_compare_with() -> None:
    assert len(Ada().gossip.digest_due([])) == 1


def test_what_is_asked_for_is_given_as_far_as_it_is_known() -> None:
    """[ADV-9]"""
    ada = Ada()
    ada.hears(of(BOB))
    ada.feels(pulse(BOB))
    effects = ada.gossip.give(EVE, AdvertWant((BOB, CYD)), NOW + 1)
    assert (told(effects), rumoured(effects)) == ([(EVE, [BOB])], [(EVE, [pulse(BOB).body])])
    assert ada.gossip.give(EVE, AdvertWant((CYD,)), NOW + 1) == []


@pytest.mark.parametrize(
    ("skill", "adverts_max", "expected"),
    [("", 256, [CYD, DAN]), ("code", 256, [DAN]), ("", 1, [DAN]), ("", 0, []), ("paint", 256, [])],
)
def test_a_pull_is_answered_with_the_freshest_without_the_askers_own(
    skill: str, adverts_max: int, expected: list[NodeId]
) -> None:
    ada = Ada()
    ada.hears(of(BOB), of(CYD), of(DAN, CODE))
    answered = told(ada.gossip.answer(BOB, AdvertPull(skill, adverts_max), NOW + 1))
    assert answered == ([(BOB, expected)] if expected else [])


def test_a_long_answer_comes_in_several_messages() -> None:
    ada = Ada(pull_adverts=40)
    keys = [Identity(bytes([number]) * 32) for number in range(50)]
    for key in keys:
        ada.hears(Notary(key, SWARM, Random(1)).sign(advert(CHAT), 60.0, NOW))
    sizes = [len(issuers) for _, issuers in told(ada.gossip.answer(BOB, AdvertPull("", 256), NOW + 1))]
    assert sizes == [16, 16, 8]


@pytest.mark.parametrize("ask", ["pull", "want", "digest"])
def test_what_one_neighbour_may_ask_for_is_bounded(ask: str) -> None:
    """Ten bytes bring 64 adverts; who has had its share waits, and the others are answered as before."""
    ada = Ada()
    ada.hears(*[of(node) for node in (BOB, CYD, DAN)])
    questions = {
        "pull": lambda node, at: ada.gossip.answer(node, AdvertPull("", 256), at),
        "want": lambda node, at: ada.gossip.give(node, AdvertWant((BOB, CYD, DAN)), at),
        "digest": lambda node, at: ada.gossip.compare(node, AdvertDigest(FIRST, LAST, ()), at),
    }
    stranger, other = node_id(1), node_id(2)
    told_to = [sum(len(issuers) for _, issuers in told(questions[ask](stranger, NOW + 1))) for _ in range(1_000)]
    assert sum(told_to) == ANSWERED_BURST
    assert len(told(questions[ask](other, NOW + 1))) == 1
    assert told(questions[ask](stranger, NOW + 1.01)) == []
    assert sum(len(issuers) for _, issuers in told(questions[ask](stranger, NOW + 2))) == 3
    ada.gossip.unlinked(stranger)
    assert ada.gossip._answered.keys() == {other}
