"""Several tasks of one request: how long they may take together."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import trio

from node.api.errors import ApiError
from node.api.gathering import AT_ONCE_MAX, gather_alike, gather_all
from node.desk import AskText
from protocol import errors as codes
from protocol.parts import Sampling, TaskId, Turn
from swarm.values import Privacy, Task
from tests.node.api.scripted_desk import ScriptedDesk, Step, done, failed

TAKES_S = 1.0
SOON = Task(TaskId(b"\x01" * 16), "embed", (Turn("user", "?"),), "", 1, Sampling(), (), 600.0, Privacy.SWARM, None)


class SlowDesk(ScriptedDesk):
    """Each task takes a second, or as long as it has."""

    def ask(self, task: Task):
        over = trio.Event()

        async def pass_time() -> None:
            await trio.sleep(min(TAKES_S, task.deadline_s))
            over.set()

        assert self._nursery is not None
        self._nursery.start_soon(pass_time)
        self.answers = lambda task: [over, *self._end(task)]
        return super().ask(task)

    def _end(self, task: Task) -> Sequence[Step]:
        return [failed(task, codes.DEADLINE_EXCEEDED)] if task.deadline_s < TAKES_S else [AskText("[1]"), done(task)]


def tasks(count: int) -> list[Task]:
    return [replace(SOON, id=TaskId(number.to_bytes(16, "big"))) for number in range(count)]


@pytest.mark.parametrize("gather", [gather_all, gather_alike])
async def test_several_tasks_have_no_more_time_together_than_the_request_gives(
    gather: object, autojump_clock: trio.testing.MockClock
) -> None:
    async with SlowDesk().opened() as desk:
        began = trio.current_time()
        several = [replace(task, deadline_s=2.5) for task in tasks(5 * AT_ONCE_MAX)]  # As `make_task` does it.
        with pytest.raises(ApiError) as passed:
            await gather(desk, several, 2.5)
        assert (passed.value.code, trio.current_time() - began) == ("deadline_exceeded", pytest.approx(2.5))
        assert {2.5, 1.5, 0.5} <= {round(task.deadline_s, 3) for task in desk.asked}
        assert len(await gather(desk, tasks(2 * AT_ONCE_MAX), 3.5)) == 2 * AT_ONCE_MAX


async def test_without_a_time_for_all_each_has_its_own(autojump_clock: trio.testing.MockClock) -> None:
    async with SlowDesk().opened() as desk:
        assert len(await gather_all(desk, tasks(5 * AT_ONCE_MAX), None)) == 5 * AT_ONCE_MAX
        assert {task.deadline_s for task in desk.asked} == {600.0}
