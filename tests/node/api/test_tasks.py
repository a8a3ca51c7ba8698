"""Tasks from requests: defaults, clamps, and the exact edge of what the wire carries."""

from dataclasses import replace

import pytest

from node.api.errors import ApiError
from node.api.names import Wanted
from node.api.tasks import Service, Wishes, make_task
from protocol import limits as lim
from protocol.codec import encode
from protocol.messages import TaskRequest
from protocol.parts import AttemptId, Demands, FunctionCall, Sampling, Turn
from swarm.values import PROMPT_BYTES_MAX, TURN_OVERHEAD_BYTES, Privacy, Task
from tests.node.api.scripted_desk import ScriptedDesk, without_journal

CHAT = Wanted("chat", "", None)
HELLO = [Turn("user", "hello")]


def make(turns=HELLO, wanted=CHAT, **wishes) -> Task:
    desk = ScriptedDesk()
    service = Service(desk, 45.0, lambda size: b"\x07" * size, 0, *without_journal(desk))
    return make_task(service, wanted, turns, Wishes(**wishes))


def on_the_wire(task: Task) -> bytes:
    return encode(
        TaskRequest(
            AttemptId(b"\x01" * 16), task.id, task.skill, task.model, task.turns, task.tokens_max, task.sampling,
            task.stops, round(task.deadline_s * 1000), demands=task.demands,
        )
    )  # fmt: skip


async def test_task_without_wishes_has_the_defaults() -> None:
    task = make()
    assert task.id == b"\x07" * 16
    assert (task.tokens_max, task.sampling, task.stops) == (512, Sampling(0.7), ())
    assert (task.deadline_s, task.privacy, task.worker) == (45.0, Privacy.SWARM, None)


async def test_wishes_are_kept() -> None:
    task = make(
        tokens_max=9, temperature=0.0, top_p=0.5, seed=11, stops=["a", "", "b"], deadline_s=3.0, privacy="local"
    )
    assert (task.tokens_max, task.sampling, task.stops) == (9, Sampling(0.0, 0.5, seed=11), ("a", "b"))
    assert (task.deadline_s, task.privacy) == (3.0, Privacy.LOCAL)


async def test_more_tokens_than_any_answer_has_are_clamped() -> None:
    assert make(tokens_max=10**12).tokens_max == lim.TOKENS_MAX


@pytest.mark.parametrize(
    ("given", "sent"),
    [(1, 1), (0, 2**32 - 1), (2**32, 2**32 - 1), (-1, 2**32 - 1), (2**32 + 5, 5), (10**30, 10**30 % 2**32)],
)
async def test_every_seed_becomes_one_that_the_wire_knows_and_never_the_workers_choice(given: int, sent: int) -> None:
    assert make(seed=given).sampling.seed == sent
    on_the_wire(make(seed=given))


@pytest.mark.parametrize("stops", [["a"] * 5, ["x" * 65], ["ü" * 33]])
async def test_stops_that_no_wire_can_carry_are_refused(stops: list[str]) -> None:
    with pytest.raises(ApiError) as refused:
        make(stops=stops)
    assert refused.value.param == "stop"


async def test_largest_task_fits_the_wire_and_the_next_byte_is_refused() -> None:
    wanted = Wanted("s" * lim.SKILL_BYTES_MAX, "m" * lim.MODEL_BYTES_MAX, None)
    stops = ["s" * lim.STOP_BYTES_MAX] * lim.STOPS_MAX
    room = PROMPT_BYTES_MAX - 2 * TURN_OVERHEAD_BYTES
    turns = [Turn("assistant", "a" * (room // 2)), Turn("assistant", "b" * (room - room // 2))]
    assert len(on_the_wire(make(turns, wanted, stops=stops, deadline_s=600.0))) <= lim.BODY_BYTES_MAX
    turns[1] = Turn("assistant", turns[1].text + "b")
    with pytest.raises(ApiError) as refused:
        make(turns, wanted)
    assert (refused.value.code, refused.value.status) == ("too_long", 400)


async def test_calls_and_what_came_of_them_count_as_text_does() -> None:
    names = lim.FUNCTION_BYTES_MAX
    calls = [FunctionCall("i" * names, "n" * names, "a" * lim.ARGUMENTS_BYTES_MAX) for _ in range(5)]
    come = Turn("tool", "", (), "c" * names)
    room = PROMPT_BYTES_MAX - Turn("assistant", "", tuple(calls)).size - come.size - 2 * TURN_OVERHEAD_BYTES
    turns = [Turn("assistant", "a" * room, tuple(calls)), come]
    assert len(on_the_wire(make(turns))) <= lim.BODY_BYTES_MAX
    with pytest.raises(ApiError, match="bytes"):
        make([replace(turns[0], text="a" * (room + 1)), come])
    with pytest.raises(ApiError, match="bytes"):
        make([Turn("assistant", "", tuple(calls + calls[:2])), come])


async def test_what_is_demanded_counts_as_well() -> None:
    demands = Demands(schema="s" * lim.FORMAT_BYTES_MAX)
    room = PROMPT_BYTES_MAX - TURN_OVERHEAD_BYTES - lim.FORMAT_BYTES_MAX
    turns = [Turn("user", "a" * min(room, lim.TURN_BYTES_MAX))]
    on_the_wire(make(turns, demands=demands))
    with pytest.raises(ApiError, match="bytes"):
        make([*turns, Turn("user", "a" * (room - lim.TURN_BYTES_MAX + 1))], demands=demands)


async def test_more_candidates_than_the_wire_knows_are_all() -> None:
    assert make(top_k=10**9).sampling.top_k == lim.TOP_K_MAX


async def test_most_turns_fit_the_wire_and_one_more_is_refused() -> None:
    room = PROMPT_BYTES_MAX // lim.TURNS_MAX - TURN_OVERHEAD_BYTES
    turns = [Turn("assistant", "a" * room)] * lim.TURNS_MAX
    on_the_wire(make(turns))
    with pytest.raises(ApiError, match="129 turns"):
        make([*turns, Turn("user", "")])


async def test_one_turn_over_its_own_bound_is_refused_by_bytes_not_characters() -> None:
    on_the_wire(make([Turn("user", "ü" * (lim.TURN_BYTES_MAX // 2))]))
    with pytest.raises(ApiError, match="turn 1 has 65538 bytes"):
        make([Turn("user", ""), Turn("user", "ü" * (lim.TURN_BYTES_MAX // 2 + 1))])


async def test_empty_conversation_is_refused() -> None:
    with pytest.raises(ApiError, match="empty"):
        make([])
