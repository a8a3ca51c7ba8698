"""Writes every task of this node's users into the journal, without making the node's loop wait for the disk.

Changes gather while the disk is busy and go there together, with one fsync for all of them; of each task only its latest state.
A journal that cannot be written is told of and tried again; tasks are answered all the same.
"""

import logging
import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TypeVar

import msgspec
import trio

from node.answers import unfinished_view
from node.store import requests
from node.store.journal import Entry, Journal, JournalError
from node.views import AnswerView, RouteView, TaskView, TraceView
from protocol import errors
from protocol.parts import TaskId
from swarm.values import Privacy, Task

log = logging.getLogger(__name__)

COMMIT_S = (
    5.0  # A disk that takes longer for one fsync is as good as broken: the user gets the answer, and doctor says why.
)
GATHER_S = 0.05  # What nobody waits for, such as the end of a task, waits so long for a begin to share its fsync with.
PENDING_MAX = 1024  # Tasks whose latest state is not on the disk yet; whoever asks then waits for room.
RETRY_S = 10.0  # What could not be written is tried again with the next task, or after this time.
PRUNE_S = 3600.0
PRUNE_AFTER = 256  # Entries written since the last pruning.
BEGINS_CHARACTERS = 80  # Of the question, for `swarm history`.
CANDIDATES_KEPT = 32  # Of each choice, besides those drawn: a journal is not the place for views of a thousand workers.

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(AnswerView).decode
_Found = TypeVar("_Found")


class Commit:
    """Something on its way to the disk. `kept` is whether it got there, once `wait` has returned."""

    def __init__(self) -> None:
        self._event = trio.Event()
        self.kept = False

    def settle(self, kept: bool) -> None:
        self.kept = kept
        self._event.set()

    async def wait(self) -> None:
        """Until it is there, or is known not to be, or the disk is too slow to wait for."""
        with trio.move_on_after(COMMIT_S):
            await self._event.wait()

    async def wait_ended(self) -> None:
        await self._event.wait()


@dataclass(eq=False, slots=True)
class _Open:
    task: Task
    entry: Entry  # As it is open,
    keeps_text: bool
    begun: Commit
    last: Entry | None = None  # and as it has ended, until it is closed or begun once more.
    ended: Commit = field(default_factory=Commit)
    texts: list[str] = field(default_factory=list)


class Recorder:
    """The journal as the node uses it. All methods are called from the node's own trio loop; without a journal they do nothing."""

    def __init__(self, journal: Journal | None, wall_ms: Callable[[], int], *, texts: bool) -> None:
        """`texts`: keep what was asked and answered; of private and of detached tasks see `begin`. `wall_ms` is Unix time."""
        self._journal, self._wall_ms, self._texts = journal, wall_ms, texts
        self._open: dict[TaskId, _Open] = {}
        self._pending: dict[TaskId, Entry] = {}
        self._commits: list[Commit] = []
        self._wanted = trio.Event()  # Something is to be written,
        self._urgent = trio.Event()  # and somebody waits for it.
        self._room = trio.Condition()
        self._one_at_a_time = trio.CapacityLimiter(1)
        self._written = 0
        self._writing_since: float | None = None
        self._failing = ""
        self._writing = trio.CancelScope()
        self._patience_ends = math.inf  # Once the node stops, a disk that hangs does not keep it for longer.

    @property
    def on(self) -> bool:
        return self._journal is not None

    @property
    def trouble(self) -> str:
        """What is wrong with the journal, for people; empty if nothing is."""
        if self._journal is None:
            return ""
        return self._failing or self._slow or self._journal.lost

    @property
    def _slow(self) -> str:
        since = self._writing_since
        if since is None or trio.current_time() - since < COMMIT_S:
            return ""
        return f"the disk has not taken the journal for {trio.current_time() - since:.0f} s; tasks are answered all the same"

    # --- What happens to a task ---------------------------------------------------------------------------------------

    async def wait_room(self) -> None:
        """Until one more task can be begun. Returns at once unless the disk is far behind."""
        while len(self._pending) >= PENDING_MAX and not self._failing and not self._slow:
            async with self._room:
                await self._room.wait()

    def begin(self, task: Task, *, detached: bool = False, batch: str = "", item: str = "") -> Commit:
        """A task is asked for. One that is open already, because it was detached, is left as it is.

        What was asked and answered is not kept of a task that may not leave this node, unless it is detached: then the journal
        is where its answer is fetched from.
        """
        if task.id in self._open:
            return self._open[task.id].begun
        begun = Commit()
        if self._journal is None:
            begun.settle(False)
            return begun
        keeps_text = detached or (self._texts and task.privacy is not Privacy.LOCAL)
        entry = Entry(
            task.id, self._wall_ms(), "open", task.skill, task.model, task.privacy.value, detached, batch, item,
            0 if detached else 1, "", "", "", "", "", 0, 0, None, None,
            first_words(task) if keeps_text else "",
            requests.pack(task) if keeps_text else b"",
            _encode(unfinished_view(task, [])),
            "",
        )  # fmt: skip
        self._open[task.id] = _Open(task, entry, keeps_text, begun)
        self._put(entry, begun, urgent=True)
        if self._failing or self._slow:
            # Nobody shall wait for a disk that is known to be broken; a detached task does, since it would be lost.
            return begun if detached else _settled()
        return begun

    def routed(self, task: Task, routes: Sequence[RouteView]) -> None:
        """A worker was chosen once more. Nobody waits for this to be written."""
        opened = self._open.get(task.id)
        if opened is not None:
            account = _encode(unfinished_view(task, [_shortened(route) for route in routes]))
            opened.entry = replace(opened.entry, account=account)
            self._put(opened.entry)

    def said(self, task: TaskId, text: str) -> None:
        opened = self._open.get(task)
        if opened is not None and opened.keeps_text:
            opened.texts.append(text)

    def ended(self, task: Task, answer: AnswerView) -> None:
        """It has concluded. A detached task is closed by whoever runs it, with `close`; another one is by this."""
        opened = self._open.get(task.id)
        if opened is None:
            return
        answer = replace(answer, routes=[_shortened(route) for route in answer.routes])
        opened.last = replace(
            opened.entry, state=_state(answer.code), code=answer.code, reason=answer.reason, node=answer.node,
            name=answer.name, model=answer.model, tokens_in=answer.tokens_in, tokens_out=answer.tokens_out,
            first_piece_s=answer.first_piece_s, seconds=answer.seconds, account=_encode(answer), text="".join(opened.texts),
        )  # fmt: skip
        if not opened.entry.detached:
            self.close(task.id)

    def reopen(self, task: TaskId) -> None:
        """A detached task that has concluded is begun once more; what came of it before is forgotten."""
        opened = self._open.get(task)
        if opened is not None:
            opened.last = None
            opened.texts.clear()

    def close(self, task: TaskId) -> None:
        """The end that was told is the last word."""
        opened = self._open.pop(task, None)
        if opened is not None:
            self._put(opened.last or opened.entry, opened.ended, urgent=opened.entry.detached)

    def leave_open(self, task: TaskId) -> None:
        """This run of the node is over, and the next one goes on with the task.

        The run counts only if the task was under way to the last: a node that stops, other than one that crashes, ends it first.
        """
        opened = self._open.pop(task, None)
        if opened is not None and opened.last is not None and opened.last.code != errors.CANCELLED.name:
            self._put(replace(opened.entry, runs=opened.entry.runs - 1))

    def take_back(self, task: TaskId) -> None:
        """The user was told that a detached task is not on the disk; should it get there still, it is not run."""
        opened = self._open.pop(task, None)
        if opened is not None:
            self._put(replace(opened.entry, state="cancelled", reason="the disk was too slow"), opened.ended)

    # --- What is asked about tasks ------------------------------------------------------------------------------------

    async def history(self, count: int, batch: str = "") -> list[TaskView]:
        """The newest first. Raises JournalError."""
        if self._journal is None:
            return []
        journal = self._journal
        await self._flush()
        return [task_view(entry) for entry in await self._in_thread(lambda: journal.newest(count, batch))]

    async def trace(self, prefix: str, wait_s: float = 0.0) -> list[TraceView]:
        """The tasks whose id begins so, at most two. One that is open is waited for. Raises JournalError."""
        if self._journal is None:
            return []
        journal = self._journal
        await self._flush()
        found = await self._in_thread(lambda: journal.find(prefix))
        if wait_s > 0 and len(found) == 1 and found[0].state == "open":
            opened = self._open.get(TaskId(found[0].id))
            with trio.move_on_after(wait_s):
                # If it is not open any more, its end is on the way to the disk.
                await (opened.ended.wait_ended() if opened else self._flush())
            found = await self._in_thread(lambda: journal.find(prefix))
        return [_trace_view(entry) for entry in found]

    async def of_item(self, batch: str, item: str) -> Entry | None:
        """The latest task of an item of a batch. Raises JournalError."""
        if self._journal is None:
            return None
        journal = self._journal
        await self._flush()
        found = await self._in_thread(lambda: journal.of_item(batch, item))
        for opened in self._open.values():  # Last, since another may have begun it meanwhile.
            if (opened.entry.batch, opened.entry.item) == (batch, item):
                return opened.entry
        return found

    async def answers(self, batch: str) -> dict[str, str]:
        """What was answered under a batch, by item, as far as texts are kept. Raises JournalError."""
        if self._journal is None:
            return {}
        journal = self._journal
        await self._flush()
        return await self._in_thread(lambda: journal.answers(batch))

    async def left_open(self) -> list[Entry]:
        """What an earlier run of the node has not finished; those that were not detached are interrupted by this.

        To be called before the first `begin`.
        """
        if self._journal is None:
            return []
        journal = self._journal
        try:
            entries = await self._in_thread(journal.open_entries)
        except JournalError as error:
            self._tell_failure(str(error))
            return []
        for entry in entries:
            if not entry.detached:
                self._put(replace(entry, state="interrupted", reason="the node ended before the answer was complete"))
        return [entry for entry in entries if entry.detached]

    def go_on(self, task: Task, entry: Entry) -> None:
        """A detached task of an earlier run will be begun again."""
        self._open[task.id] = _Open(task, entry, True, _settled())

    def count_run(self, task: TaskId) -> None:
        """A detached task is begun now. Its asker, for whom `begin` does nothing, waits until the count is on the disk."""
        opened = self._open[task]
        opened.entry, opened.begun = replace(opened.entry, runs=opened.entry.runs + 1), Commit()
        self._put(opened.entry, opened.begun, urgent=True)

    def give_up(self, entry: Entry, reason: str) -> None:
        """An entry of an earlier run will not be gone on with."""
        self._put(replace(entry, state="interrupted", reason=reason))

    # --- The disk -----------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Writes while the block runs, and at its end what is left. The rest of the node runs inside."""
        async with trio.open_nursery() as nursery:
            if self._journal is not None:
                nursery.start_soon(self._keep_writing, self._journal)
            try:
                yield
            finally:
                self._patience_ends = self._writing.deadline = trio.current_time() + COMMIT_S
            nursery.cancel_scope.cancel()

    async def _keep_writing(self, journal: Journal) -> None:
        pruned_at = -math.inf
        try:
            while True:
                if trio.current_time() - pruned_at >= PRUNE_S or self._written >= PRUNE_AFTER:
                    await self._prune(journal)
                    pruned_at, self._written = trio.current_time(), 0
                with trio.move_on_after(RETRY_S if self._failing else PRUNE_S):
                    await self._wanted.wait()
                with trio.move_on_after(GATHER_S):
                    await self._urgent.wait()
                self._writing = trio.CancelScope(shield=True, deadline=self._patience_ends)
                with self._writing:  # Half a write is none, and those who wait for it must hear.
                    await self._write(journal)
        finally:
            with trio.CancelScope(shield=True, deadline=min(self._patience_ends, trio.current_time() + COMMIT_S)):
                for opened in list(self._open.values()):
                    if not opened.entry.detached:
                        self._put(replace(opened.entry, state="interrupted", text="".join(opened.texts)))
                await self._write(journal)
                await self._in_thread(journal.close)

    def _put(self, entry: Entry, commit: Commit | None = None, *, urgent: bool = False) -> None:
        self._pending[TaskId(entry.id)] = entry
        if commit is not None:
            self._commits.append(commit)
        self._wanted.set()
        if urgent:
            self._urgent.set()

    async def _write(self, journal: Journal) -> None:
        pending, commits = self._pending, self._commits
        self._pending, self._commits = {}, []
        self._wanted, self._urgent = trio.Event(), trio.Event()
        self._writing_since = trio.current_time()
        try:
            if pending:
                await self._in_thread(lambda: journal.write(list(pending.values())))
                self._written += len(pending)
                self._tell_failure("")
        except JournalError as error:
            self._tell_failure(str(error))
            # The newest of them are tried again; what has changed meanwhile wins.
            self._pending = {**dict(list(pending.items())[-PENDING_MAX:]), **self._pending}
        self._writing_since = None
        for commit in commits:
            commit.settle(not self._failing)
        async with self._room:
            self._room.notify_all()

    async def _prune(self, journal: Journal) -> None:
        try:
            gone = await self._in_thread(lambda: journal.prune(self._wall_ms()))
        except JournalError as error:
            self._tell_failure(str(error))
        else:
            if gone:
                log.info("the journal has let %d old tasks go", gone)

    async def _flush(self) -> None:
        """Until all that was told before is on the disk, or is known not to be."""
        if self._pending:
            written = Commit()
            self._commits.append(written)
            self._wanted.set()
            self._urgent.set()
            await written.wait()

    async def _in_thread(self, work: Callable[[], _Found]) -> _Found:
        return await trio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._one_at_a_time)

    def _tell_failure(self, cause: str) -> None:
        if cause and not self._failing:
            log.error("tasks are answered but not recorded: %s", cause)
        elif self._failing and not cause:
            log.info("tasks are recorded again")
        self._failing = cause and f"tasks are answered but not recorded: {cause}"


def _settled() -> Commit:
    commit = Commit()
    commit.settle(False)
    return commit


def _state(code: str) -> str:
    if not code:
        return "done"
    return {errors.CANCELLED.name: "cancelled", errors.SHUTTING_DOWN.name: "interrupted"}.get(code, "failed")


def first_words(task: Task) -> str:
    """The beginning of the last turn, on one line."""
    return " ".join(task.turns[-1].text[: 4 * BEGINS_CHARACTERS].split())[:BEGINS_CHARACTERS]


def _shortened(route: RouteView) -> RouteView:
    """With those who were drawn, and some of the others."""
    if len(route.candidates) <= CANDIDATES_KEPT and len(route.excluded) <= CANDIDATES_KEPT:
        return route
    first = route.candidates[:CANDIDATES_KEPT]
    more = [found for found in route.candidates[CANDIDATES_KEPT:] if found.drawn or found.chosen]
    return replace(route, candidates=[*first, *more], excluded=route.excluded[:CANDIDATES_KEPT])


def task_view(entry: Entry) -> TaskView:
    """The entry on one line."""
    return TaskView(
        task=entry.id.hex(), asked_at_ms=entry.asked_at_ms, state=entry.state, skill=entry.skill, wanted=entry.wanted,
        privacy=entry.privacy, detached=entry.detached, batch=entry.batch, item=entry.item, code=entry.code,
        reason=entry.reason, node=entry.node, name=entry.name, model=entry.model, tokens_in=entry.tokens_in,
        tokens_out=entry.tokens_out, first_piece_s=entry.first_piece_s, seconds=entry.seconds, begins=entry.begins,
    )  # fmt: skip


def _trace_view(entry: Entry) -> TraceView:
    asked = ""
    if entry.request:
        try:
            asked = requests.unpack(TaskId(entry.id), entry.request).turns[-1].text
        except ValueError:
            asked = entry.begins
    return TraceView(task_view(entry), asked, entry.text, _decode(entry.account))
