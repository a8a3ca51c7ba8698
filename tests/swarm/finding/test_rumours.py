"""What pulses and suspicions say of a node: that it is there, how busy it is, that it is gone."""

from dataclasses import replace
from random import Random

import pytest

from protocol.identity import Identity
from protocol.messages import AdvertDigest, Digest, Pulse, Rumours, Suspicion
from protocol.notary import Notary
from swarm.effects import AdvertDue, BurialDue, SetTimer
from swarm.finding.capabilities import PRESENCE_S
from swarm.finding.gossip import FIRST, HEARD_BURST, LAST
from swarm.finding.suspicion import AHEAD_MS_MAX, REFUTE_MANY_S, REFUTE_S, TIMER_S
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
    doubt,
    notary,
    of,
    pulse,
    rumoured,
)  # fmt: skip
from tests.swarm.samples import NOW, advert

# --- Pulses ---------------------------------------------------------------------------------------------------------------


def test_a_pulse_prolongs_the_presence_of_its_node_and_tells_its_load() -> None:
    """[ADV-8]"""
    ada = Ada()
    ada.index.learn(notary(BOB).sign(advert(CHAT), 600.0, NOW), NOW, False)
    assert ada.index.get(BOB).expires_at == NOW + 60
    ada.feels(pulse(BOB, at=NOW + 20, busy=1), at=NOW + 20)
    assert ada.index.get(BOB).expires_at == NOW + 80
    assert ada.index.get(BOB).advert.busy == 1
    assert ada.index.sweep(NOW + 79) == []
    assert ada.index.sweep(NOW + 80) == [BOB]


def test_an_older_pulse_says_nothing() -> None:
    """[ADV-4] [ADV-8] Neither than the last pulse nor than the advert."""
    ada = Ada()
    ada.hears(of(BOB, at=NOW + 5), at=NOW + 5)
    ada.feels(pulse(BOB, at=NOW + 4, busy=1), pulse(BOB, at=NOW + 9, busy=0), pulse(BOB, at=NOW + 8, busy=1), at=NOW + 9)
    assert ada.index.get(BOB).advert.busy == 0
    ada.hears(of(BOB, CODE, at=NOW + 7), at=NOW + 9)
    assert (ada.index.get(BOB).advert.busy, ada.index.get(BOB).version) == (0, NOW_MS + 9000)


def test_an_advert_that_a_pulse_speaks_of_is_asked_for() -> None:
    """[ADV-8] Of the one who told."""
    ada = Ada()
    assert asked(ada.feels(pulse(BOB, at=NOW + 1))) == [(EVE, (BOB,))]
    ada.hears(of(BOB))
    assert ada.index.get(BOB).pulse is not None, "the pulse that came early counts"
    assert asked(ada.feels(pulse(BOB, at=NOW + 2))) == []
    assert asked(ada.feels(pulse(BOB, at=NOW + 3, card=NOW + 2.5))) == [(EVE, (BOB,))]


def test_a_pulse_of_a_stranger_is_not_followed_where_there_is_no_room() -> None:
    ada = Ada(adverts_max=1)
    ada.hears(of(CYD))
    assert asked(ada.feels(pulse(BOB))) == []


def test_a_forged_pulse_is_counted_and_not_believed() -> None:
    """[ADV-3]"""
    ada = Ada()
    ada.hears(of(BOB))
    ada.feels(replace(pulse(BOB, busy=1), sealed=pulse(EVE).sealed[:-1] + b"\0"))
    assert ada.index.get(BOB).advert.busy == 0
    assert ada.gossip.refused == {"forged": 1}


def test_a_node_that_says_it_leaves_is_forgotten_and_others_are_told() -> None:
    """[ADV-7] Nothing older brings it back."""
    ada = Ada()
    ada.hears(of(BOB))
    ada.round(CYD)
    effects, gone = ada.gossip.hear_rumours(EVE, Rumours((pulse(BOB, at=NOW + 2, leaving=True),), ()), NOW + 2)
    assert (effects, gone) == ([], [BOB])
    ada.feels(pulse(BOB, at=NOW + 1), at=NOW + 2)
    assert ada.hears(of(BOB), of(BOB, at=NOW + 1), at=NOW + 2) == []
    assert ada.index.get(BOB) is None
    assert [node for node, _ in rumoured(ada.gossip.round([CYD], NOW + 2))] == [CYD]
    assert ada.hears(of(BOB, at=NOW + 3), at=NOW + 3)


def test_what_one_neighbour_may_tell_is_bounded() -> None:
    """Each check of a seal costs; a flood of new identities must not take a node's time."""
    ada = Ada(adverts_max=2048)
    keys = [Identity(number.to_bytes(2, "big") * 16) for number in range(int(HEARD_BURST) + 8)]
    flood = [Notary(key, SWARM, Random(1)).sign(Pulse(NOW_MS, 0, 0, False, False), 60.0, NOW) for key in keys]
    ada.feels(*flood, sender=EVE, at=NOW)
    assert ada.gossip.refused == {"crowded": 8}
    ada.hears(of(BOB), sender=CYD)
    assert ada.index.get(BOB) is not None, "others are heard as before"
    ada.gossip.unlinked(EVE)
    ada.hears(of(DAN), sender=EVE)
    assert ada.index.get(DAN) is not None


# --- Suspicions -----------------------------------------------------------------------------------------------------------


def test_two_who_have_lost_a_node_are_believed_sooner_than_one() -> None:
    """[ADV-10] But it may speak for itself first."""
    ada = Ada()
    ada.hears(of(BOB), of(CYD), of(DAN))
    ada.doubts(doubt(CYD, BOB))
    ada.doubts(doubt(CYD, BOB, at=NOW + 1.5))
    assert ada.gossip.bury_overdue(NOW + 1 + REFUTE_MANY_S) == [], "one voice counts once"
    ada.doubts(doubt(DAN, BOB))
    assert ada.gossip.bury_overdue(NOW + 1 + REFUTE_MANY_S - 0.1) == []
    assert ada.gossip.bury_overdue(NOW + 1 + REFUTE_MANY_S) == [BOB]
    assert ada.index.get(BOB) is None
    behind = AdvertDigest(FIRST, LAST, (Digest(BOB, NOW_MS, 0), Digest(CYD, NOW_MS, 0), Digest(DAN, NOW_MS, 0)))
    [(_, why)] = rumoured(ada.gossip.compare(EVE, behind, NOW + 1))
    assert [told.node for told in why] == [BOB], "whoever missed it is told when it compares"


def test_a_node_is_forgotten_as_soon_as_its_time_to_refute_is_over() -> None:
    """Its neighbours know it by then; everybody else would still choose it."""
    ada = Ada()
    ada.hears(of(BOB), of(CYD), of(DAN))
    waits_s = []
    for accuser, later_s in ((CYD, 0.0), (DAN, 0.25)):
        word = Rumours((), (doubt(accuser, BOB),))
        effects, _ = ada.gossip.hear_rumours(EVE, word, NOW + 1 + later_s)
        [timer] = [effect for effect in effects if isinstance(effect, SetTimer)]
        assert timer.timer == BurialDue()
        waits_s.append(timer.delay_s + later_s)
    assert waits_s == [REFUTE_S, REFUTE_MANY_S]
    assert ada.gossip.bury_overdue(NOW + 1 + waits_s[-1] - TIMER_S / 2) == [BOB], "times are sums of floats"


def test_a_suspicion_that_nobody_refutes_is_believed_after_a_while() -> None:
    """[ADV-10]"""
    ada = Ada()
    ada.hears(of(BOB), of(CYD), of(DAN))
    ada.doubts(doubt(CYD, BOB), doubt(CYD, DAN))
    ada.feels(pulse(DAN, at=NOW + 2), at=NOW + 2)
    assert ada.gossip.bury_overdue(NOW + 1 + REFUTE_S - 0.1) == []
    assert ada.gossip.bury_overdue(NOW + 1 + REFUTE_S) == [BOB]
    assert ada.index.get(BOB) is None
    assert ada.gossip.bury_overdue(NOW + 9) == []


@pytest.mark.parametrize("why", ["spoke since", "a stranger's word", "its own word", "a live link", "forged"])
def test_a_suspicion_that_is_worth_nothing_changes_nothing(why: str) -> None:
    """[ADV-10] [ADV-3]"""
    ada = Ada()
    ada.hears(of(BOB), of(CYD), of(DAN))
    words = [doubt(CYD, BOB), doubt(DAN, BOB)]
    match why:
        case "spoke since":
            ada.feels(pulse(BOB, at=NOW + 0.5), at=NOW + 0.5)
        case "a stranger's word":
            words[1] = doubt(EVE, BOB)
        case "its own word":
            words[1] = doubt(BOB, BOB)
        case "a live link":
            ada.roster.add(BOB, "bob", (), "", NOW)
        case "forged":
            words[1] = replace(words[1], sealed=words[0].sealed[:-1] + b"\0")
    ada.doubts(*words)
    assert ada.gossip.bury_overdue(NOW + 1 + REFUTE_MANY_S) == []
    assert ada.index.get(BOB) is not None


@pytest.mark.parametrize("seen", [2**53 / 1000, NOW + 119, NOW + 1 + AHEAD_MS_MAX / 1000 + 1])
def test_a_suspicion_that_its_node_could_not_refute_is_not_believed(seen: float) -> None:
    """[ADV-10] Whatever version of it somebody has seen, it has said."""
    ada = Ada()
    ada.hears(of(BOB), of(CYD), of(DAN))
    ada.doubts(doubt(CYD, BOB, seen=seen - 0.001), doubt(DAN, BOB, seen=seen - 0.001))
    assert ada.gossip.bury_overdue(NOW + 9) == []
    ada.feels(pulse(BOB, at=NOW + 100), at=NOW + 10)  # Its clock is wrong.
    ada.doubts(doubt(CYD, BOB, seen=NOW + 100, at=NOW + 11), at=NOW + 11)
    assert ada.gossip.bury_overdue(NOW + 20) == [BOB], "this version is known here as well"


def test_a_node_may_have_said_what_its_own_clock_says() -> None:
    """[ADV-10] By this node's clock, bob lives two minutes ahead; who has heard more of him than this node is no liar."""
    ada = Ada()
    ada.hears(of(BOB), of(CYD), of(DAN))
    ada.feels(pulse(BOB, at=NOW + 100), at=NOW)
    ada.doubts(doubt(CYD, BOB, seen=NOW + 105, at=NOW + 6), doubt(DAN, BOB, seen=NOW + 105, at=NOW + 6), at=NOW + 6)
    assert ada.gossip.bury_overdue(NOW + 9) == [BOB]


def test_whoever_comes_back_is_told_who_is_said_to_be_dead() -> None:
    """It has missed the rumour, and nobody tells that twice."""
    ada = Ada()
    ada.issuer.start((), NOW)
    ada.hears(of(BOB), of(CYD), of(DAN))
    ada.doubts(doubt(CYD, BOB), doubt(CYD, DAN))
    ada.feels(pulse(DAN, at=NOW + 2), at=NOW + 2)
    assert [why.node for _, told in rumoured(ada.gossip.greet(EVE, False, NOW + 2)) for why in told] == [BOB]
    knows = AdvertDigest(FIRST, LAST, (Digest(BOB, NOW_MS, 0), Digest(CYD, NOW_MS, 0)))
    told = [each for _, each in rumoured(ada.gossip.compare(EVE, knows, NOW + 2))]
    assert doubt(CYD, BOB).body in [why for each in told for why in each]
    assert ada.gossip.bury_overdue(NOW + 5) == [BOB]
    assert [why.node for _, told in rumoured(ada.gossip.greet(EVE, False, NOW + 5)) for why in told] == [BOB]
    late = NOW + 9 + PRESENCE_S
    assert not [why for _, told in rumoured(ada.gossip.greet(EVE, False, late)) for why in told if isinstance(why, Suspicion)]


def test_a_node_that_has_just_been_started_takes_what_it_said_before_for_no_lie() -> None:
    ada = Ada()
    ada.hears(of(CYD))
    ada.doubts(doubt(CYD, ADA, seen=NOW - 60))
    ada.issuer.start((), NOW + 1)
    assert ada.issuer.version == NOW_MS + 1000


def test_a_node_that_was_buried_by_a_lie_comes_back_with_its_next_word() -> None:
    """[ADV-10] What it had not said yet is no reason not to believe it later."""
    ada = Ada()
    ada.hears(of(BOB), of(CYD), of(DAN))
    ada.doubts(doubt(CYD, BOB, seen=NOW + 20), doubt(DAN, BOB, seen=NOW + 20))
    assert ada.gossip.bury_overdue(NOW + 5) == [BOB]
    assert ada.index.version(BOB) == NOW_MS
    assert ada.hears(of(BOB, at=NOW + 30), at=NOW + 6)
    assert ada.gossip.bury_overdue(NOW + 7) == []


@pytest.mark.parametrize(("home", "is_sooner"), [("/ip4/192.168.1.2/tcp/1", True), ("/ip4/8.8.8.8/tcp/1", False)])
def test_those_who_do_not_say_where_they_are_are_one_witness(home: str, is_sooner: bool) -> None:
    """Except at home, where nobody needs to."""
    ada = Ada()
    ada.issuer.start((home,), NOW)
    ada.hears(of(BOB), of(CYD), of(DAN))
    ada.doubts(doubt(CYD, BOB), doubt(DAN, BOB))
    assert ada.gossip.bury_overdue(NOW + 1 + REFUTE_MANY_S) == ([BOB] if is_sooner else [])
    assert ada.gossip.bury_overdue(NOW + 1 + REFUTE_S) == ([] if is_sooner else [BOB])


def test_a_neighbour_is_told_that_somebody_takes_it_for_dead() -> None:
    """[ADV-10] It alone can say that it is not so; and whoever knows it to be there tells nobody else."""
    ada = Ada()
    ada.hears(of(BOB), of(CYD))
    ada.roster.add(BOB, "bob", (), "", NOW)
    word = doubt(CYD, BOB)
    assert rumoured(ada.gossip.hear_rumours(EVE, Rumours((), (word, word)), NOW + 1)[0]) == [(BOB, [word.body])]
    assert word.body not in [body for _, told in rumoured(ada.gossip.round([DAN, EVE], NOW + 1)) for body in told]
    ada.feels(pulse(BOB, at=NOW + 1.5), sender=BOB, at=NOW + 1.5)
    assert (DAN, [pulse(BOB).body]) in rumoured(ada.gossip.round([DAN, EVE], NOW + 2)), "what refutes it is news to all"


def test_a_node_outdoes_what_it_is_said_to_have_said() -> None:
    """[ADV-10] By so much that a liar cannot say more for a while."""
    ada = Ada()
    ada.issuer.start((), NOW)
    ada.roster.add(CYD, "cyd", (), "", NOW)
    ada.gossip.hear_rumours(EVE, Rumours((), (doubt(CYD, ADA, seen=NOW + 29, at=NOW + 5),)), NOW + 5)
    ada.issuer.due(AdvertDue(1), NOW + 5.1)
    assert ada.issuer.pulse is not None and ada.issuer.version > NOW_MS + 5_000 + 2 * AHEAD_MS_MAX
    assert not notary(BOB).fault(ada.issuer.pulse, NOW + 5)


def test_a_node_that_is_suspected_speaks_at_once() -> None:
    """[ADV-10]"""
    ada = Ada()
    ada.issuer.start((), NOW)
    ada.roster.add(CYD, "cyd", (), "", NOW)
    effects, gone = ada.gossip.hear_rumours(EVE, Rumours((), (doubt(CYD, ADA),)), NOW + 5)
    assert gone == []
    assert rumoured(effects) == [(CYD, [Pulse(NOW_MS, 0, 0, False, False)])]
    assert ada.gossip.hear_rumours(EVE, Rumours((), (doubt(DAN, ADA),)), NOW + 6) == ([], []), "it has spoken since"


def test_who_often_suspects_the_living_is_not_heard() -> None:
    ada = Ada()
    ada.hears(of(BOB), of(CYD), of(DAN))
    for number in range(3):
        at = NOW + 10 * number
        ada.doubts(doubt(CYD, BOB, seen=at, at=at + 1), at=at + 1)
        ada.feels(pulse(BOB, at=at + 2, card=NOW), at=at + 2)
        ada.feels(pulse(BOB, at=at + 10, card=NOW), at=at + 10)
    ada.doubts(doubt(CYD, BOB, seen=NOW + 30, at=NOW + 31), doubt(DAN, BOB, seen=NOW + 30, at=NOW + 31), at=NOW + 31)
    assert ada.gossip.bury_overdue(NOW + 31 + REFUTE_MANY_S) == []
    ada.doubts(doubt(CYD, BOB, seen=NOW + 30, at=NOW + 700), at=NOW + 700)
    assert ada.gossip.bury_overdue(NOW + 700) == [BOB], "not for ever"


def test_whoever_missed_that_a_node_is_gone_is_told_when_it_compares() -> None:
    ada = Ada()
    ada.hears(of(BOB), of(CYD))
    ada.feels(pulse(BOB, at=NOW + 2, leaving=True), at=NOW + 2)
    behind = AdvertDigest(FIRST, LAST, (Digest(BOB, NOW_MS, 0), Digest(CYD, NOW_MS, 0)))
    assert rumoured(ada.gossip.compare(EVE, behind, NOW + 1)) == [(EVE, [pulse(BOB, leaving=True).body])]
    assert asked(ada.gossip.compare(EVE, behind, NOW + 1)) == []
    ahead = AdvertDigest(FIRST, LAST, (Digest(BOB, NOW_MS + 3000, 0), Digest(CYD, NOW_MS, 0)))
    assert rumoured(ada.gossip.compare(EVE, ahead, NOW + 1)) == []
    assert asked(ada.gossip.compare(EVE, ahead, NOW + 1)) == [(EVE, (BOB,))]
