"""A worker is lost or falls silent in mid-answer: another with the same model goes on, and the user reads one stream."""

from dataclasses import replace

import pytest

from protocol import errors
from protocol import limits as lim
from protocol.codec import encode
from protocol.messages import TaskAccepted, TaskCancelled, TaskFailed, TaskPiece, TaskRefused, TaskRequest
from protocol.parts import Sampling, Turn
from swarm.doing.attempts import Attempt, Delivered, Open
from swarm.effects import (
    DeadlinePassed,
    FindProviders,
    Notify,
    PieceOverdue,
    Reply,
    RetryDue,
    Routed,
    SearchOverdue,
    Send,
    SetTimer,
    WatchDue,
)
from swarm.values import Candidate, Privacy, Subject
from tests.swarm.doing.requester import T1, Ada, concluded, concludes, failures, finished, placed
from tests.swarm.samples import BOB, CYD, DAN, NOW, capability, task

EXACT = capability(digest=b"d" * 32, numerics=b"avx512")
SAME_FILE = capability(digest=b"d" * 32, numerics=b"neon")
OTHER = capability()
NO_FILE = capability(numerics=b"echo/1")


def ada(*, bob=EXACT, cyd=EXACT, dan=OTHER, **settings: float) -> Ada:
    """Bob answers; cyd and dan could go on, as far as their models allow."""
    requester = Ada(BOB, CYD, DAN, **settings)
    requester.models = {BOB: bob, CYD: cyd, DAN: dan}
    return requester


def request(effects) -> TaskRequest:
    [found] = [each.message for each in effects if isinstance(each, Send) and isinstance(each.message, TaskRequest)]
    return found


def overdue(requester: Ada, effects):
    """What comes of a search that finds nobody."""
    [timer] = [each.timer for each in effects if isinstance(each, SetTimer)]
    return requester.asking.search_overdue(timer, NOW + requester.settings.search_limit_s)


def speaking(requester: Ada, *pieces: TaskPiece) -> bytes:
    attempt = requester.streaming()
    for index, (text, tokens) in enumerate(pieces):
        requester.asking.piece(BOB, TaskPiece(attempt, index, text, tokens), NOW)
    return attempt


@pytest.mark.parametrize("how", ["lost", "failed", "stalled", "gap", "miscounted"])
def test_another_worker_goes_on_from_what_was_delivered(how: str) -> None:
    requester = ada()
    attempt = speaking(requester, ("Because ", (4, 8)), ("air", (15,)))
    match how:
        case "lost":
            effects = requester.asking.lost(BOB, "reset", NOW + 1)
        case "failed":
            failed = TaskFailed(attempt, errors.BACKEND_FAILED.number, "boom")
            effects = requester.asking.failed_there(BOB, failed, NOW + 1)
        case "stalled":
            effects = requester.asking.piece_overdue(PieceOverdue(T1, attempt, 2), NOW + 1)
        case "gap":
            effects = requester.asking.piece(BOB, TaskPiece(attempt, 7, "x"), NOW + 1)
        case _:
            effects = requester.asking.finished(BOB, finished(attempt, 9), NOW + 1)
    node, resumed = placed(effects)
    assert node == CYD
    assert (request(effects).delivered, request(effects).delivered_tokens) == ("Because air", (4, 8, 15))
    assert [each.notice.why for each in effects if isinstance(each, Notify) and isinstance(each.notice, Routed)] == ["resume"]
    assert requester.asking.piece(BOB, TaskPiece(attempt, 2, " lost"), NOW + 1) == [], "the lost worker is not heard any more"
    requester.asking.accepted(CYD, TaskAccepted(resumed, "smollm2", 0), NOW + 1)
    [reply, _] = requester.asking.piece(CYD, TaskPiece(resumed, 0, " scatters", (16,)), NOW + 2)
    assert reply == Reply(T1, " scatters")
    outcome = concluded(requester.asking.finished(CYD, finished(resumed, 1), NOW + 3))
    assert (outcome.code, outcome.worker, outcome.first_piece_s) == (None, CYD, 0.0)
    assert [(end.worker, end.why, end.pieces) for end in outcome.attempts] == [(BOB, "first", 2), (CYD, "resume", 1)]
    assert (failures(requester), requester.asking.resumed, requester.asking.answered) == (1.0, 1, 1)


def test_a_third_worker_goes_on_from_all_that_two_have_delivered() -> None:
    requester = ada(dan=EXACT)
    speaking(requester, ("one ", (1,)))
    _, second = placed(requester.asking.lost(BOB, "reset", NOW))
    requester.asking.accepted(CYD, TaskAccepted(second, "smollm2", 0), NOW)
    requester.asking.piece(CYD, TaskPiece(second, 0, "two ", (2,)), NOW)
    effects = requester.asking.lost(CYD, "reset", NOW)
    assert placed(effects)[0] == DAN
    assert (request(effects).delivered, request(effects).delivered_tokens) == ("one two ", (1, 2))


def test_only_the_time_and_words_of_its_own_tell_how_fast_the_second_worker_is() -> None:
    requester = ada()
    speaking(requester, ("a b c", (1, 2, 3)))
    _, second = placed(requester.asking.lost(BOB, "reset", NOW + 10))
    requester.asking.accepted(CYD, TaskAccepted(second, "smollm2", 0), NOW + 10)
    requester.asking.piece(CYD, TaskPiece(second, 0, "d", (4,)), NOW + 11)
    requester.asking.finished(CYD, finished(second, 1), NOW + 13)
    standing = requester.standings.of(CYD, NOW + 13)
    assert standing is not None
    assert standing.first_token_s == 1.0
    assert standing.tokens_per_second == (21 - 3 - 1) / 2.0


@pytest.mark.parametrize(
    ("bob", "cyd", "goes_on"),
    [
        (EXACT, EXACT, True),
        (EXACT, SAME_FILE, True),
        (EXACT, capability(digest=b"e" * 32, numerics=b"avx512"), False),
        (EXACT, capability(digest=b"d" * 32), False),
        (NO_FILE, NO_FILE, True),
        (NO_FILE, capability("chat", "other", numerics=b"echo/1"), False),
        (NO_FILE, capability(numerics=b"echo/2"), False),
        (capability(), EXACT, None),
    ],
)
def test_only_the_same_model_goes_on(bob, cyd, goes_on: bool | None) -> None:
    """None: nobody could, so nobody is sought."""
    requester = ada(bob=bob, cyd=cyd)
    speaking(requester, ("Because", ()))
    effects = requester.asking.lost(BOB, "reset", NOW)
    if goes_on:
        assert placed(effects)[0] == CYD
    else:
        assert (concludes(effects) == []) is (goes_on is False), "others are asked for first"
        outcome = concluded(effects if goes_on is None else overdue(requester, effects))
        assert outcome.code is errors.STREAM_BROKEN
        assert outcome.reason == "bob was lost in mid-answer: reset; no other worker can go on with it"


def test_a_busy_worker_is_waited_for_in_mid_answer_as_well() -> None:
    requester = ada()
    speaking(requester, ("Because", (1,)))
    _, second = placed(requester.asking.lost(BOB, "reset", NOW))
    _, wait = requester.asking.refused(CYD, TaskRefused(second, errors.BUSY.number, ""), NOW)
    assert wait.timer == RetryDue(T1, 1)
    effects = requester.asking.retry_due(wait.timer, NOW + 1)
    assert placed(effects)[0] == CYD
    assert request(effects).delivered == "Because"


def test_a_worker_that_cannot_go_on_after_all_ends_the_stream_and_says_so() -> None:
    requester = ada()
    speaking(requester, ("Because", (1,)))
    _, second = placed(requester.asking.lost(BOB, "reset", NOW))
    effects = requester.asking.refused(CYD, TaskRefused(second, errors.BAD_REQUEST.number, "no"), NOW)
    outcome = concluded(overdue(requester, effects))
    assert outcome.code is errors.STREAM_BROKEN
    assert outcome.reason.startswith("bob was lost in mid-answer: reset")


# --- Seeking others that could go on ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "subject"), [(EXACT, Subject(digest=b"d" * 32)), (NO_FILE, Subject(model="smollm2"))], ids=["file", "name"]
)
def test_when_nobody_known_can_go_on_others_with_the_model_are_sought_once(model, subject: Subject) -> None:
    """[CND-11]"""
    requester = ada(bob=model, cyd=OTHER)
    attempt = speaking(requester, ("Because ", (4,)))
    effects = requester.asking.lost(BOB, "reset", NOW + 1)
    sought = [each for each in effects if not isinstance(each, Notify)]
    assert sought == [FindProviders(subject), SetTimer(requester.settings.search_limit_s, SearchOverdue(T1, subject))]
    assert requester.asking.is_seeking(subject)
    assert requester.asking.found(NOW + 1) == [], "somebody was found who cannot go on either"
    requester.models[CYD] = model
    effects = requester.asking.found(NOW + 2)
    node, second = placed(effects)
    assert (node, request(effects).delivered) == (CYD, "Because ")
    assert [each.notice.why for each in effects if isinstance(each, Notify) and isinstance(each.notice, Routed)] == ["resume"]
    assert not requester.asking.is_seeking(subject)
    assert requester.asking.search_overdue(SearchOverdue(T1, subject), NOW + 4) == [], "it is not searching any more"
    requester.asking.accepted(CYD, TaskAccepted(second, "smollm2", 0), NOW + 2)
    requester.asking.piece(CYD, TaskPiece(second, 0, "air", (5,)), NOW + 2)
    outcome = concluded(requester.asking.lost(CYD, "reset", NOW + 3))
    assert outcome.code is errors.STREAM_BROKEN, "once is enough"
    assert attempt != second


def test_the_timer_of_the_first_search_does_not_end_the_second() -> None:
    requester = ada(cyd=OTHER)
    requester.able = []
    requester.asking.begin(task(), NOW)
    requester.able = [BOB, CYD, DAN]
    _, attempt = placed(requester.asking.found(NOW + 1))
    requester.asking.accepted(BOB, TaskAccepted(attempt, "smollm2", 0), NOW + 1)
    requester.asking.piece(BOB, TaskPiece(attempt, 0, "Because", (1,)), NOW + 2)
    requester.asking.lost(BOB, "reset", NOW + 2)
    assert requester.asking.search_overdue(SearchOverdue(T1, Subject("chat")), NOW + 3) == []
    outcome = concluded(requester.asking.search_overdue(SearchOverdue(T1, Subject(digest=b"d" * 32)), NOW + 5))
    assert outcome.reason == "bob was lost in mid-answer: reset; no other worker can go on with it"


def test_the_deadline_ends_a_search_in_mid_answer() -> None:
    requester = ada(cyd=OTHER)
    speaking(requester, ("Because", (1,)))
    requester.asking.lost(BOB, "reset", NOW + 28)
    assert concluded(requester.asking.deadline_passed(DeadlinePassed(T1), NOW + 30)).code is errors.DEADLINE_EXCEEDED


@pytest.mark.parametrize("wish", [{"privacy": Privacy.LOCAL}, {"worker": BOB}])
def test_a_task_that_nobody_else_may_do_is_not_sought_for(wish) -> None:
    """[DHT-9]"""
    requester = ada(cyd=OTHER)
    attempt = requester.ask(task(**wish))
    requester.asking.accepted(BOB, TaskAccepted(attempt, "smollm2", 0), NOW)
    requester.asking.piece(BOB, TaskPiece(attempt, 0, "Because", (1,)), NOW)
    effects = requester.asking.lost(BOB, "reset", NOW)
    assert concluded(effects).code is errors.STREAM_BROKEN
    assert not [each for each in effects if isinstance(each, FindProviders)]


# --- What is delivered ----------------------------------------------------------------------------------------------------


def held(*pieces: tuple[str, tuple[int, ...]]) -> Delivered:
    delivered = Delivered()
    for text, tokens in pieces:
        delivered.add(TaskPiece(b"a", 0, text, tokens))
    return delivered


def test_tokens_that_are_not_all_known_are_of_no_use() -> None:
    assert held(("a", (1,)), ("", (2,)), ("b", (3, 4))).tokens == [1, 2, 3, 4]
    assert held(("a", (1,)), ("b", ()), ("c", (3,))).tokens == []
    assert held(("a", (1,)), ("", ()), ("c", (3,))).tokens == [1, 3], "an empty piece may have nothing to tell"


def test_too_many_tokens_are_dropped_and_the_text_is_kept() -> None:
    most = tuple(range(lim.PIECE_TOKENS_MAX))
    delivered = held(*[("x", most)] * (lim.DELIVERED_TOKENS_MAX // len(most)))
    assert len(delivered.tokens) == lim.DELIVERED_TOKENS_MAX
    delivered.add(TaskPiece(b"a", 0, "y", (1,)))
    assert (delivered.tokens, len(delivered.parts)) == ([], 9)


def test_a_long_answer_is_not_kept_for_ever_and_nobody_goes_on_with_it() -> None:
    delivered = held(*[("é" * 2048, (1,))] * 17)
    assert (delivered.parts, delivered.tokens, delivered.bytes) == ([], [], 17 * 4096)
    assert not delivered.fits(task())


@pytest.mark.parametrize(("question", "fits"), [(60_000, True), (90_000, False)])
def test_question_and_answer_must_fit_one_request(question: int, fits: bool) -> None:
    asked = task(turns=(Turn("user", "q" * (question // 2)), Turn("user", "é" * (question // 4))))
    assert held(("a" * 16_000, (1, 2))).fits(asked) is fits
    opened = Open(asked, NOW, delivered=held(("a" * 16_000, (1, 2))))
    worker = Candidate(BOB, "bob", "smollm2", 1.0, None)
    sent = opened.request(Attempt(b"a" * 16, worker, "resume", NOW), NOW)
    assert len(sent.delivered) == 16_000


def test_where_tokens_do_not_fit_too_the_text_is_gone_on_with() -> None:
    asked = task(turns=(Turn("user", "q" * 60_000),))
    delivered = held(*[("a" * 4_000, tuple(range(lim.PIECE_TOKENS_MAX)))] * 7)
    assert delivered.fits(asked)
    opened = Open(asked, NOW, delivered=delivered)
    attempt = Attempt(b"a" * 16, Candidate(BOB, "bob", "smollm2", 1.0, None), "resume", NOW)
    sent = opened.request(attempt, NOW)
    assert (len(sent.delivered), sent.delivered_tokens, attempt.resumed_tokens) == (28_000, (), None)
    encode(replace(sent, task=bytes(16)))


# --- Silence --------------------------------------------------------------------------------------------------------------


def test_a_worker_is_watched_for_as_long_as_it_works() -> None:
    requester = ada()
    attempt = speaking(requester, ("Because", (1,)))
    watch = WatchDue(T1, attempt)
    requester.heard_at[BOB] = NOW + 0.3
    [again] = requester.asking.watch_due(watch, NOW + 0.5)
    assert again == SetTimer(pytest.approx(0.3), watch)
    assert requester.roused == []
    [again] = requester.asking.watch_due(watch, NOW + 0.9)
    assert again == SetTimer(pytest.approx(0.8), watch)
    assert requester.roused == [BOB], "it is asked for a sign of life"
    requester.heard_at[BOB] = NOW + 1.0
    [again] = requester.asking.watch_due(watch, NOW + 1.8)
    assert again.timer == watch
    requester.asking.finished(BOB, finished(attempt, 1), NOW + 2)
    assert requester.asking.watch_due(watch, NOW + 2.2) == []


@pytest.mark.parametrize("late_s", [0.0, 0.2, 0.899_9])
def test_silence_is_noticed_when_it_has_lasted_not_a_round_later(late_s: float) -> None:
    """A clock that reads a hair less than the timer must not cost a second."""
    requester = ada()
    attempt = speaking(requester, ("Because", (1,)))
    [again] = requester.asking.watch_due(WatchDue(T1, attempt), NOW + 0.5 + late_s)
    assert again == SetTimer(pytest.approx(max(0.01, 0.9 - late_s)), WatchDue(T1, attempt))


def test_a_silent_worker_gets_a_rival_that_goes_on_alone_once_it_speaks() -> None:
    requester = ada()
    attempt = speaking(requester, ("Because", (1,)))
    effects = requester.asking.watch_due(WatchDue(T1, attempt), NOW + 1.5)
    node, second = placed(effects)
    assert (node, request(effects).delivered) == (CYD, "Because")
    assert requester.missed == [BOB], "nobody else is sent there"
    assert not [each for each in effects if isinstance(each, Send) and isinstance(each.message, TaskCancelled)]
    requester.asking.accepted(CYD, TaskAccepted(second, "smollm2", 0), NOW + 1.6)
    cancel, reply, _ = requester.asking.piece(CYD, TaskPiece(second, 0, " air", (2,)), NOW + 2)
    assert (cancel, reply) == (Send(BOB, TaskCancelled(attempt)), Reply(T1, " air"))
    assert requester.asking.piece(BOB, TaskPiece(attempt, 1, " air", (2,)), NOW + 2) == [], "it comes too late"
    assert failures(requester) == 1.0, "it has kept its user waiting"


def test_a_silent_worker_that_comes_back_first_goes_on_alone() -> None:
    requester = ada()
    attempt = speaking(requester, ("Because", (1,)))
    _, second = placed(requester.asking.watch_due(WatchDue(T1, attempt), NOW + 1.5))
    requester.asking.accepted(CYD, TaskAccepted(second, "smollm2", 0), NOW + 1.6)
    cancel, reply, _ = requester.asking.piece(BOB, TaskPiece(attempt, 1, " air", (2,)), NOW + 2)
    assert (cancel, reply) == (Send(CYD, TaskCancelled(second)), Reply(T1, " air"))
    assert requester.asking.piece(CYD, TaskPiece(second, 0, " air", (2,)), NOW + 2) == []
    concluded(requester.asking.finished(BOB, finished(attempt, 2), NOW + 3))
    assert (failures(requester), failures(requester, CYD)) == (0.0, 0.0)


def test_the_rival_of_a_silent_worker_may_fail_without_ending_the_task() -> None:
    requester = ada()
    attempt = speaking(requester, ("Because", (1,)))
    _, second = placed(requester.asking.watch_due(WatchDue(T1, attempt), NOW + 1.5))
    effects = requester.asking.lost(CYD, "reset", NOW + 2)
    assert concludes(effects) == [], "bob may still come back"
    [reply, _] = requester.asking.piece(BOB, TaskPiece(attempt, 1, " air", (2,)), NOW + 3)
    assert reply == Reply(T1, " air")
    assert requester.asking.watch_due(WatchDue(T1, second), NOW + 4) == []


def test_the_rival_of_a_silent_worker_is_replaced_when_it_fails() -> None:
    requester = ada(dan=EXACT)
    attempt = speaking(requester, ("Because", (1,)))
    placed(requester.asking.watch_due(WatchDue(T1, attempt), NOW + 1.5))
    assert placed(requester.asking.lost(CYD, "reset", NOW + 2))[0] == DAN


def test_silence_before_the_first_text_gets_a_rival_as_well() -> None:
    requester = ada()
    attempt = requester.ask()
    effects = requester.asking.watch_due(WatchDue(T1, attempt), NOW + 1.5)
    assert placed(effects)[0] == CYD
    assert request(effects).delivered == ""


def test_a_worker_that_is_not_reached_in_time_gets_a_rival_as_well() -> None:
    """Dials of addresses where nothing is may take long."""
    requester = ada()
    attempt = requester.ask()
    del requester.heard_at[BOB]
    [again] = requester.asking.watch_due(WatchDue(T1, attempt), NOW + 0.4)
    assert isinstance(again, SetTimer)
    assert placed(requester.asking.watch_due(WatchDue(T1, attempt), NOW + 1.5))[0] == CYD


@pytest.mark.parametrize("why_not", ["nobody else", "late itself", "nobody with the model", "own model"])
def test_silence_alone_ends_nothing(why_not: str) -> None:
    requester = ada(cyd=EXACT if why_not != "nobody with the model" else capability())
    attempt = speaking(requester, ("Because", (1,)))
    match why_not:
        case "nobody else":
            requester.able = [BOB]
        case "late itself":
            requester.is_excused = True
        case "own model":
            del requester.heard_at[BOB]
    effects = requester.asking.watch_due(WatchDue(T1, attempt), NOW + 1.5)
    assert [type(effect) for effect in effects] == ([] if why_not == "own model" else [SetTimer])
    assert requester.asking.workers() == [BOB]
    assert requester.missed == ([] if why_not in ("late itself", "own model") else [BOB])


def test_the_deadline_and_the_user_end_both_rivals() -> None:
    requester = ada()
    attempt = speaking(requester, ("Because", (1,)))
    _, second = placed(requester.asking.watch_due(WatchDue(T1, attempt), NOW + 1.5))
    effects = requester.asking.deadline_passed(DeadlinePassed(T1), NOW + 30)
    assert [each for each in effects if isinstance(each, Send)] == [
        Send(BOB, TaskCancelled(attempt)), Send(CYD, TaskCancelled(second)),
    ]  # fmt: skip
    assert concluded(effects).code is errors.DEADLINE_EXCEEDED
    assert (failures(requester), failures(requester, CYD)) == (0.0, 0.0)


def test_the_dice_of_an_answer_are_the_requesters() -> None:
    """Or nobody could go on with the same ones."""
    warm = request(ada().asking.begin(task(sampling=Sampling(temperature=0.7)), NOW))
    assert warm.sampling.seed > 0
    assert request(ada().asking.begin(task(sampling=Sampling(temperature=0.7, seed=7)), NOW)).sampling.seed == 7
    assert request(ada().asking.begin(task(), NOW)).sampling.seed == 0, "there are none at temperature 0"
