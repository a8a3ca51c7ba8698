"""The life of an attempt at its worker: admission, queue, slots, and exactly one end in every state."""

from dataclasses import replace

import pytest

from protocol import errors
from protocol import limits as lim
from protocol.codec import encode
from protocol.errors import ErrorCode
from protocol.identity import NodeId
from protocol.messages import TaskAccepted, TaskFailed, TaskFinished, TaskPiece, TaskRefused
from protocol.parts import Alternative, AttemptId, Capability, Demands, Logprob, Turn
from swarm.doing.serving import Serving
from swarm.effects import Effect, Generate, Send, ServiceDeadlinePassed, SetTimer, StopGenerating
from swarm.settings import Settings
from tests.swarm.samples import ADA, BOB, CYD, NOW, USAGE, capability, request

CHAT = capability("chat", "smollm2")
A1, A2, A3 = (AttemptId(name) for name in (b"a1", b"a2", b"a3"))


def worker(*capabilities: Capability, **settings: int) -> Serving:
    """Ada, who works."""
    serving = Serving(ADA, Settings(**settings))
    serving.offer(capabilities or (CHAT,), NOW)
    return serving


def ask(serving: Serving, attempt: bytes, sender: NodeId = BOB, at: float = NOW, **changes: object) -> list[Effect]:
    return serving.requested(sender, request(attempt, **changes), at)


def refusal(effects: list[Effect]) -> tuple[ErrorCode, str]:
    [Send_] = effects
    assert isinstance(Send_.message, TaskRefused)
    return errors.error_code(Send_.message.code), Send_.message.reason


def begun(effects: list[Effect]) -> list[AttemptId]:
    return [effect.request.attempt for effect in effects if isinstance(effect, Generate)]


def accepted(effects: list[Effect]) -> int:
    """How many are ahead."""
    [ahead] = [effect.message.ahead for effect in effects if isinstance(effect, Send)]
    return ahead


def failed(to: NodeId, attempt: AttemptId, code: ErrorCode, reason: str = "") -> Send:
    return Send(to, TaskFailed(attempt, code.number, reason or code.meaning))


# --- Admission ----------------------------------------------------------------------------------------------------------


def test_what_can_be_done_at_once_is_accepted_and_begun() -> None:
    asked = request(b"a1", deadline_ms=1500)
    assert worker().requested(BOB, asked, NOW) == [
        Send(BOB, TaskAccepted(A1, "smollm2", 0)),
        SetTimer(1.5, ServiceDeadlinePassed(A1)),
        Generate(asked, "smollm2"),
    ]


@pytest.mark.parametrize(
    ("changes", "code", "reason"),
    [
        ({"skill": "paint"}, errors.NO_SUCH_CAPABILITY, "paint is not offered here"),
        ({"model": "qwen"}, errors.NO_SUCH_CAPABILITY, "chat with qwen is not offered here"),
        ({"turns": ()}, errors.BAD_REQUEST, "turns are needed, each of system, user, assistant, tool"),
        ({"turns": (Turn("wizard", "x"),)}, errors.BAD_REQUEST, "turns are needed, each of system, user, assistant, tool"),
        ({"deadline_ms": 0}, errors.DEADLINE_EXCEEDED, errors.DEADLINE_EXCEEDED.meaning),
    ],
)
def test_what_cannot_be_done_is_refused_with_a_reason(changes: dict[str, object], code: ErrorCode, reason: str) -> None:
    serving = worker()
    assert refusal(ask(serving, b"a1", **changes)) == (code, reason)
    assert serving.load() == (1, 0, 0)


def test_a_long_name_makes_no_reason_too_long_to_send() -> None:
    serving = worker()
    skill, model = "s" * lim.SKILL_BYTES_MAX, "m" * lim.MODEL_BYTES_MAX
    _, reason = refusal(ask(serving, b"a1", skill=skill, model=model))
    assert len(reason.encode()) <= lim.REASON_BYTES_MAX


def test_a_node_that_stops_refuses_everything_new() -> None:
    serving = worker()
    ask(serving, b"a1")
    serving.drain()
    assert refusal(ask(serving, b"a2"))[0] is errors.DRAINING
    assert serving.finished(A1, USAGE, NOW), "and ends what it has promised"


def test_one_attempt_is_not_taken_twice() -> None:
    serving = worker()
    ask(serving, b"a1")
    assert refusal(ask(serving, b"a1", sender=CYD)) == (errors.BAD_REQUEST, "this attempt is under way already")


def test_the_fastest_model_that_fits_is_taken() -> None:
    fast, slow = capability(model="fast", tokens_per_second=90.0), capability(model="slow", tokens_per_second=5.0)
    serving = worker(slow, fast, capability("embed", "minilm", tokens_per_second=900.0))
    assert [effect.model for effect in ask(serving, b"a1") if isinstance(effect, Generate)] == ["fast"]
    assert [effect.model for effect in ask(serving, b"a2", model="slow") if isinstance(effect, Generate)] == ["slow"]


# --- Slots and the queue ------------------------------------------------------------------------------------------------


def test_no_more_run_than_there_are_slots() -> None:
    serving = worker(replace(CHAT, slots=2))
    assert [len(begun(ask(serving, name))) for name in (b"a1", b"a2", b"a3")] == [1, 1, 0]
    assert serving.load() == (2, 2, 1)
    assert begun(serving.finished(A2, USAGE, NOW)) == [A3]
    assert serving.load() == (2, 2, 0)


def test_skills_of_one_model_share_its_slots() -> None:
    serving = worker(CHAT, capability("code", "smollm2"))
    assert begun(ask(serving, b"a1"))
    assert not begun(ask(serving, b"a2", skill="code"))
    assert serving.load() == (1, 1, 1)


def test_models_do_not_wait_for_each_other() -> None:
    serving = worker(CHAT, capability("code", "coder"))
    assert begun(ask(serving, b"a1"))
    assert begun(ask(serving, b"a2", skill="code"))


@pytest.mark.parametrize("slots", [1, 2])
def test_whoever_waits_is_told_how_many_must_end_before(slots: int) -> None:
    """What runs counts as well: its end may be a long way off, and the requester's patience follows from this number."""
    serving = worker(replace(CHAT, slots=slots), capability("code", "coder"))
    ask(serving, b"other", skill="code")
    names = [b"a1", b"a2", b"a3", b"a4"]
    assert [accepted(ask(serving, name)) for name in names] == [max(0, place - slots) for place in (1, 2, 3, 4)]
    assert accepted(ask(serving, b"own", sender=ADA)) == 1, (
        "this node's own user waits for what runs, not for the queue"
    )


def test_a_full_queue_refuses() -> None:
    serving = worker(queue_max=2)
    for name in (b"a1", b"a2", b"a3"):
        accepted(ask(serving, name))
    assert refusal(ask(serving, b"a4")) == (errors.BUSY, "1 at work, 2 waiting")
    serving.finished(A1, USAGE, NOW)
    accepted(ask(serving, b"a4"))


def test_without_a_queue_what_cannot_begin_is_refused() -> None:
    serving = worker(queue_max=0)
    accepted(ask(serving, b"a1"))
    assert refusal(ask(serving, b"a2"))[0] is errors.BUSY


def test_an_idle_model_makes_no_room_in_the_queue_of_a_busy_one() -> None:
    serving = worker(CHAT, capability("code", "coder"), queue_max=1)
    accepted(ask(serving, b"a1"))
    accepted(ask(serving, b"a2"))
    assert refusal(ask(serving, b"a3"))[0] is errors.BUSY
    assert begun(ask(serving, b"a4", skill="code")), "while the idle one takes what is for it"


def test_this_nodes_own_user_comes_first_and_others_in_turn() -> None:
    serving = worker()
    for name, sender in ((b"a1", BOB), (b"a2", BOB), (b"a3", CYD), (b"own1", ADA), (b"own2", ADA)):
        ask(serving, name, sender)
    order = []
    attempt = A1
    for _ in range(4):
        [attempt] = begun(serving.finished(attempt, USAGE, NOW))
        order.append(attempt)
    assert order == [b"own1", b"own2", b"a3", b"a2"], "cyd has not had a turn yet"


def test_strangers_cannot_fill_the_queue_of_this_nodes_own_user() -> None:
    serving = worker(queue_max=2)
    for name in (b"a1", b"a2", b"a3"):
        accepted(ask(serving, name))
    for name in (b"own1", b"own2"):
        accepted(ask(serving, name, sender=ADA))
    assert refusal(ask(serving, b"own3", sender=ADA))[0] is errors.BUSY
    assert refusal(ask(serving, b"a4"))[0] is errors.BUSY


# --- Pieces and ends ----------------------------------------------------------------------------------------------------


def test_pieces_are_numbered_without_gaps() -> None:
    serving = worker()
    ask(serving, b"a1")
    sent = [*serving.generated(A1, "one"), *serving.generated(A1, ""), *serving.generated(A1, "two")]
    assert sent == [Send(BOB, TaskPiece(A1, 0, "one")), Send(BOB, TaskPiece(A1, 1, "two"))]


def test_long_pieces_are_split_within_their_bound() -> None:
    serving = worker()
    ask(serving, b"a1")
    text = "é🦜x" * 5_000
    pieces = [effect.message for effect in serving.generated(A1, text)]
    assert "".join(piece.text for piece in pieces) == text
    assert [piece.index for piece in pieces] == list(range(len(pieces)))
    assert all(0 < len(piece.text.encode()) <= lim.PIECE_BYTES_MAX for piece in pieces)
    serving.generated(A1, "end")
    [finished] = serving.finished(A1, USAGE, NOW)
    assert finished.message.pieces == len(pieces) + 1


def test_half_a_character_is_replaced_and_ends_nothing() -> None:
    """Python's JSON reads half a surrogate pair as text; UTF-8 cannot carry it."""
    serving = worker()
    ask(serving, b"a1")
    [piece] = serving.generated(A1, "a\ud83db")
    assert piece.message.text == "a?b"
    [told] = serving.failed(A1, errors.BACKEND_FAILED, "no file \udcff", NOW)
    assert told.message.reason == "no file ?"


def test_a_finished_attempt_tells_what_was_done() -> None:
    serving = worker()
    ask(serving, b"a0")
    ask(serving, b"a1", at=NOW)
    serving.finished(AttemptId(b"a0"), USAGE, NOW + 0.25)
    serving.generated(A1, "text")
    assert serving.finished(A1, USAGE, NOW + 3) == [Send(BOB, TaskFinished(A1, 1, "stop", 10, 21, 250, 500, 2500))]
    assert (serving.served, serving.load()) == (2, (1, 0, 0))


@pytest.mark.parametrize(("seconds", "milliseconds"), [(-1.0, 0), (1e9, lim.DEADLINE_MS_MAX)])
def test_times_stay_within_the_bounds_of_the_wire(seconds: float, milliseconds: int) -> None:
    serving = worker()
    ask(serving, b"a1")
    [finished] = serving.finished(A1, replace(USAGE, total_s=seconds), NOW)
    assert finished.message.total_ms == milliseconds


def test_a_model_that_fails_is_told_and_makes_room() -> None:
    serving = worker()
    ask(serving, b"a1")
    ask(serving, b"a2")
    effects = serving.failed(A1, errors.BACKEND_FAILED, "out of memory " * 40, NOW)
    assert effects[0].message.code == errors.BACKEND_FAILED.number
    assert effects[0].message.reason.startswith("out of memory")
    assert len(effects[0].message.reason) == lim.REASON_BYTES_MAX
    assert begun(effects) == [A2]


def test_a_long_reason_is_cut_by_its_bytes() -> None:
    serving = worker()
    ask(serving, b"a1")
    [told] = serving.failed(A1, errors.BACKEND_FAILED, "🦜" * lim.REASON_BYTES_MAX, NOW)
    assert told.message.reason == "🦜" * (lim.REASON_BYTES_MAX // 4)


def test_what_a_model_says_of_unknown_attempts_is_ignored() -> None:
    serving = worker()
    assert serving.generated(A1, "text") == []
    assert serving.finished(A1, USAGE, NOW) == []
    assert serving.failed(A1, errors.BACKEND_FAILED, "", NOW) == []
    assert serving.cancelled(BOB, A1, NOW) == []
    assert serving.deadline_passed(ServiceDeadlinePassed(A1), NOW) == []
    assert serving.served == 0


# --- Stops: cancelled, out of time, or nobody left to hear -----------------------------------------------------------------


def test_a_running_attempt_is_stopped_and_closed_when_its_model_has_ended() -> None:
    serving = worker()
    ask(serving, b"a1")
    ask(serving, b"a2")
    assert serving.cancelled(BOB, A1, NOW) == [StopGenerating(A1)]
    assert serving.load() == (1, 1, 1), "its slot is taken until the model has ended"
    assert serving.generated(A1, "late") == []
    effects = serving.failed(A1, errors.BACKEND_FAILED, "interrupted", NOW)
    assert effects[0] == failed(BOB, A1, errors.CANCELLED), "why it was stopped counts, not how it ended"
    assert begun(effects) == [A2]


def test_a_model_that_finishes_while_it_is_stopped_closes_as_cancelled() -> None:
    serving = worker()
    ask(serving, b"a1")
    serving.cancelled(BOB, A1, NOW)
    assert serving.finished(A1, USAGE, NOW) == [failed(BOB, A1, errors.CANCELLED)]
    assert serving.served == 0


def test_a_waiting_attempt_is_closed_at_once() -> None:
    serving = worker()
    ask(serving, b"a1")
    ask(serving, b"a2")
    assert serving.cancelled(BOB, A2, NOW) == [failed(BOB, A2, errors.CANCELLED)]
    assert serving.load() == (1, 1, 0)


@pytest.mark.parametrize("attempt", [A1, A2], ids=["running", "waiting"])
def test_only_the_requester_cancels(attempt: AttemptId) -> None:
    serving = worker()
    ask(serving, b"a1")
    ask(serving, b"a2")
    assert serving.cancelled(CYD, attempt, NOW) == []
    assert serving.load() == (1, 1, 1)


def test_a_second_reason_to_stop_changes_nothing() -> None:
    serving = worker()
    ask(serving, b"a1")
    assert serving.deadline_passed(ServiceDeadlinePassed(A1), NOW + 30) == [StopGenerating(A1)]
    assert serving.cancelled(BOB, A1, NOW + 30) == []
    assert serving.deadline_passed(ServiceDeadlinePassed(A1), NOW + 31) == []
    assert serving.failed(A1, errors.CANCELLED, "", NOW + 31) == [failed(BOB, A1, errors.DEADLINE_EXCEEDED)]


def test_time_runs_out_in_the_queue_too() -> None:
    serving = worker()
    ask(serving, b"a1")
    ask(serving, b"a2")
    assert serving.deadline_passed(ServiceDeadlinePassed(A2), NOW + 30) == [failed(BOB, A2, errors.DEADLINE_EXCEEDED)]


def test_work_for_a_requester_that_is_gone_stops_in_silence() -> None:
    serving = worker()
    for name, sender in ((b"a1", BOB), (b"a2", BOB), (b"a3", CYD)):
        ask(serving, name, sender)
    assert serving.requester_lost(BOB, NOW) == [StopGenerating(A1)]
    assert serving.load() == (1, 1, 1)
    assert serving.failed(A1, errors.CANCELLED, "", NOW) == [Generate(request(b"a3"), "smollm2")]


def test_a_requester_that_is_lost_after_its_cancel_hears_nothing() -> None:
    serving = worker()
    ask(serving, b"a1")
    serving.cancelled(BOB, A1, NOW)
    assert serving.requester_lost(BOB, NOW) == []
    assert serving.failed(A1, errors.CANCELLED, "", NOW) == []


# --- Models that come and go ----------------------------------------------------------------------------------------------


def test_what_waits_for_a_model_that_is_gone_fails_and_what_runs_ends_by_itself() -> None:
    serving = worker()
    ask(serving, b"a1")
    ask(serving, b"a2")
    assert serving.offer((), NOW) == [failed(BOB, A2, errors.BACKEND_FAILED, "the model is gone")]
    assert serving.load() == (0, 1, 0)
    assert [type(effect.message) for effect in serving.finished(A1, USAGE, NOW)] == [TaskFinished]


def test_more_slots_begin_more_at_once() -> None:
    serving = worker()
    for name in (b"a1", b"a2", b"a3"):
        ask(serving, name)
    assert begun(serving.offer((replace(CHAT, slots=3),), NOW)) == [A2, A3]


def test_fewer_slots_interrupt_nothing() -> None:
    serving = worker(replace(CHAT, slots=2))
    for name in (b"a1", b"a2", b"a3"):
        ask(serving, name)
    assert serving.offer((CHAT,), NOW) == []
    assert begun(serving.finished(A1, USAGE, NOW)) == []
    assert begun(serving.finished(A2, USAGE, NOW)) == [A3]


def test_a_model_that_has_left_memory_holds_no_instructions() -> None:
    serving = worker(replace(CHAT, slots=3), capability("summarize", "other", slots=2))
    for sender, name in ((BOB, b"a1"), (CYD, b"a2")):
        ask(serving, name, sender, turns=(Turn("system", "Be brief. " * 99), Turn("user", "Hi")))
    assert len(serving.prefixes()) == 1
    serving.offer((CHAT,), NOW, frozenset({"other"}))
    assert len(serving.prefixes()) == 1
    serving.offer((CHAT,), NOW, frozenset({"smollm2"}))
    assert serving.prefixes() == ()


def test_peers_at_work_are_named() -> None:
    serving = worker()
    ask(serving, b"a1", BOB)
    ask(serving, b"a2", CYD)
    assert serving.requesters() == [BOB, CYD]


def test_a_model_without_slots_is_not_offered() -> None:
    """It would keep every promise waiting until its deadline."""
    serving = worker(replace(CHAT, slots=0))
    assert refusal(ask(serving, b"a1"))[0] is errors.NO_SUCH_CAPABILITY


# --- Demands ----------------------------------------------------------------------------------------------------------


def test_a_demand_is_met_by_a_model_that_can_or_refused_by_name() -> None:
    """[CND-2]"""
    plain, able = capability("chat", "small", tokens_per_second=90.0), capability("chat", "large", features=("schema", "logprobs"))
    serving = worker(plain, able)
    assert begun(ask(serving, b"a1", demands=Demands(schema="{}"))) == [A1]
    assert serving.requested(BOB, request(b"a2", demands=Demands(logprobs=1)), NOW)[0].message.model == "large"
    assert refusal(ask(serving, b"a3", demands=Demands(options=("a",)))) == (
        errors.NO_SUCH_CAPABILITY, "chat with options is not offered here",
    )  # fmt: skip


def test_log_probabilities_travel_in_parts_that_fit() -> None:
    serving = worker()
    whole = AttemptId(b"a" * 16)
    ask(serving, whole)
    likely = Logprob(b"a", -0.5, tuple(Alternative(b"x" * 500, -1.0) for _ in range(20)))
    sent = [effect.message for effect in serving.generated(whole, "text", (1, 2, 3), (likely, likely, likely))]
    assert [len(piece.logprobs) for piece in sent] == [2, 1]
    assert [piece.text for piece in sent] == ["text", ""]
    assert [piece.tokens for piece in sent] == [(), (1, 2, 3)], "the tokens come with the last, when their text is complete"
    assert all(len(encode(piece)) <= lim.BODY_BYTES_MAX for piece in sent)
    [alone] = serving.generated(whole, "", (), (likely,))
    assert (alone.message.text, alone.message.index) == ("", 2)


# --- The owner wants the machine --------------------------------------------------------------------------------------


def test_a_reserved_node_works_for_its_owner_alone() -> None:
    """[CND-2] What runs ends by itself; peers who wait, and those who come, are sent away."""
    serving = worker()
    ask(serving, b"a1")
    ask(serving, b"a2")
    [gone] = serving.reserve(True, NOW)
    assert (gone.message.code, gone.message.reason) == (errors.DRAINING.number, "its owner is using the machine")
    assert refusal(ask(serving, b"a3")) == (errors.DRAINING, "its owner is using the machine")
    assert serving.load()[1] == 1, "the first goes on"
    assert isinstance(ask(serving, b"a4", sender=ADA)[0].message, TaskAccepted)
    serving.reserve(False, NOW)
    assert isinstance(ask(serving, b"a5")[0].message, TaskAccepted)
