"""The nouns that the parts of a member share: tasks, attempts' results, candidates and their scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Literal, TypeAlias

from protocol import limits as lim
from protocol.errors import ErrorCode
from protocol.identity import NodeId
from protocol.parts import Capability, Demands, FunctionCall, Sampling, TaskId, Turn
from swarm.expressions import Value

READING_SHOWN_S = 0.05  # Less decides nothing.
# What a TaskRequest carries besides its turns: ids, skill, model, stops and numbers come to less than 600 bytes.
PROMPT_BYTES_MAX = lim.BODY_BYTES_MAX - 1024
TURN_OVERHEAD_BYTES = 24  # A role of at most 9 bytes and the msgpack headers of the turn and its fields; `Turn.size` has its calls.
HALF_DONE = 0.5  # Of the attempts that are at work, the part of one that has no more to be waited for, on the average.


class Privacy(Enum):
    """How far a task may travel."""

    LOCAL = "local"  # Never leaves this node.
    SWARM = "swarm"  # Any eligible member of the swarm.


@dataclass(frozen=True, slots=True)
class Task:
    """What a user asks for. `model` empty: any. `worker`: only this one.

    `begun_by` is set while a part of the answer is delivered already: only the same model can go on from there.
    """

    id: TaskId
    skill: str
    turns: tuple[Turn, ...]
    model: str
    tokens_max: int
    sampling: Sampling
    stops: tuple[str, ...]
    deadline_s: float
    privacy: Privacy
    worker: NodeId | None
    demands: Demands = Demands()  # noqa: RUF009 It is frozen.
    begun_by: Capability | None = None

    @property
    def bytes_in(self) -> int:
        """About how many bytes its input has."""
        return sum(turn.size for turn in self.turns) + self.demands.size


def too_long(turns: Sequence[Turn], more: int) -> str:
    """What of a conversation no TaskRequest can carry, for people; empty if it can. `more` bytes go into the same message."""
    if len(turns) > lim.TURNS_MAX:
        return f"{len(turns)} turns, {lim.TURNS_MAX} allowed"
    total = more
    for number, turn in enumerate(turns):
        size = len(turn.text.encode())
        if size > lim.TURN_BYTES_MAX:
            return f"turn {number} has {size} bytes, {lim.TURN_BYTES_MAX} allowed"
        total += turn.size + TURN_OVERHEAD_BYTES
    return f"{total} bytes, {PROMPT_BYTES_MAX} allowed" if total > PROMPT_BYTES_MAX else ""


@dataclass(frozen=True, slots=True)
class Terms:
    """What went into a cost. `seen`: speeds are what this node saw; else the worker's claims. `held` is a share of the input, and
    `reading_s` the time that the rest of it takes. `parallel` is how many times as fast as one alone all `slots` together are.
    """

    distance_s: float
    first_token_s: float
    seen: bool
    tokens_per_second: float
    waiting: int
    slots: int
    success: float
    trust: float
    held: float
    reading_s: float
    parallel: float

    def delay(self, waiting: int) -> float:
        """How many times as long an answer takes that has so many before it, of which the first is half done."""
        return 1 + max(0.0, waiting - HALF_DONE) / self.parallel

    @property
    def shared(self) -> float:
        """How many times as long a token takes because others are at work beside this one."""
        return 1 + min(self.waiting, self.slots - 1) * (1 / self.parallel - 1 / self.slots)

    @property
    def parts(self) -> tuple[tuple[str, str], ...]:
        """Names and values, for people."""
        parts = [
            ("distance", f"{self.distance_s * 1000:.0f} ms"),
            ("first token", f"{self.first_token_s * 1000:.0f} ms {'seen' if self.seen else 'claimed'}"),
            ("speed", f"{self.tokens_per_second:.0f} tok/s"),
            ("load", f"{self.waiting}/{self.slots}"),
            ("success", f"{self.success:.2f}"),
        ]
        if self.trust < 0.995:
            parts.append(("trust", f"{self.trust:.2f}"))
        if self.reading_s >= READING_SHOWN_S:
            parts.append(("reading", f"{self.reading_s * 1000:.0f} ms"))
        if self.held:
            parts.append(("prefix", f"{self.held * 100:.0f} % held"))
        return tuple(parts)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A worker that could do a task now, and what it would cost. The lowest cost is best."""

    node: NodeId
    name: str
    model: str
    cost_s: float
    terms: Terms | None
    capability: Capability | None = None

    @property
    def parts(self) -> tuple[tuple[str, str], ...]:
        """What went into the cost, for people: ("first token", "80 ms"), ("load", "1/2"), …"""
        return self.terms.parts if self.terms else ()


@dataclass(frozen=True, slots=True)
class Excluded:
    """A known worker that may not be asked for this task, and why, in words.

    `context_tokens`: how long its model's context is, if only that is too short. `passes`: whether it may be asked later.
    """

    node: NodeId
    name: str
    reason: str
    context_tokens: int = 0
    passes: bool = False


@dataclass(frozen=True, slots=True)
class Routing:
    """One decision: every candidate (best first), those drawn, the one taken, and who was left out.

    `explored`: a worker of which nothing was known was taken on purpose.
    """

    candidates: tuple[Candidate, ...]
    drawn: tuple[NodeId, ...]
    chosen: NodeId | None
    excluded: tuple[Excluded, ...]
    explored: bool = False


@dataclass(frozen=True, slots=True)
class Usage:
    """What a model did for one attempt. Times count from when the model took it up."""

    finish: str
    tokens_in: int
    tokens_out: int
    first_token_s: float
    total_s: float
    calls: tuple[FunctionCall, ...] = ()


AttemptWhy = Literal["first", "retry", "hedge", "silence", "resume", "moved"]
"""Why an attempt was begun: the first of its task; another was refused or failed; was slower than usual; gave no sign of life;
was lost, or fell silent, in mid-answer; or had more to do before this task than was known."""


@dataclass(frozen=True, slots=True)
class AttemptEnd:
    """How one attempt of a task went, for `--why`: `code` is None when it answered.

    `begun_s` counts from when the task was asked, `accepted_s`, `first_piece_s` and `seconds` from when the attempt began.
    """

    worker: NodeId
    name: str
    model: str
    code: ErrorCode | None
    reason: str
    seconds: float
    why: AttemptWhy = "first"
    begun_s: float = 0.0
    accepted_s: float | None = None
    first_piece_s: float | None = None
    pieces: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a task ended. `code` is None when the answer is complete; then `worker` and `usage` are set.

    Seconds count from when the task was asked; `first_piece_s` is None if no text came.
    """

    code: ErrorCode | None
    reason: str
    worker: NodeId | None
    worker_name: str
    model: str
    usage: Usage | None
    first_piece_s: float | None
    seconds: float
    attempts: tuple[AttemptEnd, ...]


@dataclass(frozen=True, slots=True)
class Subject:
    """What a provider record is about: a skill, a model by its name, or a model's file by its SHA-256. One is set at most.

    With none it stands for membership of the swarm.
    """

    skill: str = ""
    model: str = ""
    digest: bytes = b""

    def is_offered(self, capability: Capability) -> bool:
        """Whether a capability keeps what a record about this promises."""
        return (
            self.skill in ("", capability.skill)
            and self.model in ("", capability.model)
            and self.digest in (b"", capability.digest)
        )


MEMBERSHIP = Subject()


@dataclass(frozen=True, slots=True)
class Contact:
    """Where somebody can be reached. `node` is None until a dial tells who answers."""

    node: NodeId | None
    addresses: tuple[str, ...]


PlanId: TypeAlias = bytes
"""Sixteen bytes, drawn by whoever asks for the plan."""


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """How far a step that asks has come. Of `asked` tasks `answered` are, `known` of them from an earlier run; `failed` are lost,
    the latest for `reason`. `values` are the answers in order, null where there is none.
    """

    step: str
    asked: int
    answered: int
    known: int
    failed: int
    reason: str
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class PlanOutcome:
    """How a plan ended. `failure` is empty if `value` is what it was asked for; else the steps tell what there is.

    `tasks` were given out. Seconds count from when the plan was asked for.
    """

    failure: str
    value: Value
    steps: tuple[StepOutcome, ...]
    tasks: int
    seconds: float
