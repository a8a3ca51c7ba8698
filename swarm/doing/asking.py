"""The life of one task at its requester, from Asked to exactly one Conclude.

searching -> placed -> accepted -> speaking -> concluded. A refusal or a failure goes back to choosing at once. Before the first
text any worker will do; after it, one that holds the same model goes on from what was delivered, so that the user sees one
stream without a gap or an echo. A worker that is late or gives no sign of life is not given up at once: a second one is asked
beside it, and whoever speaks first goes on alone. Every wait has a timer; a timer whose attempt is over finds nothing.
"""

from dataclasses import replace
from random import Random

from protocol import errors
from protocol.errors import ErrorCode
from protocol.identity import NodeId
from protocol.messages import TaskAccepted, TaskCancelled, TaskFailed, TaskFinished, TaskPiece, TaskRefused
from protocol.parts import AttemptId, TaskId
from swarm.doing.attempts import LIVE_MAX, PIECE_BYTES_COUNTED, Attempt, Open
from swarm.doing.hedging import HedgeBudget, waiting
from swarm.doing.moving import CROWDED, elsewhere
from swarm.doing.ports import Choose, Experience, Reach, Remember, Seek, Vigil
from swarm.effects import (
    AcceptOverdue,
    AttemptFailed,
    Conclude,
    DeadlinePassed,
    Effect,
    HedgeDue,
    Notify,
    PieceOverdue,
    Reply,
    RetryDue,
    Routed,
    SearchOverdue,
    Send,
    SetTimer,
    WatchDue,
    WorkerAccepted,
)
from swarm.settings import Settings
from swarm.values import AttemptWhy, Outcome, Privacy, Routing, Subject, Task, Usage

SILENCE = (errors.UNREACHABLE, errors.ACCEPT_OVERDUE, errors.STALLED, errors.CONNECTION_LOST)
BUSY_CODES = (errors.BUSY, errors.OVER_QUOTA)  # Refusals that time heals.
LOOK_AGAIN_MIN_S = 0.01  # A rest of a wait too small to move a clock would be waited for without end.
ENDS_MAX = 64  # Attempts of one task, refusals included; bounds what its trace holds.
LOGPROBS_FACTOR = 4  # They are so much longer than the text that they are of.
OVERTAKEN = "another worker spoke first"
ENDLESS = "the answer has no end"


class Asking:
    """Every task of this node's users that has not ended yet."""

    def __init__(
        self, settings: Settings, dice: Random, choose: Choose, reach: Reach, seek: Seek, experience: Experience, vigil: Vigil,
        remember: Remember,
    ) -> None:  # fmt: skip
        self._settings, self._dice, self._choose, self._reach, self._seek = settings, dice, choose, reach, seek
        self._experience, self._vigil, self._remember = experience, vigil, remember
        self._budget = HedgeBudget(settings)
        self._open: dict[TaskId, Open] = {}
        self._by_attempt: dict[AttemptId, TaskId] = {}
        self._stopping = False
        self.asked = self.answered = self.failed = 0
        self.resumed = 0

    def __len__(self) -> int:
        return len(self._open)

    @property
    def hedged(self) -> int:
        """How often a second worker was asked because the first was slower than usual."""
        return self._budget.spent

    def workers(self) -> list[NodeId]:
        """Who is at work for this node's users now."""
        return [attempt.worker.node for opened in self._open.values() for attempt in opened.live]

    # --- The user -----------------------------------------------------------------------------------------------------

    def begin(self, task: Task, now: float) -> list[Effect]:
        self.asked += 1
        if self._stopping or len(self._open) >= self._settings.tasks_max:
            self.failed += 1
            code = errors.SHUTTING_DOWN if self._stopping else errors.TOO_MANY_TASKS
            return [Conclude(task.id, Open(task, now).gave_up(code, "", now))]
        if task.sampling.temperature > 0 and task.sampling.seed == 0:
            # Drawn here, so that another worker can go on with the same dice.
            task = replace(task, sampling=replace(task.sampling, seed=self._dice.randrange(1, 2**32)))
        self._budget.task_begun()
        opened = self._open[task.id] = Open(task, now)
        return [SetTimer(task.deadline_s, DeadlinePassed(task.id)), *self._place(opened, "first", now)]

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
        attempt.accepted, attempt.accepted_at = message, now
        self._experience.accepted(sender, message.ahead, now)
        routing = elsewhere(opened, attempt, lambda: self._choose(opened.wanted, opened.tried, now))
        if routing is not None:
            self._experience.ended(sender, errors.CANCELLED, False, now, attempt.begun_at)
            self._end(opened, attempt, errors.CANCELLED, CROWDED, now)
            return [_cancel(attempt), *self._begin_attempt(opened, routing, "moved", now)]
        worker = attempt.worker
        # A token for each byte at worst, as of numbers; but never more than the model takes.
        tokens_in = opened.task.bytes_in + opened.delivered.bytes
        if worker.capability is not None:
            tokens_in = min(tokens_in, worker.capability.context_tokens)
        limit_s = self._settings.first_piece_limit_s * (1 + message.ahead) + tokens_in / self._settings.input_tokens_per_s
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
            reason = f"piece {message.index} came instead of {attempt.pieces}"
            return [_cancel(attempt), *self._over(opened, attempt, errors.BACKEND_FAILED, reason, now)]
        attempt.pieces += 1
        logprobs = message.logprobs if opened.task.demands.has_logprobs else ()
        attempt.bytes += max(PIECE_BYTES_COUNTED, len(message.text.encode())) + sum(each.size for each in logprobs)
        if attempt.bytes > self._settings.answer_bytes_max * (LOGPROBS_FACTOR if logprobs else 1):
            self._experience.ended(sender, errors.BACKEND_FAILED, True, now, attempt.begun_at)
            self._end(opened, attempt, errors.BACKEND_FAILED, ENDLESS, now)
            return [_cancel(attempt), *self._give_up(opened, errors.STREAM_BROKEN, ENDLESS, now)]
        effects = self._overtake(opened, attempt, now)
        if attempt.first_piece_at is None:
            attempt.first_piece_at = now
            if opened.first_piece_s is None:
                opened.first_piece_s = now - opened.asked_at
        opened.speaker = attempt
        opened.delivered.add(message)
        return [
            *effects,
            Reply(opened.task.id, message.text, logprobs),
            SetTimer(self._settings.piece_limit_s, PieceOverdue(opened.task.id, attempt.id, attempt.pieces)),
        ]

    def finished(self, sender: NodeId, message: TaskFinished, now: float) -> list[Effect]:
        opened, attempt = self._find(sender, message.attempt)
        if opened is None or attempt is None:
            return []
        if opened.is_over(now):
            return self._give_up(opened, errors.DEADLINE_EXCEEDED, "", now)
        if message.pieces != attempt.pieces:
            reason = f"{attempt.pieces} of {message.pieces} pieces came"
            return self._over(opened, attempt, errors.BACKEND_FAILED, reason, now)
        effects = self._overtake(opened, attempt, now)
        first_s, total_s = message.first_token_ms / 1000, message.total_ms / 1000
        usage = Usage(message.finish, message.tokens_in, message.tokens_out, first_s, total_s, message.calls)
        first_at = now if attempt.first_piece_at is None else attempt.first_piece_at
        capability = attempt.worker.capability
        self._experience.answered(
            sender, attempt.own(usage), first_at - attempt.begun_at, now, (attempt.accepted_at or now) - attempt.begun_at,
            attempt.accepted.ahead if attempt.accepted else 0, capability.tokens_per_second if capability else 0.0,
            attempt.reading_s, attempt.worker.terms.shared if attempt.worker.terms else 1.0,
        )  # fmt: skip
        self._remember(opened.task, "".join(opened.delivered.parts), sender, now)
        self._end(opened, attempt, None, "", now)
        del self._open[opened.task.id]
        self.answered += 1
        worker = attempt.worker
        model = attempt.accepted.model if attempt.accepted else worker.model
        outcome = Outcome(
            None, "", worker.node, worker.name, model, usage, opened.first_piece_s, now - opened.asked_at,
            tuple(opened.ends),
        )  # fmt: skip
        return [*effects, Conclude(opened.task.id, outcome)]

    # --- The world ----------------------------------------------------------------------------------------------------

    def lost(self, node: NodeId, cause: str, now: float) -> list[Effect]:
        """The link with a worker is gone, or could not be made."""
        effects: list[Effect] = []
        for opened in list(self._open.values()):
            for attempt in [live for live in opened.live if live.worker.node == node]:
                code = errors.CONNECTION_LOST if attempt.accepted else errors.UNREACHABLE
                effects += self._over(opened, attempt, code, cause, now)
        return effects

    def undelivered(self, attempt: AttemptId, now: float) -> list[Effect]:
        opened = self._open.get(self._by_attempt.get(attempt, TaskId(b"")))
        live = opened.find(attempt) if opened else None
        if opened is None or live is None:
            return []
        return self._over(opened, live, errors.UNREACHABLE, "no link to the worker", now)

    def found(self, now: float) -> list[Effect]:
        """Somebody new is known: tasks that are searching try again."""
        effects: list[Effect] = []
        for opened in [opened for opened in self._open.values() if opened.seeking is not None]:
            effects += self._place(opened, "first" if opened.speaker is None else "resume", now)
        return effects

    def is_seeking(self, subject: Subject) -> bool:
        """Whether a task waits for a provider of this."""
        return any(opened.seeking == subject for opened in self._open.values())

    # --- Timers -------------------------------------------------------------------------------------------------------

    def accept_overdue(self, timer: AcceptOverdue, now: float) -> list[Effect]:
        opened, attempt = self._timed(timer.task, timer.attempt)
        if opened is None or attempt is None or attempt.accepted is not None:
            return []
        return [_cancel(attempt), *self._over(opened, attempt, errors.ACCEPT_OVERDUE, "", now)]

    def piece_overdue(self, timer: PieceOverdue, now: float) -> list[Effect]:
        opened, attempt = self._timed(timer.task, timer.attempt)
        if opened is None or attempt is None or attempt.pieces != timer.pieces:
            return []
        return [_cancel(attempt), *self._over(opened, attempt, errors.STALLED, "", now)]

    def hedge_due(self, timer: HedgeDue, now: float) -> list[Effect]:
        """The worker is slower than it is in all but one of twenty cases: ask a second one, if that is within the budget."""
        opened, attempt = self._timed(timer.task, timer.attempt)
        if opened is None or attempt is None or opened.first_piece_s is not None or len(opened.live) >= LIVE_MAX:
            return []
        if self._vigil.excused(now) or len(opened.tried) >= self._settings.attempts_max:
            return []
        routing = self._choose(opened.wanted, opened.tried, now)
        if routing.chosen is None or not self._budget.take(*waiting(self._open.values(), self._experience.first_piece_p95, now)):
            return []
        return self._begin_attempt(opened, routing, "hedge", now)

    def watch_due(self, timer: WatchDue, now: float) -> list[Effect]:
        """Look whether the worker still gives signs of life, and ask another to take over if not."""
        opened, attempt = self._timed(timer.task, timer.attempt)
        if opened is None or attempt is None or attempt.silent:
            return []
        settings, worker = self._settings, attempt.worker.node
        silent_s = self._vigil.silent_s(worker, now)
        if silent_s is None and attempt.accepted is not None:
            return []  # This node itself is at work.
        quiet_s = min(now - attempt.begun_at, float("inf") if silent_s is None else silent_s)
        if quiet_s >= settings.silence_limit_s and not self._vigil.excused(now):
            self._vigil.miss(worker)
            return self._rescue(opened, attempt, now)
        if quiet_s >= settings.watch_after_s:
            left_s = settings.silence_limit_s - quiet_s  # Nothing is left while this node's own lateness is the excuse.
            again_s = max(LOOK_AGAIN_MIN_S, left_s) if left_s > 0 else settings.watch_after_s
            return [*self._vigil.rouse(worker, now), SetTimer(again_s, timer)]
        return [SetTimer(max(LOOK_AGAIN_MIN_S, settings.watch_after_s - quiet_s), timer)]

    def retry_due(self, timer: RetryDue, now: float) -> list[Effect]:
        """Whoever was busy may have room now."""
        opened = self._open.get(timer.task)
        if opened is None or opened.rounds != timer.round or any(not live.silent for live in opened.live):
            return []
        opened.tried = [node for node in opened.tried if node not in opened.busy]
        opened.busy.clear()
        return self._place(opened, "retry" if opened.speaker is None else "resume", now)

    def search_overdue(self, timer: SearchOverdue, now: float) -> list[Effect]:
        opened = self._open.get(timer.task)
        if opened is None or opened.seeking != timer.subject:
            return []
        opened.seeking = None
        routing = self._choose(opened.wanted, opened.tried, now)
        if routing.chosen is not None:  # Who was shut out for a while is not any more, which nobody tells.
            return self._begin_attempt(opened, routing, "first" if opened.speaker is None else "resume", now)
        if opened.speaker is not None:
            return self._exhausted(opened, now)
        return self._give_up(opened, *opened.why_nobody(routing.excluded), now)

    def deadline_passed(self, timer: DeadlinePassed, now: float) -> list[Effect]:
        opened = self._open.get(timer.task)
        return [] if opened is None else self._give_up(opened, errors.DEADLINE_EXCEEDED, "", now)

    # --- Choosing and placing -----------------------------------------------------------------------------------------

    def _place(self, opened: Open, why: AttemptWhy, now: float) -> list[Effect]:
        """Choose a worker and send the task there, or search, or wait until somebody has room."""
        if opened.is_over(now):
            return self._give_up(opened, errors.DEADLINE_EXCEEDED, "", now)
        failed = sum(end.code is not None and not end.code.definite for end in opened.ends)
        if failed >= self._settings.attempts_max or len(opened.ends) >= ENDS_MAX or not self._can_go_on(opened):
            return self._exhausted(opened, now)
        if len(opened.busy) >= self._settings.attempts_max:
            return self._wait(opened)
        routing = self._choose(opened.wanted, opened.tried, now)
        if routing.chosen is not None:
            return self._begin_attempt(opened, routing, why, now)
        if opened.busy:
            return self._wait(opened)
        if opened.seeking is not None:
            return []
        return self._search(opened) or self._exhausted(opened, now)

    def _begin_attempt(self, opened: Open, routing: Routing, why: AttemptWhy, now: float) -> list[Effect]:
        task, settings = opened.task, self._settings
        self.resumed += why == "resume"
        worker = next(candidate for candidate in routing.candidates if candidate.node == routing.chosen)
        attempt = Attempt(AttemptId(self._dice.randbytes(16)), worker, why, now)
        opened.seeking = None
        opened.live.append(attempt)
        opened.tried.append(worker.node)
        self._by_attempt[attempt.id] = task.id
        self._experience.begun(worker.node, now)
        effects: list[Effect] = [
            Notify(Routed(task.id, routing, why)),
            *self._reach(worker.node),
            Send(worker.node, opened.request(attempt, now)),
            SetTimer(settings.accept_limit_s, AcceptOverdue(task.id, attempt.id)),
            SetTimer(settings.watch_after_s, WatchDue(task.id, attempt.id)),
        ]
        usual_s = self._experience.first_piece_p95(worker.node, now)
        may_hedge = task.worker is None and task.privacy is not Privacy.LOCAL and opened.first_piece_s is None
        if usual_s is not None and may_hedge and why != "hedge":
            effects.append(SetTimer(max(settings.hedge_after_min_s, usual_s + attempt.reading_s), HedgeDue(task.id, attempt.id)))
        return effects

    def _search(self, opened: Open) -> list[Effect]:
        """Nobody able is known: ask others and wait a little, once for a first worker and once for each model that has begun."""
        task, subject, is_local = opened.task, opened.subject, opened.task.privacy is Privacy.LOCAL
        if opened.live or subject in opened.sought or (opened.ends and opened.speaker is None):
            return []
        if opened.speaker is not None and (is_local or task.worker is not None):
            return []  # Nobody else may go on with it.
        opened.seeking = subject
        opened.sought.append(subject)
        overdue = SetTimer(self._settings.search_limit_s, SearchOverdue(task.id, subject))
        # Not even its skill is told to others when a task may not leave this node; a model here may still come up in time.
        return [overdue] if is_local else [*self._seek(task.skill, subject), overdue]

    def _wait(self, opened: Open) -> list[Effect]:
        """Everybody able has said to be busy: ask them again in a while, ever more rarely, until the deadline."""
        opened.rounds += 1
        longest_s = min(
            self._settings.busy_wait_max_s, self._settings.busy_wait_first_s * 2.0 ** min(opened.rounds, 16)
        )
        return [SetTimer(longest_s * self._dice.uniform(0.5, 1.0), RetryDue(opened.task.id, opened.rounds))]

    def _exhausted(self, opened: Open, now: float) -> list[Effect]:
        """Nobody is left to try. An attempt that is only silent may still come back."""
        if opened.live:
            return []
        if opened.speaker is None and {end.code for end in opened.ends} == {errors.TOO_LONG}:
            return self._give_up(opened, errors.TOO_LONG, opened.ends[-1].reason, now)
        if opened.speaker is None:
            return self._give_up(opened, errors.EXHAUSTED, "", now)
        return self._give_up(opened, errors.STREAM_BROKEN, f"{opened.broken.rstrip('.')}; no other worker can go on with it", now)

    def _rescue(self, opened: Open, attempt: Attempt, now: float) -> list[Effect]:
        """The worker may be dead or frozen: ask another beside it, if there is one. Whoever speaks next goes on alone."""
        again = SetTimer(self._settings.watch_after_s, WatchDue(opened.task.id, attempt.id))
        if len(opened.live) >= LIVE_MAX or len(opened.tried) >= self._settings.attempts_max:
            return [again]
        routing = self._choose(opened.wanted, opened.tried, now) if self._can_go_on(opened) else None
        if routing is None or routing.chosen is None:
            return [again]  # To wait is all that is left; the piece limit ends it.
        attempt.silent = True
        return self._begin_attempt(opened, routing, "resume" if opened.speaker else "silence", now)

    def _can_go_on(self, opened: Open) -> bool:
        """Whether another worker could go on from what was delivered."""
        return opened.speaker is None or (opened.speaker.begun_by is not None and opened.delivered.fits(opened.task))

    # --- Ending -------------------------------------------------------------------------------------------------------

    def _find(self, sender: NodeId, attempt: AttemptId) -> tuple[Open | None, Attempt | None]:
        """The task of an attempt, if it is under way and the sender is its worker."""
        opened = self._open.get(self._by_attempt.get(attempt, TaskId(b"")))
        live = opened.find(attempt) if opened else None
        return (opened, live) if live is not None and live.worker.node == sender else (None, None)

    def _timed(self, task: TaskId, attempt: AttemptId) -> tuple[Open | None, Attempt | None]:
        opened = self._open.get(task)
        return (opened, opened.find(attempt)) if opened is not None else (None, None)

    def _attempt_over(
        self, sender: NodeId, attempt: AttemptId, code: ErrorCode, reason: str, now: float
    ) -> list[Effect]:
        opened, live = self._find(sender, attempt)
        return [] if opened is None or live is None else self._over(opened, live, code, reason, now)

    def _over(self, opened: Open, attempt: Attempt, code: ErrorCode, reason: str, now: float) -> list[Effect]:
        """An attempt has ended without a complete answer: another that is under way takes over, or one is begun."""
        worker = attempt.worker
        notice = Notify(AttemptFailed(opened.task.id, worker.node, worker.name, code.number, reason or code.meaning))
        blamed = not (code in SILENCE and self._vigil.excused(now))
        self._experience.ended(worker.node, code, blamed, now, attempt.begun_at)
        self._end(opened, attempt, code, reason, now)
        if code in BUSY_CODES:
            opened.busy.append(worker.node)
        if any(not live.silent for live in opened.live):
            return [notice]
        if attempt is opened.speaker:
            opened.broken = f"{worker.name} was lost in mid-answer: {reason or code.meaning}"
        if code is errors.BAD_REQUEST and opened.speaker in (None, attempt) and not opened.live:
            return [notice, *self._give_up(opened, code, reason, now)]
        return [notice, *self._place(opened, "retry" if opened.speaker is None else "resume", now)]

    def _overtake(self, opened: Open, attempt: Attempt, now: float) -> list[Effect]:
        """An attempt has spoken: it goes on alone."""
        effects: list[Effect] = []
        for other in [live for live in opened.live if live is not attempt]:
            effects.append(_cancel(other))
            code = errors.STALLED if other.silent else errors.CANCELLED
            blamed = other.silent and not self._vigil.excused(now)
            self._experience.ended(other.worker.node, code, blamed, now, other.begun_at)
            self._end(opened, other, code, "" if other.silent else OVERTAKEN, now)
        return effects

    def _end(self, opened: Open, attempt: Attempt, code: ErrorCode | None, reason: str, now: float) -> None:
        opened.ended(attempt, code, reason, now)
        del self._by_attempt[attempt.id]

    def _give_up(self, opened: Open, code: ErrorCode, reason: str, now: float) -> list[Effect]:
        effects: list[Effect] = []
        for attempt in list(opened.live):
            effects.append(_cancel(attempt))
            # A worker that had the whole time and did not finish is slow, not broken; its speed will tell.
            self._experience.ended(attempt.worker.node, errors.CANCELLED, False, now, attempt.begun_at)
            self._end(opened, attempt, code, reason, now)
        del self._open[opened.task.id]
        if code is not errors.CANCELLED:
            self.failed += 1
        return [*effects, Conclude(opened.task.id, opened.gave_up(code, reason, now))]


def _cancel(attempt: Attempt) -> Send:
    return Send(attempt.worker.node, TaskCancelled(attempt.id))
