"""The open links: signs of life, distances, and which links are closed when there are too many."""

import pytest

from protocol.messages import Goodbye, Ping
from swarm.effects import Disconnect, PongOverdue, Send, SetTimer
from swarm.finding.roster import RTT_WEIGHT, Roster
from swarm.settings import Settings
from tests.swarm.samples import ADA, BOB, CYD, DAN, NOW, node_id

SETTINGS = Settings()


def roster_of(*nodes: bytes, settings: Settings = SETTINGS) -> Roster:
    """Links that opened one second apart and have answered their first ping."""
    roster = Roster(settings)
    for number, node in enumerate(nodes):
        [Send_, _] = roster.add(node, f"n{number}", (), "", NOW + number)
        roster.heard(node, NOW + number)
        roster.pong(node, Send_.message.nonce, NOW + number)
    return roster


def test_a_new_link_is_pinged_to_measure_its_distance() -> None:
    roster = Roster(SETTINGS)
    effects = roster.add(BOB, "bob", ("/memory/bob",), "", NOW)
    assert effects == [Send(BOB, Ping(1)), SetTimer(SETTINGS.pong_limit_s, PongOverdue(BOB, 1))]
    roster.pong(BOB, 1, NOW + 0.2)
    assert roster.get(BOB).rtt_s == pytest.approx(0.2)


def test_the_distance_follows_new_samples_smoothly() -> None:
    roster = roster_of(BOB)
    roster.get(BOB).rtt_s = 0.1
    [ping, _] = roster.sweep(NOW + 10, ())
    roster.pong(BOB, ping.message.nonce, NOW + 10.5)
    assert roster.get(BOB).rtt_s == pytest.approx(0.1 + RTT_WEIGHT * 0.4)


@pytest.mark.parametrize(("sender", "nonce"), [(BOB, 99), (CYD, 1)], ids=["unknown nonce", "unknown node"])
def test_a_pong_that_nobody_asked_for_tells_nothing(sender: bytes, nonce: int) -> None:
    roster = Roster(SETTINGS)
    roster.add(BOB, "bob", (), "", NOW)
    roster.pong(sender, nonce, NOW + 1)
    assert roster.get(BOB).rtt_s is None
    assert roster.get(BOB).ping_nonce == 1


@pytest.mark.parametrize(
    ("silent_s", "is_pinged"), [(SETTINGS.ping_after_s - 0.01, False), (SETTINGS.ping_after_s, True)]
)
def test_only_the_silent_are_pinged(silent_s: float, is_pinged: bool) -> None:
    roster = roster_of(BOB)
    assert bool(roster.sweep(NOW + silent_s, ())) is is_pinged


def test_a_neighbour_is_not_pinged_twice_at_once() -> None:
    roster = roster_of(BOB)
    assert roster.sweep(NOW + 5, ())
    assert not roster.sweep(NOW + 7, ())


def test_a_neighbour_that_answers_nothing_is_dropped() -> None:
    roster = roster_of(BOB)
    [_, timer] = roster.sweep(NOW + 5, ())
    assert roster.pong_overdue(timer.timer, NOW + 9) == [Disconnect(BOB, "no sign of life for 9 s")]


def test_any_message_after_the_ping_is_a_sign_of_life() -> None:
    roster = roster_of(BOB)
    [_, timer] = roster.sweep(NOW + 5, ())
    roster.heard(BOB, NOW + 6)
    assert not roster.pong_overdue(timer.timer, NOW + 9)
    assert roster.sweep(NOW + 9.5, ()), "it is asked again once it has been silent again"


def test_a_node_that_was_late_itself_drops_nobody() -> None:
    roster = roster_of(BOB)
    [_, timer] = roster.sweep(NOW + 5, ())
    roster.excuse(NOW + 10)
    roster.excuse(NOW + 8)  # A shorter excuse takes nothing away.
    assert not roster.pong_overdue(timer.timer, NOW + 9)
    [_, again] = roster.sweep(NOW + 10, ())
    assert roster.pong_overdue(again.timer, NOW + 14)


def test_timers_of_answered_pings_and_closed_links_find_nothing() -> None:
    roster = roster_of(BOB, CYD)
    [ping, bobs, _, cyds] = roster.sweep(NOW + 5, ())
    roster.pong(BOB, ping.message.nonce, NOW + 6)
    roster.remove(CYD)
    assert not roster.pong_overdue(bobs.timer, NOW + 9)
    assert not roster.pong_overdue(cyds.timer, NOW + 9)
    assert roster.remove(CYD) is None


def test_signs_of_life_of_strangers_are_ignored() -> None:
    roster = roster_of(BOB)
    roster.heard(CYD, NOW)
    assert roster.nodes() == [BOB]


def test_too_many_links_close_the_longest_unused_first() -> None:
    settings = Settings(neighbours_kept=0, neighbours_target=1, neighbours_max=2)
    roster = roster_of(ADA, BOB, CYD, DAN, settings=settings)
    roster.get(ADA).used_at = NOW + 10
    effects = roster.sweep(NOW + 3, ())
    assert [effect.to for effect in effects if isinstance(effect, Send) and isinstance(effect.message, Goodbye)] == [
        BOB,
        CYD,
    ]
    assert [effect.node for effect in effects if isinstance(effect, Disconnect)] == [BOB, CYD]


def test_links_closed_as_too_many_are_parting_and_not_gone() -> None:
    """What is known of a worker stays, though its link is closed to make room."""
    roster = roster_of(ADA, BOB, settings=Settings(neighbours_kept=0, neighbours_target=1, neighbours_max=1))
    roster.sweep(NOW + 2, ())
    assert roster.get(ADA).parting
    assert not roster.get(BOB).parting


def test_links_with_work_on_them_are_not_closed_as_too_many() -> None:
    roster = roster_of(ADA, BOB, CYD, settings=Settings(neighbours_kept=0, neighbours_target=1, neighbours_max=1))
    effects = roster.sweep(NOW + 2, [ADA, CYD])
    assert [effect.node for effect in effects if isinstance(effect, Disconnect)] == [BOB]


def test_links_of_one_age_close_in_the_order_of_their_ids() -> None:
    roster = Roster(Settings(neighbours_kept=0, neighbours_target=1, neighbours_max=1))
    for node in (CYD, ADA, BOB):
        roster.add(node, "", (), "", NOW)
    assert [effect.node for effect in roster.sweep(NOW, ()) if isinstance(effect, Disconnect)] == [ADA, BOB]


def test_nonces_wrap_within_their_bound() -> None:
    roster = Roster(SETTINGS)
    roster._nonce = 2**32 - 1
    [ping, _] = roster.add(BOB, "bob", (), "", NOW)
    assert ping.message == Ping(0)


def test_the_roster_counts_and_lists_in_the_order_of_arrival() -> None:
    roster = roster_of(CYD, ADA)
    assert (len(roster), CYD in roster, BOB in roster) == (2, True, False)
    assert [neighbour.node for neighbour in roster] == roster.nodes() == [CYD, ADA]


def test_links_that_have_lasted_or_are_near_stay_and_one_place_goes_first() -> None:
    """Or whoever opens many links displaces everybody else."""
    roster = Roster(Settings(neighbours_kept=1, neighbours_target=1, neighbours_max=3))
    nodes = [ADA, BOB, CYD, DAN, node_id(5), node_id(6)]
    for number, node in enumerate(nodes):
        place = number if number < 3 else 9
        roster.add(node, "", (f"/ip4/8.8.{place}.{number}/tcp/1",), "/chosen" if node == CYD else "", NOW + number)
        roster.get(node).rtt_s = 0.01 if node == BOB else 0.1
    closed = [effect.node for effect in roster.sweep(NOW + 5, ()) if isinstance(effect, Disconnect)]
    assert closed == [DAN, node_id(5), node_id(6)]


def test_a_missed_neighbour_is_missed_until_it_speaks() -> None:
    roster = roster_of(BOB, CYD)
    roster.miss(BOB)
    roster.heard(CYD, NOW + 1)
    assert (roster.is_missed(BOB), roster.is_missed(CYD)) == (True, False)
    roster.heard(BOB, NOW + 2)
    assert not roster.is_missed(BOB)


@pytest.mark.parametrize("comes", [True, False])
def test_a_node_that_is_being_dialled_is_missed_until_the_dial_has_ended(comes: bool) -> None:
    roster = Roster(SETTINGS)
    roster.miss(BOB)
    assert roster.is_missed(BOB)
    if comes:
        roster.add(BOB, "bob", (), "/memory/bob", NOW)
    else:
        roster.remove(BOB)
    assert not roster.is_missed(BOB)
