"""What a requester keeps of one task while it is open: the attempts under way, those that ended, and what was delivered."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from protocol import errors
from protocol import limits as lim
from protocol.errors import ErrorCode
from protocol.identity import NodeId
from protocol.messages import TaskAccepted, TaskPiece, TaskRequest
from protocol.parts import AttemptId, Capability
from swarm.values import AttemptEnd, AttemptWhy, Candidate, Excluded, Outcome, Subject, Task, Usage

PIECE_BYTES_COUNTED = 16  # A piece counts for this many bytes at least, or empty ones would never add up.
LIVE_MAX = 2  # Attempts of one task at once: the one that was asked first, and the one that may overtake it.
REQUEST_ROOM_BYTES = (
    4_096  # What a request holds besides texts and tokens: ids, names, stop strings, the marks of msgpack.
)
TOKEN_BYTES_MAX = 5  # Of one token in msgpack.
TOLD_MAX = 3  # Workers that are named where none can be asked.


@dataclass(slots=True)
class Attempt:
    """One attempt that has not ended. Times are of the member's clock."""

    id: AttemptId
    worker: Candidate
    why: AttemptWhy
    begun_at: float
    accepted: TaskAccepted | None = None
    accepted_at: float | None = None
    pieces: int = 0
    bytes: int = 0
    first_piece_at: float | None = None
    resumed_tokens: int | None = 0  # Drawn by others before, and not this worker's work; None: some, nobody knows how many.
    silent: bool = False  # It was asked for a sign of life in vain, and another was asked to take over.

    def own(self, usage: Usage) -> Usage:
        """What this worker itself did; without tokens if that cannot be told, so that no speed is made of it."""
        before = usage.tokens_out if self.resumed_tokens is None else self.resumed_tokens
        return replace(usage, tokens_out=max(0, usage.tokens_out - before))

    @property
    def reading_s(self) -> float:
        """How long its worker takes to read the input, by its own word."""
        return self.worker.terms.reading_s if self.worker.terms else 0.0

    @property
    def begun_by(self) -> Capability | None:
        """The model at work, if it is one that another worker could go on from."""
        capability = self.worker.capability
        return capability if capability is not None and capability.numerics else None


@dataclass(slots=True)
class Delivered:
    """The text that the user has been given, as long as another worker could go on from it."""

    parts: list[str] = field(default_factory=list)
    bytes: int = 0
    tokens: list[int] = field(default_factory=list)
    tokens_complete: bool = True  # Whether every piece told its tokens; else they are of no use.

    def add(self, piece: TaskPiece) -> None:
        self.bytes += len(piece.text.encode())
        self.tokens_complete = self.tokens_complete and (bool(piece.tokens) or not piece.text)
        if self.bytes > lim.DELIVERED_BYTES_MAX:
            self.parts.clear()  # Nobody can go on from here any more; why keep it?
            self.tokens.clear()
            return
        self.parts.append(piece.text)
        if not self.tokens_complete or len(self.tokens) + len(piece.tokens) > lim.DELIVERED_TOKENS_MAX:
            self.tokens_complete = False
            self.tokens.clear()
        self.tokens += piece.tokens if self.tokens_complete else ()

    def fits(self, task: Task) -> bool:
        """Whether a request can carry the task and this text as well."""
        return self.bytes <= lim.DELIVERED_BYTES_MAX and self._room(task) >= 0

    def told_tokens(self, task: Task) -> tuple[int, ...]:
        """The tokens, if there is room for them too; the text says the same, though not how it was made."""
        return tuple(self.tokens) if TOKEN_BYTES_MAX * len(self.tokens) <= self._room(task) else ()

    def _room(self, task: Task) -> int:
        return lim.BODY_BYTES_MAX - REQUEST_ROOM_BYTES - task.bytes_in - self.bytes


@dataclass(slots=True)
class Open:
    """A task between Asked and Conclude."""

    task: Task
    asked_at: float
    live: list[Attempt] = field(default_factory=list)  # Empty: searching.
    seeking: Subject | None = None  # What others are being asked for now.
    sought: list[Subject] = field(default_factory=list)  # Once each.
    moved: bool = False  # Out of a queue to another worker; once is enough.
    tried: list[NodeId] = field(default_factory=list)  # Not to be asked again, or not in this round.
    busy: list[NodeId] = field(default_factory=list)  # Who has refused for want of room in this round.
    rounds: int = 0
    ends: list[AttemptEnd] = field(default_factory=list)
    first_piece_s: float | None = None
    speaker: Attempt | None = None  # Who delivered last; stays set when that attempt has ended.
    broken: str = ""  # How the last speaker was lost, for people.
    delivered: Delivered = field(default_factory=Delivered)

    @property
    def wanted(self) -> Task:
        """The task as the next worker must be able to do it: once text was delivered, only the model that began can go on."""
        return self.task if self.speaker is None else replace(self.task, begun_by=self.speaker.begun_by)

    @property
    def subject(self) -> Subject:
        """What a provider of the next worker's kind is found under: the rarest thing that it must have."""
        begun_by = self.wanted.begun_by
        if begun_by is None:
            return Subject(model=self.task.model) if self.task.model else Subject(skill=self.task.skill)
        return Subject(digest=begun_by.digest) if begun_by.digest else Subject(model=begun_by.model)

    def is_over(self, now: float) -> bool:
        """Whether the time is over. A node that stood still finds answers before it finds the timer that was due before them."""
        return now > self.asked_at + self.task.deadline_s

    def find(self, attempt: AttemptId) -> Attempt | None:
        return next((live for live in self.live if live.id == attempt), None)

    def request(self, attempt: Attempt, now: float) -> TaskRequest:
        """What the attempt's worker is asked."""
        task, delivered = self.task, self.delivered
        left_ms = min(lim.DEADLINE_MS_MAX, max(1, round((self.asked_at + task.deadline_s - now) * 1000)))
        tokens = delivered.told_tokens(task)
        attempt.resumed_tokens = len(tokens) or (None if delivered.bytes else 0)
        if task.demands.forced or task.demands.options:
            attempt.resumed_tokens = None  # Texts that are given are read, which says nothing of how fast it writes.
        return TaskRequest(
            attempt.id, task.id, task.skill, attempt.worker.model, task.turns, task.tokens_max, task.sampling, task.stops, left_ms,
            "".join(delivered.parts), tokens, task.demands,
        )  # fmt: skip

    def ended(self, attempt: Attempt, code: ErrorCode | None, reason: str, now: float) -> None:
        """Move an attempt from the live to the ended ones."""
        self.live.remove(attempt)
        worker, begun = attempt.worker, attempt.begun_at
        accepted_s = None if attempt.accepted_at is None else attempt.accepted_at - begun
        first_piece_s = None if attempt.first_piece_at is None else attempt.first_piece_at - begun
        end = AttemptEnd(
            worker.node, worker.name, worker.model, code, reason, now - begun, attempt.why, begun - self.asked_at,
            accepted_s, first_piece_s, attempt.pieces,
        )  # fmt: skip
        self.ends.append(end)

    def why_nobody(self, excluded: Sequence[Excluded]) -> tuple[ErrorCode, str]:
        """Why no worker could be chosen: the input is too long for all that would do it, or there is none, perhaps only now."""
        wanted = f"{self.task.skill} with {self.task.model}" if self.task.model else self.task.skill
        wanted += "".join(f", {feature}" for feature in sorted(self.task.demands.features))
        passing = [f"{left.name} {left.reason}" for left in excluded if left.passes]
        longest = max((left.context_tokens for left in excluded), default=0)
        if longest and not passing:
            return errors.TOO_LONG, f"the input is too long: a known worker for {wanted} takes {longest} tokens at most"
        more = f" and {len(passing) - TOLD_MAX} more" if len(passing) > TOLD_MAX else ""
        why = f" now: {', '.join(passing[:TOLD_MAX])}{more}" if passing else ""
        return errors.NO_CAPABLE_PEER, f"no known worker can do {wanted}{why}"

    def gave_up(self, code: ErrorCode, reason: str, now: float) -> Outcome:
        """The outcome of a task that ends without a complete answer."""
        last = self.ends[-1] if self.ends else None
        if not reason and code is errors.EXHAUSTED and last is not None and last.code is not None:
            tried = "worker" if len(self.ends) == 1 else "workers"
            reason = f"{len(self.ends)} {tried} tried; the last, {last.name}: {last.reason or last.code.meaning}"
        return Outcome(
            code, reason or code.meaning, last.worker if last else None, last.name if last else "", "", None,
            self.first_piece_s, now - self.asked_at, tuple(self.ends),
        )  # fmt: skip
