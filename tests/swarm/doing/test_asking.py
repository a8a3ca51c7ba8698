"""The life of a task at its requester: every wait has an end, stale timers and strangers find nothing, one Conclude."""

from collections.abc import Iterable
from dataclasses import replace
from random import Random

import pytest

from protocol import errors
from protocol import limits as lim
from protocol.errors import ErrorCode
from protocol.identity import NodeId
from protocol.messages import (
    AttemptId,
    TaskAccepted,
    TaskCancelled,
    TaskFailed,
    TaskFinished,
    TaskId,
    TaskPiece,
    TaskRefused,
    TaskRequest,
    Turn,
)
from swarm.choosing.standing import Standings
from swarm.doing.asking import PIECE_BYTES_COUNTED, Asking
from swarm.effects import (
    AcceptOverdue,
    AttemptFailed,
    Conclude,
    DeadlinePassed,
    Dial,
    Effect,
    FindProviders,
    Notify,
    PieceOverdue,
    Reply,
    Routed,
    SearchOverdue,
    Send,
    SetTimer,
    Timer,
    WorkerAccepted,
)
from swarm.settings import Settings
from swarm.values import AttemptEnd, Candidate, Contact, Outcome, Privacy, Routing, Task, Usage
from tests.swarm.samples import BOB, CYD, DAN, NOW, task

T1 = TaskId(b"t1")
NAMES = {BOB: "bob", CYD: "cyd", DAN: "dan"}


class Ada:
    """Ada's tasks. She knows `able`, takes the first that was not tried, and dials everybody but bob."""

    def __init__(self, *able: NodeId, **settings: float) -> None:
        self.able = list(able)
        self.settings = Settings(**settings)
        self.standings = Standings(self.settings)
        self.is_excused = False
        self.asking = Asking(
            self.settings, Random(1), self.choose, self.reach, self.standings, lambda now: self.is_excused
        )

    def choose(self, asked: Task, tried: list[NodeId], now: float) -> Routing:
        found = tuple(Candidate(node, NAMES[node], "smollm2", 1.0, ()) for node in self.able if node not in tried)
        return Routing(found, tuple(each.node for each in found), found[0].node if found else None, ())

    def reach(self, node: NodeId) -> list[Effect]:
        return [] if node == BOB else [Dial(Contact(node, ("/memory/x",)))]

    def ask(self, asked: Task | None = None, at: float = NOW) -> AttemptId:
        """The attempt that begins when a task is asked for."""
        return placed(self.asking.begin(asked or task(), at))[1]

    def streaming(self, *texts: str, at: float = NOW) -> AttemptId:
        """An attempt at bob's that has been accepted and has begun to answer."""
        attempt = self.ask(at=at)
        self.asking.accepted(BOB, TaskAccepted(attempt, "smollm2", 0), at)
        for index, text in enumerate(texts):
            self.asking.piece(BOB, TaskPiece(attempt, index, text), at)
        return attempt


def placed(effects: Iterable[Effect]) -> tuple[NodeId, AttemptId]:
    [found] = [effect for effect in effects if isinstance(effect, Send) and isinstance(effect.message, TaskRequest)]
    return found.to, found.message.attempt


def concluded(effects: Iterable[Effect]) -> Outcome:
    [found] = [effect.outcome for effect in effects if isinstance(effect, Conclude)]
    return found


def timers(effects: Iterable[Effect]) -> list[Timer]:
    return [effect.timer for effect in effects if isinstance(effect, SetTimer)]


def finished(attempt: AttemptId, pieces: int) -> TaskFinished:
    return TaskFinished(attempt, pieces, "stop", 10, 21, 0, 500, 2500)


def failures(ada: Ada, node: NodeId = BOB) -> float:
    standing = ada.standings.of(node, NOW)
    assert standing is not None
    assert standing.inflight == 0
    return standing.failures


# --- Placed -------------------------------------------------------------------------------------------------------------


def test_a_task_goes_to_the_worker_that_was_chosen() -> None:
    ada = Ada(BOB)
    asked = task(turns=(Turn("system", "be brief"), Turn("user", "why?")), seed=7, stops=("\n",))
    deadline, routed, send, overdue = ada.asking.begin(asked, NOW)
    attempt = send.message.attempt
    assert deadline == SetTimer(30.0, DeadlinePassed(T1))
    assert routed == Notify(Routed(T1, ada.choose(asked, [], NOW)))
    assert send == Send(BOB, TaskRequest(attempt, T1, "chat", "smollm2", asked.turns, 64, 0.0, 1.0, 7, ("\n",), 30_000))
    assert overdue == SetTimer(ada.settings.accept_limit_s, AcceptOverdue(T1, attempt))
    assert (len(attempt), len(ada.asking), ada.asking.workers()) == (16, 1, [BOB])
    assert ada.standings.of(BOB, NOW).inflight == 1


def test_a_worker_that_is_no_neighbour_is_dialled_before_the_request_is_sent() -> None:
    effects = Ada(CYD).asking.begin(task(), NOW)
    kinds = [type(effect) for effect in effects]
    assert kinds.index(Dial) < kinds.index(Send)


@pytest.mark.parametrize(("deadline_s", "at", "expected_ms"), [(30.0, NOW + 12.5, 17_500), (30.0, NOW + 30, 1)])
def test_a_later_worker_is_given_the_time_that_is_left(deadline_s: float, at: float, expected_ms: int) -> None:
    ada = Ada(BOB, CYD)
    attempt = ada.ask(task(deadline_s=deadline_s))
    effects = ada.asking.refused(BOB, TaskRefused(attempt, errors.BUSY.number, ""), at)
    [request] = [effect.message for effect in effects if isinstance(effect, Send)]
    assert request.deadline_ms == expected_ms


@pytest.mark.parametrize("late", ["piece", "end", "refusal"])
def test_what_comes_after_the_deadline_but_before_its_timer_ends_the_task(late: str) -> None:
    """A node that stood still reads what has come meanwhile before its timers fire."""
    ada = Ada(BOB, CYD)
    attempt, at = ada.streaming() if late != "refusal" else ada.ask(), NOW + task().deadline_s + 0.5
    if late == "piece":
        effects = ada.asking.piece(BOB, TaskPiece(attempt, 0, "late"), at)
    elif late == "end":
        effects = ada.asking.finished(BOB, finished(attempt, 0), at)
    else:
        effects = ada.asking.refused(BOB, TaskRefused(attempt, errors.BUSY.number, ""), at)
    assert concluded(effects).code is errors.DEADLINE_EXCEEDED
    assert not [effect for effect in effects if isinstance(effect, Reply)]
    assert len(ada.asking) == 0


def test_a_deadline_longer_than_the_wire_carries_is_cut() -> None:
    effects = Ada(BOB).asking.begin(task(deadline_s=86_400.0), NOW)
    assert [effect.message.deadline_ms for effect in effects if isinstance(effect, Send)] == [lim.DEADLINE_MS_MAX]


def test_tasks_under_way_are_bounded() -> None:
    ada = Ada(BOB, tasks_max=1)
    attempt = ada.ask()
    outcome = concluded(ada.asking.begin(task(b"t2"), NOW))
    assert outcome == Outcome(errors.TOO_MANY_TASKS, errors.TOO_MANY_TASKS.meaning, None, "", "", None, None, 0.0, ())
    ada.asking.accepted(BOB, TaskAccepted(attempt, "smollm2", 0), NOW)
    assert concluded(ada.asking.finished(BOB, finished(attempt, 0), NOW)).code is None
    ada.ask(task(b"t3"))
    assert (ada.asking.asked, ada.asking.answered, ada.asking.failed) == (3, 1, 1)


# --- Answered -----------------------------------------------------------------------------------------------------------


def test_an_accepted_task_is_told_and_given_time_for_its_first_piece() -> None:
    ada = Ada(BOB)
    attempt = ada.ask(task(turns=(Turn("user", "x" * 400),)))
    told, limit = ada.asking.accepted(BOB, TaskAccepted(attempt, "smollm2-q8", 2), NOW)
    assert told == Notify(WorkerAccepted(T1, BOB, "bob", "smollm2-q8", 2))
    assert limit == SetTimer(3 * 20.0 + 400 / 200.0, PieceOverdue(T1, attempt, 0))


def test_pieces_are_passed_on_and_each_sets_its_own_limit() -> None:
    ada = Ada(BOB)
    attempt = ada.streaming()
    for index, text in enumerate(["Because ", "of scattering."]):
        assert ada.asking.piece(BOB, TaskPiece(attempt, index, text), NOW) == [
            Reply(T1, text),
            SetTimer(ada.settings.piece_limit_s, PieceOverdue(T1, attempt, index + 1)),
        ]


def test_a_complete_answer_concludes_with_who_gave_it() -> None:
    ada = Ada(BOB)
    attempt = ada.ask()
    ada.asking.accepted(BOB, TaskAccepted(attempt, "smollm2-q8", 0), NOW + 0.5)
    ada.asking.piece(BOB, TaskPiece(attempt, 0, "Because."), NOW + 1)
    ada.asking.piece(BOB, TaskPiece(attempt, 1, " So."), NOW + 2)
    outcome = concluded(ada.asking.finished(BOB, finished(attempt, 2), NOW + 3))
    ends = (AttemptEnd(BOB, "bob", "smollm2", None, "", 3.0),)
    assert outcome == Outcome(None, "", BOB, "bob", "smollm2-q8", Usage("stop", 10, 21, 0.5, 2.5), 1.0, 3.0, ends)
    standing = ada.standings.of(BOB, NOW + 3)
    assert (standing.inflight, standing.successes, standing.first_token_s) == (0, 1.0, 1.0)
    assert (len(ada.asking), ada.asking.answered) == (0, 1)


def test_an_empty_answer_is_an_answer() -> None:
    ada = Ada(BOB)
    attempt = ada.streaming()
    outcome = concluded(ada.asking.finished(BOB, finished(attempt, 0), NOW + 2))
    assert (outcome.code, outcome.first_piece_s) == (None, None)
    assert ada.standings.of(BOB, NOW + 2).first_token_s == 2.0


def test_times_are_measured_on_a_clock_that_starts_at_zero() -> None:
    ada = Ada(BOB)
    attempt = ada.streaming("Because.", at=0.0)
    ada.asking.finished(BOB, finished(attempt, 1), 5.0)
    assert ada.standings.of(BOB, 5.0).first_token_s == 0.0


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
    _, second = placed(ada.asking.refused(BOB, TaskRefused(first, errors.BUSY.number, "full"), NOW + 1))
    outcome = concluded(ada.asking.refused(CYD, TaskRefused(second, errors.BUSY.number, ""), NOW + 2))
    assert outcome.code is errors.EXHAUSTED
    assert outcome.reason == f"2 workers tried; the last, cyd: {errors.BUSY.meaning}"
    assert (outcome.worker, outcome.worker_name, outcome.seconds) == (CYD, "cyd", 2.0)
    assert [(end.worker, end.code, end.seconds) for end in outcome.attempts] == [
        (BOB, errors.BUSY, 1.0), (CYD, errors.BUSY, 1.0),
    ]  # fmt: skip


def test_attempts_are_bounded() -> None:
    ada = Ada(BOB, CYD, DAN, attempts_max=2)
    first = ada.ask()
    _, second = placed(ada.asking.refused(BOB, TaskRefused(first, errors.BUSY.number, ""), NOW))
    outcome = concluded(ada.asking.refused(CYD, TaskRefused(second, errors.BUSY.number, ""), NOW))
    assert outcome.code is errors.EXHAUSTED


# --- After the first text there is no way back ----------------------------------------------------------------------------


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
    assert outcome.reason.startswith("bob was lost in mid-answer: ")
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


# --- Searching ----------------------------------------------------------------------------------------------------------


def test_with_nobody_able_the_dht_is_asked_once() -> None:
    ada = Ada()
    effects = ada.asking.begin(task(), NOW)
    assert effects[1:] == [FindProviders("chat"), SetTimer(ada.settings.search_limit_s, SearchOverdue(T1))]
    assert ada.asking.found(NOW) == [], "somebody was found, but nobody able"


def test_a_task_that_may_not_leave_this_node_asks_nobody() -> None:
    effects = Ada().asking.begin(task(privacy=Privacy.LOCAL), NOW)
    assert timers(effects) == [DeadlinePassed(T1), SearchOverdue(T1)]
    assert not [effect for effect in effects if isinstance(effect, FindProviders)]


def test_searching_tasks_go_on_when_somebody_able_is_found() -> None:
    ada = Ada(BOB)
    ada.ask(task(b"placed"))
    ada.able = []
    ada.asking.begin(task(b"t1"), NOW)
    ada.asking.begin(task(b"t2"), NOW)
    ada.able = [CYD]
    effects = ada.asking.found(NOW + 1)
    requests = [effect.message.task for effect in effects if isinstance(effect, Send)]
    assert requests == [b"t1", b"t2"]
    assert ada.asking.search_overdue(SearchOverdue(T1), NOW + 3) == [], "it is not searching any more"


@pytest.mark.parametrize(("model", "wanted"), [("", "chat"), ("qwen", "chat with qwen")])
def test_a_search_that_finds_nobody_says_what_was_wanted(model: str, wanted: str) -> None:
    ada = Ada()
    ada.asking.begin(task(model=model), NOW)
    outcome = concluded(ada.asking.search_overdue(SearchOverdue(T1), NOW + 3))
    assert (outcome.code, outcome.reason) == (errors.NO_CAPABLE_PEER, f"no known worker can do {wanted}")
    assert ada.asking.search_overdue(SearchOverdue(T1), NOW + 4) == []


def test_a_task_is_not_searched_for_again_after_workers_have_failed() -> None:
    ada = Ada()
    ada.asking.begin(task(), NOW)
    ada.able = [BOB]
    _, attempt = placed(ada.asking.found(NOW))
    effects = ada.asking.refused(BOB, TaskRefused(attempt, errors.BUSY.number, ""), NOW)
    assert concluded(effects).code is errors.EXHAUSTED


# --- The user, the deadline, the end of this node ---------------------------------------------------------------------------


def test_a_cancelled_task_is_taken_back_and_concluded() -> None:
    ada = Ada(BOB)
    attempt = ada.streaming("Because")
    cancel, conclude = ada.asking.cancel(T1, NOW + 1)
    assert cancel == Send(BOB, TaskCancelled(attempt))
    assert conclude.outcome.code is errors.CANCELLED
    assert ada.asking.cancel(T1, NOW + 1) == []
    assert (failures(ada), ada.asking.failed) == (0.0, 0), "nobody has failed"


def test_a_searching_task_is_cancelled_without_a_word_to_anybody() -> None:
    ada = Ada()
    ada.asking.begin(task(), NOW)
    [conclude] = ada.asking.cancel(T1, NOW)
    assert conclude.outcome.code is errors.CANCELLED


def test_time_runs_out_and_nobody_is_blamed_for_being_slow() -> None:
    ada = Ada(BOB)
    attempt = ada.streaming("Because")
    effects = ada.asking.deadline_passed(DeadlinePassed(T1), NOW + 30)
    assert effects[0] == Send(BOB, TaskCancelled(attempt))
    assert concluded(effects).code is errors.DEADLINE_EXCEEDED
    assert ada.asking.deadline_passed(DeadlinePassed(T1), NOW + 30) == []
    assert (failures(ada), ada.asking.failed) == (0.0, 1)


def test_a_stopping_node_ends_every_task_and_takes_no_more() -> None:
    ada = Ada(BOB)
    ada.ask(task(b"t1"))
    ada.able = []
    ada.asking.begin(task(b"t2"), NOW)
    effects = ada.asking.stop(NOW)
    assert [(effect.task, effect.outcome.code) for effect in concludes(effects)] == [
        (b"t1", errors.SHUTTING_DOWN), (b"t2", errors.SHUTTING_DOWN),
    ]  # fmt: skip
    assert concluded(ada.asking.begin(task(b"t3"), NOW)).code is errors.SHUTTING_DOWN
    assert len(ada.asking) == 0


# --- What is late or foreign ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("timer", [AcceptOverdue, PieceOverdue, SearchOverdue], ids=lambda timer: timer.__name__)
def test_a_timer_whose_reason_is_gone_finds_nothing(timer: type) -> None:
    """The task is over; another attempt is under way; the attempt is further on."""
    ada = Ada(BOB, CYD)
    fire = {
        AcceptOverdue: lambda attempt: ada.asking.accept_overdue(AcceptOverdue(T1, attempt), NOW + 2),
        PieceOverdue: lambda attempt: ada.asking.piece_overdue(PieceOverdue(T1, attempt, 0), NOW + 2),
        SearchOverdue: lambda attempt: ada.asking.search_overdue(SearchOverdue(T1), NOW + 2),
    }[timer]
    first = ada.streaming("Because")
    assert fire(first) == [], "it has accepted and spoken"
    ada.asking.cancel(T1, NOW)
    assert fire(first) == [], "the task is over"
    first = ada.ask()
    ada.asking.refused(BOB, TaskRefused(first, errors.BUSY.number, ""), NOW)
    assert fire(first) == [], "another attempt is under way"
    ada.asking.cancel(T1, NOW)
    ada.able = []
    ada.asking.begin(task(), NOW)
    if timer is not SearchOverdue:
        assert fire(first) == [], "it is searching"


@pytest.mark.parametrize("sender", [CYD, BOB], ids=["a stranger", "the worker of an attempt that is over"])
def test_messages_of_others_about_an_attempt_are_ignored(sender: NodeId) -> None:
    ada = Ada(BOB, CYD)
    attempt = ada.ask()
    if sender == BOB:
        ada.asking.accept_overdue(AcceptOverdue(T1, attempt), NOW + 2)
    before = ada.asking.workers()
    assert ada.asking.accepted(sender, TaskAccepted(attempt, "x", 0), NOW) == []
    assert ada.asking.refused(sender, TaskRefused(attempt, 1, ""), NOW) == []
    assert ada.asking.piece(sender, TaskPiece(attempt, 0, "lies"), NOW) == []
    assert ada.asking.finished(sender, finished(attempt, 0), NOW) == []
    assert ada.asking.failed_there(sender, TaskFailed(attempt, 17, ""), NOW) == []
    assert ada.asking.workers() == before


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


def concludes(effects: Iterable[Effect]) -> list[Conclude]:
    return [effect for effect in effects if isinstance(effect, Conclude)]


def test_every_wait_has_its_timer() -> None:
    ada = Ada()
    assert timers(ada.asking.begin(task(), NOW)) == [DeadlinePassed(T1), SearchOverdue(T1)]
    ada.able = [BOB]
    effects = ada.asking.found(NOW)
    _, attempt = placed(effects)
    assert timers(effects) == [AcceptOverdue(T1, attempt)]
    assert timers(ada.asking.accepted(BOB, TaskAccepted(attempt, "", 0), NOW)) == [PieceOverdue(T1, attempt, 0)]
    assert timers(ada.asking.piece(BOB, TaskPiece(attempt, 0, ""), NOW)) == [PieceOverdue(T1, attempt, 1)]


def test_two_tasks_do_not_touch_each_other() -> None:
    ada = Ada(BOB, CYD)
    one, two = ada.ask(task(b"t1")), ada.ask(replace(task(b"t2"), worker=None))
    ada.asking.accepted(BOB, TaskAccepted(one, "m", 0), NOW)
    [reply, _] = ada.asking.piece(BOB, TaskPiece(one, 0, "for one"), NOW)
    assert reply == Reply(T1, "for one")
    assert concluded(ada.asking.cancel(TaskId(b"t2"), NOW)).first_piece_s is None
    assert concluded(ada.asking.finished(BOB, finished(one, 1), NOW)).code is None
    assert one != two
