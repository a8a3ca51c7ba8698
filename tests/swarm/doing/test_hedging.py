"""A worker is slower than usual: a second one is asked, once, within a budget, and not when everybody is slow."""

import pytest

from protocol import errors
from protocol.messages import TaskAccepted, TaskCancelled, TaskPiece, TaskRefused
from swarm.doing.asking import OVERTAKEN
from swarm.doing.hedging import HedgeBudget
from swarm.effects import HedgeDue, PieceOverdue, Reply, Send, SetTimer
from swarm.settings import Settings
from swarm.values import Privacy, Usage
from tests.swarm.doing.requester import T1, Ada, concluded, failures, finished, placed
from tests.swarm.samples import BOB, CYD, NOW, task


def experienced(usual_s: float = 1.0, **settings: float) -> Ada:
    """Ada, who knows how long bob usually takes."""
    ada = Ada(BOB, CYD, **settings)
    for _ in range(20):
        ada.standings.begun(BOB, NOW)
        ada.standings.answered(BOB, Usage("stop", 1, 10, usual_s, 2.0), usual_s, NOW)
    return ada


def hedge_timers(effects) -> list[SetTimer]:
    return [each for each in effects if isinstance(each, SetTimer) and isinstance(each.timer, HedgeDue)]


def hedged(ada: Ada) -> tuple[bytes, bytes]:
    attempt = ada.ask()
    node, second = placed(ada.asking.hedge_due(HedgeDue(T1, attempt), NOW + 1))
    assert node == CYD
    return attempt, second


def test_a_hedge_is_due_after_the_workers_own_95th_percentile() -> None:
    ada = experienced(1.5)
    [timer] = hedge_timers(ada.asking.begin(task(), NOW))
    assert timer.delay_s == pytest.approx(1.5)
    assert hedge_timers(Ada(BOB).asking.begin(task(), NOW)) == [], "nothing is known of this worker"
    [timer] = hedge_timers(experienced(0.001).asking.begin(task(), NOW))
    assert timer.delay_s == Settings().hedge_after_min_s


def test_whoever_speaks_first_goes_on_alone() -> None:
    ada = experienced()
    first, second = hedged(ada)
    ada.asking.accepted(CYD, TaskAccepted(second, "m", 0), NOW + 1)
    cancel, reply, _ = ada.asking.piece(CYD, TaskPiece(second, 0, "cyd"), NOW + 2)
    assert (cancel, reply) == (Send(BOB, TaskCancelled(first)), Reply(T1, "cyd"))
    assert ada.asking.piece(BOB, TaskPiece(first, 0, "bob"), NOW + 2) == []
    outcome = concluded(ada.asking.finished(CYD, finished(second, 1), NOW + 3))
    told = [(end.worker, end.why, end.code, end.reason) for end in outcome.attempts]
    assert told == [(BOB, "first", errors.CANCELLED, OVERTAKEN), (CYD, "hedge", None, "")]
    assert failures(ada) == 0.0, "to be slow once is no failure"
    assert ada.asking.hedged == 1


def test_the_first_worker_may_still_win() -> None:
    ada = experienced()
    first, second = hedged(ada)
    ada.asking.accepted(BOB, TaskAccepted(first, "m", 0), NOW + 1)
    cancel, reply, _ = ada.asking.piece(BOB, TaskPiece(first, 0, "bob"), NOW + 2)
    assert (cancel, reply) == (Send(CYD, TaskCancelled(second)), Reply(T1, "bob"))


def test_an_answer_without_text_wins_too() -> None:
    ada = experienced()
    first, second = hedged(ada)
    ada.asking.accepted(CYD, TaskAccepted(second, "m", 0), NOW + 1)
    [cancel, _] = ada.asking.finished(CYD, finished(second, 0), NOW + 2)
    assert cancel == Send(BOB, TaskCancelled(first))


@pytest.mark.parametrize("who", [BOB, CYD])
def test_one_of_two_may_be_refused_or_lost(who) -> None:
    ada = experienced()
    first, second = hedged(ada)
    effects = ada.asking.refused(who, TaskRefused(first if who == BOB else second, errors.BUSY.number, ""), NOW + 1)
    assert len(effects) == 1, "told, and no more: the other is at work"
    assert ada.asking.workers() == [CYD if who == BOB else BOB]


def test_a_task_is_hedged_once_and_not_after_the_first_text() -> None:
    ada = experienced()
    first, second = hedged(ada)
    assert ada.asking.hedge_due(HedgeDue(T1, first), NOW + 2) == []
    assert ada.asking.hedge_due(HedgeDue(T1, second), NOW + 2) == []
    ada = experienced()
    spoken = ada.streaming("Because")
    assert ada.asking.hedge_due(HedgeDue(T1, spoken), NOW + 2) == []


@pytest.mark.parametrize("which", ["pinned", "local", "own loop late", "nobody else", "attempts"])
def test_a_hedge_that_cannot_help_is_not_made(which: str) -> None:
    ada = experienced(attempts_max=1 if which == "attempts" else 8)
    asked = {"pinned": task(worker=BOB), "local": task(privacy=Privacy.LOCAL)}.get(which, task())
    effects = ada.asking.begin(asked, NOW)
    assert len(hedge_timers(effects)) == (0 if which in ("pinned", "local") else 1)
    _, attempt = placed(effects)
    ada.is_excused = which == "own loop late"
    ada.able = [BOB] if which == "nobody else" else [BOB, CYD]
    if which not in ("pinned", "local"):
        assert ada.asking.hedge_due(HedgeDue(T1, attempt), NOW + 1) == []
    assert ada.asking.hedged == 0


def test_the_first_attempt_stalling_leaves_the_second_alone() -> None:
    ada = experienced()
    first, _ = hedged(ada)
    ada.asking.accepted(BOB, TaskAccepted(first, "m", 0), NOW)
    effects = ada.asking.piece_overdue(PieceOverdue(T1, first, 0), NOW + 20)
    assert not [each for each in effects if isinstance(each, Send) and each.to == CYD]
    assert ada.asking.workers() == [CYD]


# --- The budget -----------------------------------------------------------------------------------------------------------


def test_the_budget_is_a_share_of_the_tasks() -> None:
    budget = HedgeBudget(Settings(hedge_share=0.05, hedge_burst=5.0))
    taken = 0
    for _ in range(1000):
        budget.task_begun()
        taken += budget.take(1, 1)
    assert 50 <= taken <= 51
    assert budget.spent == taken


def test_what_is_saved_is_bounded() -> None:
    budget = HedgeBudget(Settings(hedge_share=0.05, hedge_burst=3.0))
    for _ in range(1000):
        budget.task_begun()
    assert [budget.take(1, 1) for _ in range(5)] == [True, True, True, False, False]


def test_when_most_are_slow_nobody_is_asked_twice() -> None:
    budget = HedgeBudget(Settings())
    assert not budget.take(overdue=3, pending=5)
    assert budget.take(overdue=2, pending=5)


def test_everybody_being_slow_stops_hedging() -> None:
    ada = experienced(hedge_burst=10.0)
    attempts = [ada.ask(task(b"t%d" % number)) for number in range(4)]
    assert ada.asking.hedge_due(HedgeDue(task(b"t0").id, attempts[0]), NOW + 2) == []
    assert ada.asking.hedged == 0
