"""The life of one task at its requester, from Asked to exactly one Conclude.

searching -> placed -> accepted -> speaking -> concluded. A refusal or a failure before the first text goes back to choosing at
once; after the first text there is no way back, and the task concludes as broken. Every wait has a timer; a timer whose
attempt is over finds nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

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
)
from swarm.effects import (
    AcceptOverdue,
    AttemptFailed,
    Conclude,
    DeadlinePassed,
    Effect,
    FindProviders,
    Notify,
    PieceOverdue,
    Reply,
    Routed,
    SearchOverdue,
    Send,
    SetTimer,
    WorkerAccepted,
)
from swarm.settings import Settings
from swarm.values import AttemptEnd, Candidate, Outcome, Privacy, Routing, Task, Usage

PIECE_BYTES_COUNTED = 16  # A piece counts for this many bytes at least, or empty ones would never add up.

Choose = Callable[[Task, list[NodeId], float], Routing]
"""Who gets the next attempt of a task, given who was tried and the time."""
Reach = Callable[[NodeId], list[Effect]]
"""What makes a worker reachable before a message is sent to it: a Dial, or nothing."""
Excused = Callable[[float], bool]
"""Whether this node itself was late just now, so that the silence of others proves nothing."""

SILENCE = (errors.UNREACHABLE, errors.ACCEPT_OVERDUE, errors.STALLED, errors.CONNECTION_LOST)


class Experience(Protocol):
    """Remembers how attempts went; `swarm.choosing.standing.Standings` is the real one."""

    def begun(self, node: NodeId, now: float) -> None: ...

    def answered(self, node: NodeId, usage: Usage, first_piece_s: float, now: float) -> None: ...

    def ended(self, node: NodeId, code: ErrorCode, blamed: bool, now: float) -> None: ...


@dataclass(slots=True)
class _Attempt:
    id: AttemptId
    worker: Candidate
    begun_at: float
    accepted: TaskAccepted | None = None
    pieces: int = 0
    bytes: int = 0
    first_piece_at: float | None = None


@dataclass(slots=True)
class _Open:
    task: Task
    asked_at: float
    attempt: _Attempt | None = None  # None: searching.
    searched: bool = False
    tried: list[NodeId] = field(default_factory=list)
    ends: list[AttemptEnd] = field(default_factory=list)
    first_piece_s: float | None = None

    def is_over(self, now: float) -> bool:
        """Whether the time is over. A node that stood still finds answers before it finds the timer that was due before them."""
        return now > self.asked_at + self.task.deadline_s


class Asking:
    """Every task of this node's users that has not ended yet."""

    def __init__(
        self, settings: Settings, dice: Random, choose: Choose, reach: Reach, experience: Experience, excused: Excused
    ) -> None:
        self._settings, self._dice, self._choose, self._reach = settings, dice, choose, reach
        self._experience, self._excused = experience, excused
        self._open: dict[TaskId, _Open] = {}
        self._by_attempt: dict[AttemptId, TaskId] = {}
        self._stopping = False
        self.asked = self.answered = self.failed = 0

    def __len__(self) -> int:
        return len(self._open)

    def workers(self) -> list[NodeId]:
        """Who is at work for this node's users now."""
        return [opened.attempt.worker.node for opened in self._open.values() if opened.attempt is not None]

    # --- The user -----------------------------------------------------------------------------------------------------

    def begin(self, task: Task, now: float) -> list[Effect]:
        self.asked += 1
        if self._stopping or len(self._open) >= self._settings.tasks_max:
            self.failed += 1
            code = errors.SHUTTING_DOWN if self._stopping else errors.TOO_MANY_TASKS
            return [Conclude(task.id, _gave_up(_Open(task, now), code, "", now))]
        opened = self._open[task.id] = _Open(task, now)
        return [SetTimer(task.deadline_s, DeadlinePassed(task.id)), *self._place(opened, now)]

    def cancel(self, task: TaskId, now: float) -> list[Effect]:
        opened = self._open.get(task)
        return [] if opened is None else self._give_up(opened, errors.CANCELLED, "", now)

    def stop(self, now: float) -> list[Effect]:
        """The node is stopping: every task ends now, and none begins any more."""
        self._stopping = True
        effects: list[Effect] = []
        for opened in list(self._open.values()):
            effects += self._give_up(opened, errors.SHUTTING_DOWN, "", now)
        return effects

    # --- The worker ---------------------------------------------------------------------------------------------------

    def accepted(self, sender: NodeId, message: TaskAccepted, now: float) -> list[Effect]:
        opened, attempt = self._find(sender, message.attempt)
        if opened is None or attempt is None:
            return []
        attempt.accepted = message
        bytes_in = sum(len(turn.text) for turn in opened.task.turns)
        limit_s = self._settings.first_piece_limit_s * (1 + message.ahead) + bytes_in / self._settings.input_bytes_per_s
        worker = attempt.worker
        return [
            Notify(WorkerAccepted(opened.task.id, worker.node, worker.name, message.model, message.ahead)),
            SetTimer(limit_s, PieceOverdue(opened.task.id, attempt.id, 0)),
        ]

    def refused(self, sender: NodeId, message: TaskRefused, now: float) -> list[Effect]:
        return self._attempt_over(sender, message.attempt, errors.error_code(message.code), message.reason, now)

    def failed_there(self, sender: NodeId, message: TaskFailed, now: float) -> list[Effect]:
        return self._attempt_over(sender, message.attempt, errors.error_code(message.code), message.reason, now)

    def piece(self, sender: NodeId, message: TaskPiece, now: float) -> list[Effect]:
        opened, attempt = self._find(sender, message.attempt)
        if opened is None or attempt is None:
            return []
        if opened.is_over(now):
            return self._give_up(opened, errors.DEADLINE_EXCEEDED, "", now)
        if message.index != attempt.pieces:
            cancel = Send(sender, TaskCancelled(attempt.id))
            reason = f"piece {message.index} came instead of {attempt.pieces}"
            return [cancel, *self._over(opened, errors.BACKEND_FAILED, reason, now)]
        attempt.pieces += 1
        attempt.bytes += max(PIECE_BYTES_COUNTED, len(message.text.encode()))
        if attempt.bytes > self._settings.answer_bytes_max:
            cancel = Send(sender, TaskCancelled(attempt.id))
            return [cancel, *self._over(opened, errors.BACKEND_FAILED, "the answer has no end", now)]
        if attempt.first_piece_at is None:
            attempt.first_piece_at = now
            opened.first_piece_s = now - opened.asked_at
        return [
            Reply(opened.task.id, message.text),
            SetTimer(self._settings.piece_limit_s, PieceOverdue(opened.task.id, attempt.id, attempt.pieces)),
        ]

    def finished(self, sender: NodeId, message: TaskFinished, now: float) -> list[Effect]:
        opened, attempt = self._find(sender, message.attempt)
        if opened is None or attempt is None:
            return []
        if opened.is_over(now):
            return self._give_up(opened, errors.DEADLINE_EXCEEDED, "", now)
        if message.pieces != attempt.pieces:
            return self._over(opened, errors.BACKEND_FAILED, f"{attempt.pieces} of {message.pieces} pieces came", now)
        usage = Usage(
            message.finish,
            message.tokens_in,
            message.tokens_out,
            message.first_token_ms / 1000,
            message.total_ms / 1000,
        )
        first_at = now if attempt.first_piece_at is None else attempt.first_piece_at
        self._experience.answered(sender, usage, first_at - attempt.begun_at, now)
        self._end_attempt(opened, None, "", now)
        self._close(opened)
        self.answered += 1
        worker = attempt.worker
        model = attempt.accepted.model if attempt.accepted else worker.model
        outcome = Outcome(
            None, "", worker.node, worker.name, model, usage, opened.first_piece_s, now - opened.asked_at,
            tuple(opened.ends),
        )  # fmt: skip
        return [Conclude(opened.task.id, outcome)]

    # --- The world ----------------------------------------------------------------------------------------------------

    def lost(self, node: NodeId, cause: str, now: float) -> list[Effect]:
        """The link with a worker is gone, or could not be made."""
        effects: list[Effect] = []
        for opened in list(self._open.values()):
            if opened.attempt is not None and opened.attempt.worker.node == node:
                code = errors.CONNECTION_LOST if opened.attempt.accepted else errors.UNREACHABLE
                effects += self._over(opened, code, cause, now)
        return effects

    def undelivered(self, attempt: AttemptId, now: float) -> list[Effect]:
        task = self._by_attempt.get(attempt)
        return [] if task is None else self._over(self._open[task], errors.UNREACHABLE, "no link to the worker", now)

    def found(self, now: float) -> list[Effect]:
        """Somebody new is known: tasks that are searching try again."""
        effects: list[Effect] = []
        for opened in [opened for opened in self._open.values() if opened.attempt is None]:
            effects += self._place(opened, now)
        return effects

    # --- Timers -------------------------------------------------------------------------------------------------------

    def accept_overdue(self, timer: AcceptOverdue, now: float) -> list[Effect]:
        opened = self._open.get(timer.task)
        attempt = opened.attempt if opened else None
        if opened is None or attempt is None or attempt.id != timer.attempt or attempt.accepted is not None:
            return []
        cancel = Send(attempt.worker.node, TaskCancelled(attempt.id))
        return [cancel, *self._over(opened, errors.ACCEPT_OVERDUE, "", now)]

    def piece_overdue(self, timer: PieceOverdue, now: float) -> list[Effect]:
        opened = self._open.get(timer.task)
        attempt = opened.attempt if opened else None
        if opened is None or attempt is None or attempt.id != timer.attempt or attempt.pieces != timer.pieces:
            return []
        cancel = Send(attempt.worker.node, TaskCancelled(attempt.id))
        return [cancel, *self._over(opened, errors.STALLED, "", now)]

    def search_overdue(self, timer: SearchOverdue, now: float) -> list[Effect]:
        opened = self._open.get(timer.task)
        if opened is None or opened.attempt is not None:
            return []
        return self._give_up(opened, errors.NO_CAPABLE_PEER, "", now)

    def deadline_passed(self, timer: DeadlinePassed, now: float) -> list[Effect]:
        opened = self._open.get(timer.task)
        return [] if opened is None else self._give_up(opened, errors.DEADLINE_EXCEEDED, "", now)

    # --- Inside -------------------------------------------------------------------------------------------------------

    def _find(self, sender: NodeId, attempt: AttemptId) -> tuple[_Open | None, _Attempt | None]:
        """The task of an attempt, if that attempt is the current one and the sender is its worker."""
        task = self._by_attempt.get(attempt)
        opened = self._open.get(task) if task is not None else None
        current = opened.attempt if opened else None
        if current is None or current.id != attempt or current.worker.node != sender:
            return None, None
        return opened, current

    def _place(self, opened: _Open, now: float) -> list[Effect]:
        """Choose a worker and send the task there, or search."""
        task = opened.task
        if opened.is_over(now):
            return self._give_up(opened, errors.DEADLINE_EXCEEDED, "", now)
        if len(opened.tried) >= self._settings.attempts_max:
            return self._give_up(opened, errors.EXHAUSTED, "", now)
        routing = self._choose(task, opened.tried, now)
        if routing.chosen is None:
            return self._search(opened, now)
        worker = next(candidate for candidate in routing.candidates if candidate.node == routing.chosen)
        attempt = opened.attempt = _Attempt(AttemptId(self._dice.randbytes(16)), worker, now)
        opened.tried.append(worker.node)
        self._by_attempt[attempt.id] = task.id
        self._experience.begun(worker.node, now)
        left_ms = min(lim.DEADLINE_MS_MAX, max(1, round((opened.asked_at + task.deadline_s - now) * 1000)))
        request = TaskRequest(
            attempt.id, task.id, task.skill, worker.model, task.turns, task.tokens_max, task.temperature, task.top_p,
            task.seed, task.stops, left_ms,
        )  # fmt: skip
        return [
            Notify(Routed(task.id, routing)),
            *self._reach(worker.node),
            Send(worker.node, request),
            SetTimer(self._settings.accept_limit_s, AcceptOverdue(task.id, attempt.id)),
        ]

    def _search(self, opened: _Open, now: float) -> list[Effect]:
        """Nobody able is known: ask the DHT once and wait a little. With nobody left after failures, give up."""
        if opened.ends:
            return self._give_up(opened, errors.EXHAUSTED, "", now)
        if opened.searched:
            return []
        opened.searched = True
        overdue = SetTimer(self._settings.search_limit_s, SearchOverdue(opened.task.id))
        # Not even its skill is told to others when a task may not leave this node; a model here may still come up in time.
        return [overdue] if opened.task.privacy is Privacy.LOCAL else [FindProviders(opened.task.skill), overdue]

    def _attempt_over(
        self, sender: NodeId, attempt: AttemptId, code: ErrorCode, reason: str, now: float
    ) -> list[Effect]:
        opened, current = self._find(sender, attempt)
        return [] if opened is None or current is None else self._over(opened, code, reason, now)

    def _over(self, opened: _Open, code: ErrorCode, reason: str, now: float) -> list[Effect]:
        """The current attempt has ended without an answer: try elsewhere if nothing was delivered yet."""
        attempt = opened.attempt
        assert attempt is not None
        worker = attempt.worker
        notice = Notify(AttemptFailed(opened.task.id, worker.node, worker.name, code.number, reason or code.meaning))
        self._experience.ended(worker.node, code, not (code in SILENCE and self._excused(now)), now)
        self._end_attempt(opened, code, reason, now)
        if attempt.pieces:
            told = f"{worker.name} was lost in mid-answer: {reason or code.meaning}"
            return [notice, *self._give_up(opened, errors.STREAM_BROKEN, told, now)]
        if code is errors.BAD_REQUEST:
            return [notice, *self._give_up(opened, code, reason, now)]
        return [notice, *self._place(opened, now)]

    def _end_attempt(self, opened: _Open, code: ErrorCode | None, reason: str, now: float) -> None:
        attempt = opened.attempt
        assert attempt is not None
        worker = attempt.worker
        opened.ends.append(AttemptEnd(worker.node, worker.name, worker.model, code, reason, now - attempt.begun_at))
        del self._by_attempt[attempt.id]
        opened.attempt = None

    def _give_up(self, opened: _Open, code: ErrorCode, reason: str, now: float) -> list[Effect]:
        effects: list[Effect] = []
        attempt = opened.attempt
        if attempt is not None:
            effects.append(Send(attempt.worker.node, TaskCancelled(attempt.id)))
            # A worker that had the whole time and did not finish is slow, not broken; its speed will tell.
            self._experience.ended(attempt.worker.node, errors.CANCELLED, False, now)
            self._end_attempt(opened, code, reason, now)
        self._close(opened)
        if code is not errors.CANCELLED:
            self.failed += 1
        return [*effects, Conclude(opened.task.id, _gave_up(opened, code, reason, now))]

    def _close(self, opened: _Open) -> None:
        del self._open[opened.task.id]


def _gave_up(opened: _Open, code: ErrorCode, reason: str, now: float) -> Outcome:
    last = opened.ends[-1] if opened.ends else None
    if not reason and code is errors.EXHAUSTED and last is not None and last.code is not None:
        tried = "worker" if len(opened.ends) == 1 else "workers"
        reason = f"{len(opened.ends)} {tried} tried; the last, {last.name}: {last.reason or last.code.meaning}"
    if not reason and code is errors.NO_CAPABLE_PEER:
        wanted = f"{opened.task.skill} with {opened.task.model}" if opened.task.model else opened.task.skill
        reason = f"no known worker can do {wanted}"
    return Outcome(
        code, reason or code.meaning, last.worker if last else None, last.name if last else "", "", None,
        opened.first_piece_s, now - opened.asked_at, tuple(opened.ends),
    )  # fmt: skip
