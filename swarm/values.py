"""The nouns that the parts of a member share: tasks, attempts' results, candidates and their scores."""

from dataclasses import dataclass
from enum import Enum
from typing import Literal

from protocol.errors import ErrorCode
from protocol.identity import NodeId
from protocol.messages import Capability, TaskId, Turn


class Privacy(Enum):
    """How far a task may travel."""

    LOCAL = "local"  # Never leaves this node.
    SWARM = "swarm"  # Any eligible member of the swarm.


@dataclass(frozen=True, slots=True)
class Task:
    """What a user asks for. `model` empty: any. `worker`: only this one. `seed` 0: the worker's choice.

    `begun_by` is set while a part of the answer is delivered already: only the same model can go on from there.
    """

    id: TaskId
    skill: str
    turns: tuple[Turn, ...]
    model: str
    tokens_max: int
    temperature: float
    top_p: float
    seed: int
    stops: tuple[str, ...]
    deadline_s: float
    privacy: Privacy
    worker: NodeId | None
    begun_by: Capability | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A worker that could do a task now, and what it would cost. The lowest cost is best.

    `parts` name what went into the cost, for people: ("first token", "0.08 s"), ("load", "1/2"), …
    """

    node: NodeId
    name: str
    model: str
    cost_s: float
    parts: tuple[tuple[str, str], ...]
    capability: Capability | None = None


@dataclass(frozen=True, slots=True)
class Excluded:
    """A known worker that may not be asked for this task, and why, in words."""

    node: NodeId
    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Routing:
    """One decision: every candidate (best first), the two drawn, the one taken, and who was left out."""

    candidates: tuple[Candidate, ...]
    drawn: tuple[NodeId, ...]
    chosen: NodeId | None
    excluded: tuple[Excluded, ...]


@dataclass(frozen=True, slots=True)
class Usage:
    """What a model did for one attempt. Times count from when the model took it up."""

    finish: str
    tokens_in: int
    tokens_out: int
    first_token_s: float
    total_s: float


AttemptWhy = Literal["first", "retry", "hedge", "silence", "resume"]
"""Why an attempt was begun: the first of its task; another was refused or failed; was slower than usual; gave no sign of life;
or was lost, or fell silent, in mid-answer."""


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
class Contact:
    """Where somebody can be reached. `node` is None until a dial tells who answers."""

    node: NodeId | None
    addresses: tuple[str, ...]
