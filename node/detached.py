"""Tasks that nobody waits for: they run until they have ended, over restarts of the node, and their answers are in the journal."""

import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

import trio

from node.desk import AskEnded, AskItem
from node.recording import Recorder
from node.store import requests
from node.store.journal import Entry, JournalError
from protocol import errors
from protocol.errors import ErrorCode
from protocol.parts import TaskId
from swarm.values import Task

log = logging.getLogger(__name__)

RUNNING_MAX = 64  # A quarter of the member's `tasks_max`: whoever waits at a terminal finds room.
OPEN_MAX = 1024  # With those that wait for their turn; they are on the disk, so this bounds only this process.
RUNS_MAX = 3  # A task during which the node has crashed so often may be why.
AGAIN_S = 2.0  # Before the next try while nobody able is known: after a start it takes a moment to meet the others.
AGAIN_MAX_S = 30.0  # The wait doubles up to this.
WAITED_FOR = (errors.NO_CAPABLE_PEER, errors.TOO_MANY_TASKS)  # What time may heal; everything else is an end.

Ask = Callable[[Task], AbstractAsyncContextManager[trio.MemoryReceiveChannel[AskItem]]]


class Refused(Exception):
    """A task cannot be detached now; the message says why and what to do."""


class Detached:
    """Runs such tasks. All methods are called from the node's own trio loop."""

    def __init__(self, ask: Ask, recorder: Recorder) -> None:
        self._ask, self._recorder = ask, recorder
        self._limiter = trio.CapacityLimiter(RUNNING_MAX)
        self._open = 0
        self._left: list[Entry] = []
        self._nursery: trio.Nursery | None = None

    async def recover(self) -> None:
        """Learn what an earlier run of the node has left. Before anything is asked, or new tasks would look like old ones."""
        self._left = await self._recorder.left_open()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Go on with what was left, and with what is begun, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for entry in self._left:
                self._go_on(entry)
            self._left.clear()
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None

    async def begin(self, task: Task, batch: str = "", item: str = "") -> tuple[str, str]:
        """The id and state of the task, once it is on the disk. Raises Refused.

        An item of a batch that is under way or done, and whose answer is kept, is not asked a second time.
        """
        if not self._recorder.on:
            raise Refused("this node keeps no journal (journal.entries_max is 0), so it cannot hold a task for later")
        if batch:
            try:
                earlier = await self._recorder.of_item(batch, item)
            except JournalError as error:
                raise Refused(f"the journal cannot be read: {error}") from None
            if earlier is not None and earlier.state in ("open", "done"):
                return earlier.id.hex(), earlier.state
        if self._nursery is None:
            raise Refused("this node is only just starting, or stops")
        if self._open >= OPEN_MAX:
            raise Refused(f"{self._open} tasks wait already; try again when some have ended")
        self._open += 1
        begun = self._recorder.begin(task, detached=True, batch=batch, item=item)
        with trio.CancelScope(shield=True):  # For COMMIT_S at most. Whoever leaves meanwhile has handed it in all the same.
            await begun.wait()
        if not begun.kept:
            self._open -= 1
            self._recorder.take_back(task.id)
            raise Refused(self._recorder.trouble or "the disk did not take the task in time")
        self._start(task)
        return task.id.hex(), "open"

    def _start(self, task: Task) -> None:
        if self._nursery is not None:
            self._nursery.start_soon(self._work, task)
        else:  # The node has stopped meanwhile; its next run goes on with it.
            self._open -= 1
            self._recorder.leave_open(task.id)

    def _go_on(self, entry: Entry) -> None:
        if entry.runs >= RUNS_MAX:
            self._recorder.give_up(entry, f"the node has crashed {entry.runs} times while it worked on this")
            return
        try:
            task = requests.unpack(TaskId(entry.id), entry.request)
        except ValueError as error:
            self._recorder.give_up(entry, f"the request cannot be read: {error}")
            return
        self._open += 1
        self._recorder.go_on(task, entry)
        log.info("task %s: asked again, as an earlier run of this node has not finished it", task.id.hex())
        self._start(task)

    async def _work(self, task: Task) -> None:
        try:
            async with self._limiter:
                self._recorder.count_run(task.id)
                ended = await self._answered(task)
        except trio.Cancelled:
            self._recorder.leave_open(task.id)
            raise
        finally:
            self._open -= 1
        if ended is errors.SHUTTING_DOWN:
            self._recorder.leave_open(task.id)
        else:
            self._recorder.close(task.id)

    async def _answered(self, task: Task) -> ErrorCode | None:
        """Ask until somebody able was found, or the time is over."""
        until = trio.current_time() + task.deadline_s
        again_s = AGAIN_S
        while True:
            ended = await self._asked(replace(task, deadline_s=max(0.001, until - trio.current_time())))
            left_s = until - trio.current_time()
            if ended not in WAITED_FOR or left_s <= AGAIN_S:
                return ended
            await trio.sleep(min(again_s, left_s - AGAIN_S))
            again_s = min(2 * again_s, AGAIN_MAX_S)
            self._recorder.reopen(task.id)

    async def _asked(self, task: Task) -> ErrorCode | None:
        async with self._ask(task) as items:
            async for item in items:
                if isinstance(item, AskEnded):
                    return item.code
        return errors.SHUTTING_DOWN  # The channel ended without an end: so does the node.
