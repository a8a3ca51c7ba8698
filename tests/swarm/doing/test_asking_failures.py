"""Attempts that do not answer: the next worker while nothing was delivered, the end after that, and whose fault it was."""

import pytest

from protocol import errors
from protocol.errors import ErrorCode
from protocol.messages import TaskAccepted, TaskCancelled, TaskFailed, TaskPiece, TaskRefused
from protocol.parts import Demands, Logprob
from swarm.doing.asking import ENDLESS, ENDS_MAX
from swarm.doing.attempts import PIECE_BYTES_COUNTED
from swarm.effects import (
    AcceptOverdue,
    AttemptFailed,
    DeadlinePassed,
    Notify,
    PieceOverdue,
    Reply,
    RetryDue,
    Send,
)
from tests.swarm.doing.requester import T1, Ada, concluded, concludes, failures, finished, placed
from tests.swarm.samples import BOB, CYD, DAN, NOW, task

# --- Not answered: the next worker ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [errors.BUSY, errors.DRAINING, errors.TOO_LONG, errors.NOT_ALLOWED])
def test_a_refusal_asks_the_next_at_once_and_blames_nobody(code: ErrorCode) -> None:
    ada = Ada(BOB, CYD)
    attempt = ada.ask()
    told, *effects = ada.asking.refused(BOB, TaskRefused(attempt, code.number, "try cyd"), NOW)
    assert told == Notify(AttemptFailed(T1, BOB, "bob", code.number, "try cyd"))
    assert placed(effects)[0] == CYD
    assert failures(ada) == 0.0


@pytest.mark.parametrize("code", [errors.BACKEND_FAILED, errors.DEADLINE_EXCEEDED, errors.error_code(999)])
def test_a_failure_before_the_first_text_asks_the_next_and_is_remembered(code: ErrorCode) -> None:
    ada = Ada(BOB, CYD)
    attempt = ada.streaming()
    told, *effects = ada.asking.failed_there(BOB, TaskFailed(attempt, code.number, ""), NOW)
    assert told == Notify(AttemptFailed(T1, BOB, "bob", code.number, code.meaning))
    assert placed(effects)[0] == CYD
    assert failures(ada) == 1.0


def test_a_bad_request_is_not_tried_elsewhere() -> None:
    ada = Ada(BOB, CYD)
    attempt = ada.ask()
    outcome = concluded(ada.asking.refused(BOB, TaskRefused(attempt, errors.BAD_REQUEST.number, "no turns"), NOW))
    assert (outcome.code, outcome.reason) == (errors.BAD_REQUEST, "no turns")


def test_a_bad_request_that_shows_in_mid_answer_is_not_tried_elsewhere() -> None:
    """As a grammar that no text fits into."""
    ada = Ada(BOB, CYD)
    attempt = ada.streaming("Because")
    outcome = concluded(ada.asking.failed_there(BOB, TaskFailed(attempt, errors.BAD_REQUEST.number, "no way on"), NOW))
    assert (outcome.code, outcome.reason) == (errors.BAD_REQUEST, "no way on")


def test_an_input_that_is_too_long_for_all_is_that_and_no_failure() -> None:
    ada = Ada(BOB, CYD)
    effects = ada.asking.failed_there(BOB, TaskFailed(ada.ask(), errors.TOO_LONG.number, "5000 tokens"), NOW)
    to, attempt = placed(effects)
    assert to == CYD, "whose context may be longer"
    outcome = concluded(ada.asking.failed_there(CYD, TaskFailed(attempt, errors.TOO_LONG.number, "5000 tokens"), NOW))
    assert (outcome.code, outcome.reason) == (errors.TOO_LONG, "5000 tokens")
    assert failures(ada) == failures(ada, CYD) == 0.0


def test_a_silent_worker_is_passed_over_after_the_accept_limit() -> None:
    ada = Ada(BOB, CYD)
    attempt = ada.ask()
    cancel, _, *effects = ada.asking.accept_overdue(AcceptOverdue(T1, attempt), NOW)
    assert cancel == Send(BOB, TaskCancelled(attempt))
    assert placed(effects)[0] == CYD
    assert failures(ada) == 1.0


def test_a_worker_that_accepted_and_fell_silent_is_passed_over() -> None:
    ada = Ada(BOB, CYD)
    attempt = ada.streaming()
    cancel, told, *effects = ada.asking.piece_overdue(PieceOverdue(T1, attempt, 0), NOW + 20)
    assert cancel == Send(BOB, TaskCancelled(attempt))
    assert told.notice.code == errors.STALLED.number
    assert placed(effects)[0] == CYD


@pytest.mark.parametrize(("accepted", "code"), [(False, errors.UNREACHABLE), (True, errors.CONNECTION_LOST)])
def test_a_lost_worker_is_replaced(accepted: bool, code: ErrorCode) -> None:
    ada = Ada(BOB, CYD)
    if accepted:
        ada.streaming()
    else:
        ada.ask()
    told, *effects = ada.asking.lost(BOB, "reset", NOW)
    assert told == Notify(AttemptFailed(T1, BOB, "bob", code.number, "reset"))
    assert placed(effects)[0] == CYD
    assert failures(ada) == 1.0


def test_a_lost_node_ends_all_attempts_there_and_no_others() -> None:
    ada = Ada(BOB, CYD)
    ada.ask(task(b"t1"))
    ada.ask(task(b"t2"))
    assert [effect.task for effect in concludes(ada.asking.lost(DAN, "reset", NOW))] == []
    effects = ada.asking.lost(BOB, "reset", NOW)
    assert [effect.to for effect in effects if isinstance(effect, Send)] == [CYD, CYD]
    assert ada.asking.workers() == [CYD, CYD]


def test_a_request_that_was_never_delivered_asks_the_next() -> None:
    ada = Ada(BOB, CYD)
    attempt = ada.ask()
    assert placed(ada.asking.undelivered(attempt, NOW))[0] == CYD
    assert ada.asking.undelivered(attempt, NOW) == []


def test_the_last_worker_failing_exhausts_the_task() -> None:
    ada = Ada(BOB, CYD)
    first = ada.ask()
    _, second = placed(ada.asking.refused(BOB, TaskRefused(first, errors.DRAINING.number, "full"), NOW + 1))
    outcome = concluded(ada.asking.refused(CYD, TaskRefused(second, errors.DRAINING.number, ""), NOW + 2))
    assert outcome.code is errors.EXHAUSTED
    assert outcome.reason == f"2 workers tried; the last, cyd: {errors.DRAINING.meaning}"
    assert (outcome.worker, outcome.worker_name, outcome.seconds) == (CYD, "cyd", 2.0)
    assert [(end.worker, end.code, end.seconds) for end in outcome.attempts] == [
        (BOB, errors.DRAINING, 1.0), (CYD, errors.DRAINING, 1.0),
    ]  # fmt: skip


def test_failures_are_bounded() -> None:
    ada = Ada(BOB, CYD, DAN, attempts_max=2)
    ada.ask()
    placed(ada.asking.lost(BOB, "reset", NOW))
    assert concluded(ada.asking.lost(CYD, "reset", NOW)).code is errors.EXHAUSTED


def test_a_worker_that_is_busy_is_asked_again_after_a_while() -> None:
    """Nobody is lost because everybody has much to do."""
    ada = Ada(BOB, CYD)
    first = ada.ask()
    _, second = placed(ada.asking.refused(BOB, TaskRefused(first, errors.BUSY.number, ""), NOW))
    _, wait = ada.asking.refused(CYD, TaskRefused(second, errors.OVER_QUOTA.number, ""), NOW)
    assert wait.timer == RetryDue(T1, 1)
    assert ada.settings.busy_wait_first_s * 0.5 <= wait.delay_s <= ada.settings.busy_wait_max_s
    assert ada.asking.found(NOW) == [], "news is no reason to ask the busy again"
    assert placed(ada.asking.retry_due(wait.timer, NOW + 1))[0] == BOB
    assert ada.asking.retry_due(wait.timer, NOW + 1) == [], "somebody is at work"


def test_one_round_asks_so_many_busy_workers_and_the_waits_grow() -> None:
    ada = Ada(BOB, CYD, DAN, attempts_max=2, busy_wait_first_s=0.5, busy_wait_max_s=3.0)
    attempt, at, waits = ada.ask(), NOW, []
    for round_ in range(1, 7):
        _, attempt = placed(ada.asking.refused(BOB, TaskRefused(attempt, errors.BUSY.number, ""), at))
        _, wait = ada.asking.refused(CYD, TaskRefused(attempt, errors.BUSY.number, ""), at)
        waits.append(wait.delay_s)
        at += wait.delay_s
        assert wait.timer == RetryDue(T1, round_)
        _, attempt = placed(ada.asking.retry_due(wait.timer, at))
    assert waits[0] <= 1.0 < max(waits) <= 3.0
    [_, end] = ada.asking.deadline_passed(DeadlinePassed(T1), at)
    assert end.outcome.code is errors.DEADLINE_EXCEEDED


def test_what_a_task_remembers_of_refusals_is_bounded() -> None:
    ada = Ada(BOB)
    attempt, at = ada.ask(task(deadline_s=600.0)), NOW
    for _ in range(ENDS_MAX - 1):
        _, wait = ada.asking.refused(BOB, TaskRefused(attempt, errors.BUSY.number, ""), at)
        _, attempt = placed(ada.asking.retry_due(wait.timer, at))
    outcome = concluded(ada.asking.refused(BOB, TaskRefused(attempt, errors.BUSY.number, ""), at))
    assert (outcome.code, len(outcome.attempts)) == (errors.EXHAUSTED, ENDS_MAX)


# --- After the first text, of a model that nobody can go on from ---------------------------------------------------------


@pytest.mark.parametrize("how", ["lost", "failed", "stalled", "gap", "miscounted", "endless"])
def test_an_answer_that_breaks_off_is_not_begun_again_elsewhere(how: str) -> None:
    ada = Ada(BOB, CYD, answer_bytes_max=100)
    attempt = ada.streaming("Because")
    match how:
        case "lost":
            effects = ada.asking.lost(BOB, "reset", NOW)
        case "failed":
            effects = ada.asking.failed_there(BOB, TaskFailed(attempt, errors.BACKEND_FAILED.number, "boom"), NOW)
        case "stalled":
            effects = ada.asking.piece_overdue(PieceOverdue(T1, attempt, 1), NOW)
        case "gap":
            effects = ada.asking.piece(BOB, TaskPiece(attempt, 2, "x"), NOW)
        case "miscounted":
            effects = ada.asking.finished(BOB, finished(attempt, 2), NOW)
        case _:
            effects = ada.asking.piece(BOB, TaskPiece(attempt, 1, "x" * 100), NOW)
    outcome = concluded(effects)
    assert outcome.code is errors.STREAM_BROKEN
    assert outcome.reason == ENDLESS if how == "endless" else outcome.reason.startswith("bob was lost in mid-answer: ")
    assert outcome.attempts[0].code is not errors.STREAM_BROKEN, "the attempt keeps its own cause"
    assert not [effect for effect in effects if isinstance(effect, Reply)]
    cancelled = [effect.message for effect in effects if isinstance(effect, Send)]
    assert cancelled == ([TaskCancelled(attempt)] if how in ("stalled", "gap", "endless") else [])
    assert failures(ada) == 1.0


@pytest.mark.parametrize("index", [1, 7])
def test_an_answer_that_does_not_start_at_its_beginning_is_not_taken(index: int) -> None:
    ada = Ada(BOB, CYD)
    attempt = ada.streaming()
    cancel, told, *effects = ada.asking.piece(BOB, TaskPiece(attempt, index, "x"), NOW)
    assert cancel == Send(BOB, TaskCancelled(attempt))
    assert told.notice.reason == f"piece {index} came instead of 0"
    assert placed(effects)[0] == CYD, "nothing was delivered yet"


def test_an_answer_said_to_be_longer_than_it_is_is_not_taken() -> None:
    ada = Ada(BOB, CYD)
    attempt = ada.streaming()
    told, *effects = ada.asking.finished(BOB, finished(attempt, 3), NOW)
    assert told.notice.reason == "0 of 3 pieces came"
    assert placed(effects)[0] == CYD


def test_empty_pieces_add_up_too() -> None:
    ada = Ada(BOB, answer_bytes_max=10 * PIECE_BYTES_COUNTED)
    attempt = ada.streaming(*[""] * 10)
    assert concluded(ada.asking.piece(BOB, TaskPiece(attempt, 10, ""), NOW)).code is errors.STREAM_BROKEN


def test_log_probabilities_have_an_end_too() -> None:
    """They are longer than the text that they are of, but not without bounds."""
    ada = Ada(BOB, answer_bytes_max=1_000)
    attempt = ada.ask(task(demands=Demands(logprobs=1)))
    ada.asking.accepted(BOB, TaskAccepted(attempt, "smollm2", 0), NOW)
    for index in range(7):
        ada.asking.piece(BOB, TaskPiece(attempt, index, "x", (), (Logprob(b"x" * 500, -1.0),)), NOW)
    assert concluded(ada.asking.piece(BOB, TaskPiece(attempt, 7, "x", (), (Logprob(b"x" * 500, -1.0),)), NOW)).code is (
        errors.STREAM_BROKEN
    )


# --- Whose fault ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "is_silence"), [("accept", True), ("stalled", True), ("lost", True), ("failed", False), ("gap", False)]
)
def test_a_node_that_was_late_itself_blames_nobody_for_silence(how: str, is_silence: bool) -> None:
    """What a worker says of itself counts all the same."""
    ada = Ada(BOB)
    attempt = ada.ask() if how == "accept" else ada.streaming()
    ada.is_excused = True
    match how:
        case "accept":
            ada.asking.accept_overdue(AcceptOverdue(T1, attempt), NOW)
        case "stalled":
            ada.asking.piece_overdue(PieceOverdue(T1, attempt, 0), NOW)
        case "lost":
            ada.asking.lost(BOB, "reset", NOW)
        case "failed":
            ada.asking.failed_there(BOB, TaskFailed(attempt, errors.BACKEND_FAILED.number, ""), NOW)
        case _:
            ada.asking.piece(BOB, TaskPiece(attempt, 3, ""), NOW)
    assert failures(ada) == (0.0 if is_silence else 1.0)
