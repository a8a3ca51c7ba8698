"""What this node has seen of each worker: peak EWMA of first tokens, EWMA of speed, decaying successes and failures."""

from dataclasses import replace
from math import exp

import pytest

from protocol import errors
from protocol.errors import ERROR_CODES, ErrorCode
from swarm.choosing.standing import (
    PLACE_FAILURES,
    PLACE_WAIT_S,
    PLACED_MAX,
    SAMPLE_WEIGHT_MIN,
    WORKERS_MAX,
    Standing,
    Standings,
)
from swarm.settings import Settings
from tests.swarm.samples import BOB, CYD, NOW, USAGE, node_id

SETTINGS = Settings()
DAY_S = SETTINGS.success_half_life_s


def standings() -> Standings:
    return Standings(SETTINGS)


def answered(seen: Standings, first_s: float, at: float, tokens_per_second: float = 10.0) -> None:
    seen.begun(BOB, at)
    seen.answered(BOB, replace(USAGE, tokens_out=11, first_token_s=0.0, total_s=10 / tokens_per_second), first_s, at)


def test_nothing_is_known_of_a_stranger() -> None:
    assert standings().of(BOB, NOW) is None


def test_attempts_under_way_are_counted() -> None:
    seen = standings()
    seen.begun(BOB, NOW)
    seen.begun(BOB, NOW)
    assert seen.of(BOB, NOW).inflight == 2
    seen.ended(BOB, errors.BUSY, True, NOW)
    seen.answered(BOB, USAGE, 1.0, NOW)
    assert seen.of(BOB, NOW).inflight == 0
    seen.ended(BOB, errors.BUSY, True, NOW)
    assert seen.of(BOB, NOW).inflight == 0, "never below nothing"


def test_the_first_answer_is_taken_as_it_is() -> None:
    seen = standings()
    seen.begun(BOB, NOW)
    seen.answered(BOB, USAGE, 0.7, NOW + 3)
    assert seen.of(BOB, NOW + 3) == Standing(
        0, 1.0, 0.0, 0.7, 10.0, NOW + 3, 1.0, (0.7,), NOW + 3, placed_at=(NOW,), ended_at=(NOW + 3,)
    )


def test_a_worse_first_token_is_believed_at_once_and_a_better_one_slowly() -> None:
    seen = standings()
    answered(seen, 1.0, NOW)
    answered(seen, 5.0, NOW + 1)
    assert seen.of(BOB, NOW + 1).first_token_s == 5.0
    answered(seen, 1.0, NOW + 2)
    assert seen.of(BOB, NOW + 2).first_token_s == pytest.approx(5.0 - SAMPLE_WEIGHT_MIN * 4.0)


def test_a_sample_weighs_more_the_older_the_last_one_is() -> None:
    seen = standings()
    answered(seen, 5.0, NOW)
    later = NOW + SETTINGS.speed_tau_s
    answered(seen, 1.0, later, tokens_per_second=20.0)
    weight = 1 - exp(-1)
    assert seen.of(BOB, later).first_token_s == pytest.approx(5.0 - weight * 4.0)
    assert seen.of(BOB, later).tokens_per_second == pytest.approx(10.0 + weight * 10.0)


@pytest.mark.parametrize("changes", [{"tokens_out": 7}, {"tokens_out": 0}, {"total_s": 0.5, "first_token_s": 0.5}])
def test_an_answer_too_short_to_measure_tells_nothing_of_speed(changes: dict[str, float]) -> None:
    seen = standings()
    seen.answered(BOB, replace(USAGE, **changes), 1.0, NOW)
    assert seen.of(BOB, NOW).tokens_per_second is None


@pytest.mark.parametrize(
    ("successes", "failures", "expected"), [(0, 0, 4 / 4.2), (1, 0, 5 / 5.2), (0, 1, 4 / 8.2), (8, 0, 12 / 12.2)]
)
def test_success_is_the_mean_of_a_beta_distribution(successes: float, failures: float, expected: float) -> None:
    assert Standing(successes=successes, failures=failures).success == pytest.approx(expected)


@pytest.mark.parametrize("code", ERROR_CODES.values(), ids=lambda code: code.name)
def test_only_indefinite_ends_count_against_a_worker(code: ErrorCode) -> None:
    """A refusal is not a failure: the work was not done and was never promised."""
    seen = standings()
    seen.ended(BOB, code, True, NOW)
    assert seen.of(BOB, NOW).failures == (0.0 if code.definite else 1.0)


def test_an_excused_end_counts_against_nobody() -> None:
    seen = standings()
    seen.ended(BOB, errors.STALLED, False, NOW)
    assert seen.of(BOB, NOW).failures == 0.0


def test_what_is_remembered_halves_with_each_half_life() -> None:
    seen = standings()
    seen.answered(BOB, USAGE, 1.0, NOW)
    seen.ended(BOB, errors.STALLED, True, NOW)
    seen.answered(BOB, USAGE, 1.0, NOW + DAY_S)
    standing = seen.of(BOB, NOW + DAY_S)
    assert (standing.successes, standing.failures) == pytest.approx((1.5, 0.5))


def test_a_worker_that_is_never_tried_again_recovers_all_the_same() -> None:
    """Or it would never be tried again."""
    seen = standings()
    for _ in range(7):
        seen.ended(BOB, errors.CONNECTION_LOST, True, NOW)
    assert seen.of(BOB, NOW).success == pytest.approx(4 / 32.2)
    assert seen.of(BOB, NOW + 10 * DAY_S).success == pytest.approx(4 / 4.2, abs=0.01)


def test_looking_changes_nothing() -> None:
    seen = standings()
    seen.ended(BOB, errors.STALLED, True, NOW)
    seen.of(BOB, NOW + DAY_S)
    seen.ended(BOB, errors.STALLED, True, NOW + DAY_S)
    assert seen.of(BOB, NOW + DAY_S).failures == pytest.approx(1.5)


def test_the_longest_unused_are_forgotten_first() -> None:
    seen = standings()
    nodes = [node_id(100 + number) for number in range(WORKERS_MAX)]
    seen.begun(BOB, NOW)
    for node in nodes[:-1]:
        seen.begun(node, NOW)
    seen.begun(BOB, NOW)
    seen.begun(nodes[-1], NOW)
    assert seen.of(BOB, NOW).inflight == 2
    assert seen.of(nodes[0], NOW) is None
    assert seen.of(nodes[1], NOW) is not None
    assert seen.of(CYD, NOW) is None


# --- Queues, claims, the breaker -------------------------------------------------------------------------------------------


def test_the_way_to_a_worker_and_its_queue_are_no_part_of_its_speed() -> None:
    seen = standings()
    seen.answered(BOB, USAGE, 1.0, NOW, accepted_s=0.4)
    assert seen.of(BOB, NOW).first_token_s == pytest.approx(0.6)
    seen.answered(BOB, USAGE, 9.0, NOW, accepted_s=0.4, ahead=2)
    assert seen.of(BOB, NOW).first_token_s == pytest.approx(0.6), "it waited for others"
    seen.answered(BOB, USAGE, 0.5, NOW, accepted_s=0.4, ahead=2)
    assert seen.of(BOB, NOW).first_token_s < 0.6, "it cannot have waited long"


def test_a_first_answer_that_waited_is_taken_at_the_workers_word() -> None:
    seen = standings()
    seen.answered(BOB, replace(USAGE, first_token_s=0.2), 9.0, NOW, accepted_s=0.4, ahead=1)
    assert seen.of(BOB, NOW).first_token_s == pytest.approx(0.2)
    seen.answered(BOB, replace(USAGE, first_token_s=0.2), 3.4, NOW, accepted_s=0.4)
    assert seen.of(BOB, NOW).first_token_s == pytest.approx(3.0), "what this node sees counts for more"


def test_the_95th_percentile_is_the_workers_own_or_else_that_of_all() -> None:
    seen = standings()
    assert seen.first_piece_p95(BOB, NOW) is None
    for number in range(4):
        seen.answered(BOB, USAGE, 1.0 + number, NOW)
    assert seen.first_piece_p95(BOB, NOW) is None
    seen.answered(BOB, USAGE, 0.5, NOW)
    assert seen.first_piece_p95(BOB, NOW) == 4.0
    assert seen.first_piece_p95(CYD, NOW) is None
    for _ in range(5):
        seen.answered(BOB, USAGE, 0.5, NOW)
    assert seen.first_piece_p95(CYD, NOW) == 4.0
    for _ in range(100):
        seen.answered(BOB, USAGE, 0.2, NOW)
    assert (seen.first_piece_p95(BOB, NOW), seen.first_piece_p95(CYD, NOW)) == (0.2, 0.2)


def test_trust_falls_with_claims_that_do_not_hold_and_comes_back() -> None:
    seen = standings()
    for _ in range(20):
        seen.answered(BOB, USAGE, 0.1, NOW, claimed_speed=100.0)
    assert seen.of(BOB, NOW).trust == pytest.approx(0.1, abs=0.01)
    assert seen.of(BOB, NOW + 10 * DAY_S).trust == pytest.approx(1.0, abs=0.01)
    seen.answered(CYD, USAGE, 0.1, NOW, claimed_speed=5.0)
    assert seen.of(CYD, NOW).trust == 1.0, "to be better than one says is no lie"


def test_a_refusal_for_want_of_room_is_remembered_as_a_queue() -> None:
    seen = standings()
    seen.begun(BOB, NOW)
    seen.accepted(BOB, 3, NOW)
    assert [seen.of(BOB, NOW).waiting(0, NOW - 1, at) for at in (NOW + 0.9, NOW + 1.1)] == [3, 1]
    seen.ended(CYD, errors.BUSY, True, NOW)
    assert seen.of(CYD, NOW).waiting(0, NOW - 1, NOW) == 1


def test_attempts_that_a_cut_link_takes_with_it_are_one_failure_in_a_row() -> None:
    seen = standings()
    seen.answered(BOB, USAGE, 0.1, NOW)
    for late_s in (0.0, 0.0, 0.3):
        seen.ended(BOB, errors.CONNECTION_LOST, True, NOW + 10 + late_s, NOW + 9)
    assert seen.of(BOB, NOW + 11).failures > 2.9, "each of its users was let down"
    assert seen.of(BOB, NOW + 11).shut_out(NOW + 11) == ""
    seen.ended(BOB, errors.CONNECTION_LOST, True, NOW + 12, NOW + 11)
    assert seen.of(BOB, NOW + 12).shut_out(NOW + 12) != ""


def test_the_breaker_opens_after_two_failures_in_a_row_and_ever_longer() -> None:
    seen = standings()
    seen.answered(BOB, USAGE, 0.1, NOW)
    seen.ended(BOB, errors.STALLED, True, NOW)
    assert seen.of(BOB, NOW).shut_out(NOW) == ""
    waits = []
    for _ in range(12):
        seen.ended(BOB, errors.STALLED, True, NOW)
        waits.append(seen.of(BOB, NOW).open_until - NOW)
    assert waits[:3] == [60.0, 120.0, 240.0]
    assert waits[-1] == SETTINGS.breaker_max_s
    seen.answered(BOB, USAGE, 0.1, NOW)
    assert seen.of(BOB, NOW).shut_out(NOW) == ""
    assert seen.of(BOB, NOW).failures_in_row == 0


@pytest.mark.parametrize("code", [code for code in ERROR_CODES.values() if code.definite], ids=lambda code: code.name)
def test_refusals_never_open_the_breaker(code: ErrorCode) -> None:
    seen = standings()
    for _ in range(9):
        seen.ended(BOB, code, True, NOW)
    assert seen.of(BOB, NOW).shut_out(NOW) == ""


def test_only_the_latest_requests_are_remembered() -> None:
    seen = standings()
    for number in range(3 * PLACED_MAX):
        seen.begun(BOB, NOW + number)
    standing = seen.of(BOB, NOW)
    assert len(standing.placed_at) == PLACED_MAX
    standing.inflight = 2
    assert standing.waiting(1, NOW + 3 * PLACED_MAX - 2.5, NOW) == 3


def test_strangers_that_fail_make_others_of_their_place_suspect() -> None:
    seen = Standings(SETTINGS, lambda node: "/ip4/8.8.8" if node != BOB else "")
    for number in range(PLACE_FAILURES):
        assert not seen.is_shunned("/ip4/8.8.8", NOW)
        seen.begun(node_id(number), NOW)
        seen.ended(node_id(number), errors.UNREACHABLE, True, NOW)
    assert seen.is_shunned("/ip4/8.8.8", NOW)
    assert not seen.is_shunned("/ip4/8.8.9", NOW)
    assert not seen.is_shunned("/ip4/8.8.8", NOW + PLACE_WAIT_S), "not for ever"
    seen.begun(CYD, NOW)
    seen.answered(CYD, USAGE, 1.0, NOW)
    assert not seen.is_shunned("/ip4/8.8.8", NOW), "one of them has answered"
    seen.begun(BOB, NOW)
    seen.ended(BOB, errors.UNREACHABLE, True, NOW)
    assert not seen.is_shunned("", NOW), "at home everybody is at one place"


def test_strangers_are_doubted_as_long_as_they_mostly_fail() -> None:
    seen = standings()
    for number, code in enumerate((errors.UNREACHABLE, errors.BUSY, errors.STALLED)):
        assert not seen.doubts_strangers
        seen.begun(node_id(number), NOW)
        seen.ended(node_id(number), code, True, NOW)
    assert seen.doubts_strangers
    seen.begun(CYD, NOW)
    seen.answered(CYD, USAGE, 1.0, NOW)
    assert not seen.doubts_strangers


def test_what_an_input_takes_to_read_is_no_part_of_what_is_remembered() -> None:
    seen = standings()
    seen.begun(BOB, NOW)
    seen.answered(BOB, USAGE, 5.0, NOW, accepted_s=0.1, reading_s=4.5)
    assert seen.of(BOB, NOW).first_token_s == pytest.approx(0.4)
    assert seen.of(BOB, NOW).first_pieces_s == pytest.approx((0.5,))
    seen.begun(BOB, NOW)
    seen.answered(BOB, USAGE, 5.0, NOW, accepted_s=0.1, reading_s=0.0)
    assert seen.of(BOB, NOW).first_token_s == pytest.approx(4.9), "who has promised more than it keeps is known by it"
    seen.begun(CYD, NOW)
    seen.answered(CYD, USAGE, 1.0, NOW, accepted_s=0.1, reading_s=60.0)
    assert seen.of(CYD, NOW).first_token_s == 0.0


def test_a_speed_that_was_shared_with_others_counts_as_it_would_have_been_alone() -> None:
    seen = standings()
    seen.begun(BOB, NOW)
    usage = replace(USAGE, tokens_out=11, first_token_s=2.0, total_s=12.0)
    seen.answered(BOB, usage, 2.1, NOW, accepted_s=0.1, claimed_speed=5.0, shared=4.0)
    found = seen.of(BOB, NOW)
    assert (found.first_token_s, found.tokens_per_second) == (pytest.approx(0.5), pytest.approx(4.0))
    assert found.trust == pytest.approx(0.94)
    for claims, counts in ((3.0, 3.0), (0.5, 1.0), (0.0, 1.0)):
        other = standings()
        other.begun(BOB, NOW)
        other.answered(BOB, usage, 2.1, NOW, claimed_speed=claims, shared=4.0)
        assert other.of(BOB, NOW).tokens_per_second == counts, "alone nobody is faster than he says himself"
    seen.begun(CYD, NOW)
    seen.answered(CYD, USAGE, 9.1, NOW, accepted_s=0.1, reading_s=2.0, shared=4.0)
    assert seen.of(CYD, NOW).first_token_s == pytest.approx(0.25), "reading is shared, too"
