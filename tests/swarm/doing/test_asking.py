"""The life of a task at its requester: every wait has an end, stale timers and strangers find nothing, one Conclude."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from protocol import errors
from protocol import limits as lim
from protocol.errors import ErrorCode
from protocol.identity import NodeId
from protocol.messages import TaskAccepted, TaskCancelled, TaskFailed, TaskPiece, TaskRefused, TaskRequest
from protocol.parts import Alternative, Demands, Logprob, Sampling, TaskId, Turn
from swarm.effects import (
    AcceptOverdue,
    DeadlinePassed,
    Dial,
    FindProviders,
    Notify,
    PieceOverdue,
    Reply,
    Routed,
    SearchOverdue,
    Send,
    SetTimer,
    WatchDue,
    WorkerAccepted,
)
from swarm.values import AttemptEnd, Excluded, Outcome, Privacy, Subject, Usage
from tests.swarm.doing.requester import T1, Ada, concluded, concludes, failures, finished, placed, timers
from tests.swarm.samples import BOB, CYD, NOW, capability, task

CHAT = Subject("chat")

# --- Placed -------------------------------------------------------------------------------------------------------------


def test_a_task_goes_to_the_worker_that_was_chosen() -> None:
    ada = Ada(BOB)
    asked = task(turns=(Turn("system", "be brief"), Turn("user", "why?")), sampling=Sampling(seed=7), stops=("\n",))
    deadline, routed, send, overdue, watch = ada.asking.begin(asked, NOW)
    attempt = send.message.attempt
    assert deadline == SetTimer(30.0, DeadlinePassed(T1))
    assert routed == Notify(Routed(T1, ada.choose(asked, [], NOW)))
    assert send == Send(
        BOB, TaskRequest(attempt, T1, "chat", "smollm2", asked.turns, 64, Sampling(seed=7), ("\n",), 30_000)
    )
    assert overdue == SetTimer(ada.settings.accept_limit_s, AcceptOverdue(T1, attempt))
    assert watch == SetTimer(ada.settings.watch_after_s, WatchDue(T1, attempt))
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
    assert limit == SetTimer(3 * 20.0 + 400 / 25.0, PieceOverdue(T1, attempt, 0))


def test_an_input_of_numbers_only_is_given_the_time_that_a_slow_worker_needs() -> None:
    """Each of its bytes may be a token, up to as many as the model takes."""
    ada = Ada(BOB)
    attempt = ada.ask(task(turns=(Turn("user", "7" * 100_000),)))
    _, limit = ada.asking.accepted(BOB, TaskAccepted(attempt, "smollm2-q8", 0), NOW)
    assert limit.delay_s == 20.0 + capability().context_tokens / 25.0


def test_pieces_are_passed_on_and_each_sets_its_own_limit() -> None:
    ada = Ada(BOB)
    attempt = ada.streaming()
    for index, text in enumerate(["Because ", "of scattering."]):
        assert ada.asking.piece(BOB, TaskPiece(attempt, index, text), NOW) == [
            Reply(T1, text),
            SetTimer(ada.settings.piece_limit_s, PieceOverdue(T1, attempt, index + 1)),
        ]


def test_log_probabilities_are_passed_on_to_who_demands_them() -> None:
    told = (Logprob(b"Because", -0.5, (Alternative(b"Since", -1.0),)),)
    for demands, expected in ((Demands(logprobs=2), told), (Demands(options=("a",)), told), (Demands(), ())):
        ada = Ada(BOB)
        attempt = ada.ask(task(demands=demands))
        ada.asking.accepted(BOB, TaskAccepted(attempt, "smollm2", 0), NOW)
        assert ada.asking.piece(BOB, TaskPiece(attempt, 0, "Because", (), told), NOW)[0] == Reply(T1, "Because", expected)


def test_a_demand_goes_with_the_request_and_is_no_speed_to_learn_from() -> None:
    """Options and given answers are read, which is another speed than that of writing."""
    for demands in (Demands(options=("a", "b")), Demands(forced="a b")):
        ada = Ada(BOB)
        effects = ada.asking.begin(task(demands=demands), NOW)
        [request] = [effect.message for effect in effects if isinstance(effect, Send) and isinstance(effect.message, TaskRequest)]
        assert request.demands == demands
        ada.asking.accepted(BOB, TaskAccepted(request.attempt, "smollm2", 0), NOW)
        ada.asking.finished(BOB, finished(request.attempt, 0), NOW + 1)
        assert ada.standings.of(BOB, NOW + 1).tokens_per_second is None


def test_a_complete_answer_concludes_with_who_gave_it() -> None:
    ada = Ada(BOB)
    attempt = ada.ask()
    ada.asking.accepted(BOB, TaskAccepted(attempt, "smollm2-q8", 0), NOW + 0.5)
    ada.asking.piece(BOB, TaskPiece(attempt, 0, "Because."), NOW + 1)
    ada.asking.piece(BOB, TaskPiece(attempt, 1, " So."), NOW + 2)
    outcome = concluded(ada.asking.finished(BOB, finished(attempt, 2), NOW + 3))
    ends = (AttemptEnd(BOB, "bob", "smollm2", None, "", 3.0, "first", 0.0, 0.5, 1.0, 2),)
    assert outcome == Outcome(None, "", BOB, "bob", "smollm2-q8", Usage("stop", 10, 21, 0.5, 2.5), 1.0, 3.0, ends)
    standing = ada.standings.of(BOB, NOW + 3)
    assert (standing.inflight, standing.successes, standing.first_token_s) == (0, 1.0, 0.5)
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


# --- Searching ----------------------------------------------------------------------------------------------------------


def test_with_nobody_able_the_dht_is_asked_once() -> None:
    ada = Ada()
    effects = ada.asking.begin(task(), NOW)
    assert effects[1:] == [FindProviders(CHAT), SetTimer(ada.settings.search_limit_s, SearchOverdue(T1, CHAT))]
    assert ada.asking.found(NOW) == [], "somebody was found, but nobody able"


def test_a_task_that_may_not_leave_this_node_asks_nobody() -> None:
    """[DHT-9]"""
    effects = Ada().asking.begin(task(privacy=Privacy.LOCAL), NOW)
    assert timers(effects) == [DeadlinePassed(T1), SearchOverdue(T1, CHAT)]
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
    assert ada.asking.search_overdue(SearchOverdue(T1, CHAT), NOW + 3) == [], "it is not searching any more"


def test_whoever_may_be_asked_again_when_a_search_ends_is_asked() -> None:
    """That somebody is not shut out any more is no news that anybody tells."""
    ada = Ada()
    ada.asking.begin(task(), NOW)
    ada.able = [BOB]
    assert placed(ada.asking.search_overdue(SearchOverdue(T1, CHAT), NOW + 3))[0] == BOB


@pytest.mark.parametrize(("model", "wanted"), [("", "chat"), ("qwen", "chat with qwen")])
def test_a_search_that_finds_nobody_says_what_was_wanted(model: str, wanted: str) -> None:
    ada = Ada()
    sought = Subject(model=model) if model else CHAT
    effects = ada.asking.begin(task(model=model), NOW)
    assert effects[1] == FindProviders(sought), "the rarest thing that the worker must have"
    outcome = concluded(ada.asking.search_overdue(SearchOverdue(T1, sought), NOW + 3))
    assert (outcome.code, outcome.reason) == (errors.NO_CAPABLE_PEER, f"no known worker can do {wanted}")
    assert ada.asking.search_overdue(SearchOverdue(T1, sought), NOW + 4) == []


@pytest.mark.parametrize(
    ("excluded", "code", "reason"),
    [
        ((Excluded(BOB, "bob", "context of 2048 tokens is too short", 2048), Excluded(CYD, "cyd", "…", 4096)), errors.TOO_LONG,
         "the input is too long: a known worker for chat takes 4096 tokens at most"),
        ((Excluded(BOB, "bob", "…", 2048), Excluded(CYD, "cyd", "takes no more work", passes=True)), errors.NO_CAPABLE_PEER,
         "no known worker can do chat now: cyd takes no more work"),
        ([Excluded(BOB, "bob", "failed 2 times", passes=True)] * 5, errors.NO_CAPABLE_PEER,
         "no known worker can do chat now: bob failed 2 times, bob failed 2 times, bob failed 2 times and 2 more"),
    ],
    ids=["too long", "gone", "many"],
)  # fmt: skip
def test_why_nobody_was_asked_is_told(excluded: Sequence[Excluded], code: ErrorCode, reason: str) -> None:
    ada = Ada()
    ada.excluded = tuple(excluded)
    ada.asking.begin(task(), NOW)
    outcome = concluded(ada.asking.search_overdue(SearchOverdue(T1, CHAT), NOW + 3))
    assert (outcome.code, outcome.reason) == (code, reason)


def test_a_task_is_not_searched_for_again_after_workers_have_failed() -> None:
    ada = Ada()
    ada.asking.begin(task(), NOW)
    ada.able = [BOB]
    _, attempt = placed(ada.asking.found(NOW))
    effects = ada.asking.refused(BOB, TaskRefused(attempt, errors.NO_SUCH_CAPABILITY.number, ""), NOW)
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
        SearchOverdue: lambda attempt: ada.asking.search_overdue(SearchOverdue(T1, CHAT), NOW + 2),
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


# --- All together ------------------------------------------------------------------------------------------------------


def test_every_wait_has_its_timer() -> None:
    ada = Ada()
    assert timers(ada.asking.begin(task(), NOW)) == [DeadlinePassed(T1), SearchOverdue(T1, CHAT)]
    ada.able = [BOB]
    effects = ada.asking.found(NOW)
    _, attempt = placed(effects)
    assert timers(effects) == [AcceptOverdue(T1, attempt), WatchDue(T1, attempt)]
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
