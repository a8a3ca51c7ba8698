"""What a node tells its user: the JSON of the control API, of `--json`, and what the CLI draws. Node ids are peer id text."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class PeerView:
    """One known node. `state` is `self`, `connected`, `known` (heard of through others) or `draining`."""

    node: str
    name: str
    state: str
    rtt_ms: float | None
    heard_s: float  # Seconds since its latest advert or sign of life.
    addresses: list[str]
    models: list[str]
    skills: list[str]
    tokens_per_second: float | None  # The best of its capabilities, as claimed in its advert.
    slots: int
    busy: int
    queued: int
    told_s: float | None = None  # Since its newest advert or pulse came here; what it offers and its load are that old.
    path: str = ""  # Of a neighbour: `direct`, or `relay NAME`.


@dataclass(frozen=True, slots=True)
class PingView:
    """A neighbour has answered. `path` as in PeerView; `address` is what was dialled, empty if the neighbour dialled us."""

    node: str
    name: str
    rtt_ms: float
    path: str
    address: str
    schema: str = "swarm.ping/1"


@dataclass(frozen=True, slots=True)
class SightingView:
    """A place where others see this node, and how many of those asked could dial it there, or not."""

    seen: str
    reached: int
    failed: int


@dataclass(frozen=True, slots=True)
class ReachView:
    """Whether others can dial this node. `verdict` is `open`, `closed`, or `unknown` as long as nobody has tried."""

    verdict: str = "unknown"
    sightings: list[SightingView] = field(default_factory=list)
    relays: list[str] = field(default_factory=list)  # Names of those who carry links to this node.
    relaying: bool = False  # Whether it offers to carry links for others,
    carried: int = 0  # and for how many it does.
    router: str = "off"  # What came of asking the router for a port: `off`, `searching`, `none`, `refused` or `mapped`.
    mdns: bool = False


@dataclass(frozen=True, slots=True)
class SkillView:
    """One skill somebody offers."""

    skill: str
    model: str
    node: str
    name: str
    tokens_per_second: float
    first_token_ms: int
    context_tokens: int
    labels: list[str]
    description: str
    features: list[str] = field(default_factory=list)  # What its worker honours besides: `schema`, `logprobs`, …
    tokens_in_per_second: float = 0.0  # How fast it reads; 0: not known.
    slots: int = 0  # Answers at a time, which are together
    speedup: float = 0.0  # so many times as fast as one alone; 0: as many times as there are slots.


@dataclass(frozen=True, slots=True)
class ModelView:
    """One model source of this node. `state` is `loading`, `ready`, `restarting`, `resting` (out of memory until it is asked for)
    or `failed`; `detail` says how far it is, or why it failed and what to do.
    """

    ref: str
    model: str
    state: str
    detail: str
    skills: list[str]
    tokens_per_second: float | None
    first_token_ms: int | None
    memory_bytes: int = 0  # Of its process, when it was last loaded.
    pinned: bool = False


@dataclass(frozen=True, slots=True)
class StatusView:
    """The node on one screen. `state` is `starting`, `ready` or `stopping`."""

    state: str
    node: str
    name: str
    version: str
    swarm: str
    pid: int
    uptime_s: float
    addresses: list[str]
    api: str
    models: list[ModelView]
    peers: list[PeerView]
    asked: int
    answered: int
    failed: int
    served: int
    refused: dict[str, int]  # Offences of peers on the wire, by kind (`protocol.errors.RemoteProtocolError.kind`).
    warnings: list[str]
    rss_bytes: int
    schema: str = "swarm.status/1"
    journal: str = ""  # What is wrong with the journal of tasks, for people.
    reach: ReachView = field(default_factory=ReachView)
    reserved: bool = False  # The owner uses the machine, and peers wait (`offer.when`).
    twin: str = ""  # Where another node with this node's identity was seen, in words.


@dataclass(frozen=True, slots=True)
class CandidateView:
    """One worker that could do a task. Lowest cost is best; `parts` are (name, value) for people."""

    node: str
    name: str
    model: str
    cost_s: float
    drawn: bool
    chosen: bool
    parts: list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class ExcludedView:
    """One known worker that may not be asked, and why."""

    node: str
    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class RouteView:
    """Who would answer, and why."""

    skill: str
    candidates: list[CandidateView]
    excluded: list[ExcludedView]
    schema: str = "swarm.route/1"


@dataclass(frozen=True, slots=True)
class AttemptView:
    """How one attempt ended; `code` is empty when it answered.

    `why` it was begun: `first`, `retry`, `hedge`, `silence` or `resume`. `begun_s` counts from when the task was asked, the other
    times from when the attempt began; None where that never happened.
    """

    node: str
    name: str
    model: str
    code: str
    reason: str
    seconds: float
    why: str = "first"
    begun_s: float = 0.0
    accepted_s: float | None = None
    first_piece_s: float | None = None
    pieces: int = 0


@dataclass(frozen=True, slots=True)
class CallView:
    """A function that the model wants called; `arguments` is a JSON object as text."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class AnswerView:
    """How a task ended, for `--why` and the `swarm` object of the OpenAI API. `code` is empty when the answer is complete."""

    task: str
    skill: str
    code: str
    reason: str
    node: str
    name: str
    model: str
    finish: str
    tokens_in: int
    tokens_out: int
    first_piece_s: float | None
    seconds: float
    attempts: list[AttemptView] = field(default_factory=list)
    routes: list[RouteView] = field(default_factory=list)  # One for each time a worker was chosen.
    schema: str = "swarm.answer/1"
    gap_s: float | None = None  # The longest silence between two texts.
    worker_first_token_s: float | None = None  # As the worker's own model saw it, from when it took the attempt up.
    worker_s: float | None = None
    calls: list[CallView] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class SettledView:
    """So many tasks of a plan's step are settled, of so many; `known` of them from an earlier run."""

    step: str
    settled: int
    of: int
    known: int


@dataclass(frozen=True, slots=True)
class PlanTaskView:
    """How a task of a plan ended: the only one of its step, or the one for an element. `code` is empty if it was answered."""

    step: str
    index: int
    task: str
    code: str
    reason: str
    name: str
    model: str
    seconds: float


@dataclass(frozen=True, slots=True)
class PlanStepView:
    """How far a step has come that asks. Of `asked` tasks `answered` are, `known` of them from an earlier run.

    `values` are the answers, null where there is none; they are told only of a plan that has failed.
    """

    step: str
    asked: int
    answered: int
    known: int
    failed: int
    reason: str  # Why the latest failed.
    values: list[Any] | None = None


@dataclass(frozen=True, slots=True)
class PlanView:
    """What came of a plan. `state` is `done` or `failed`; `tasks` were asked now."""

    plan: str
    state: str
    reason: str
    value: Any
    steps: list[PlanStepView]
    tasks: int
    seconds: float
    schema: str = "swarm.plan/1"


@dataclass(frozen=True, slots=True)
class TaskView:
    """One task of this node's users in the journal. `state` is `open`, `done`, `failed`, `cancelled` or `interrupted`.

    `begins` are the first words of the question, empty where no text is kept. `detached`: nobody waited for it.
    """

    task: str
    asked_at_ms: int  # Unix time.
    state: str
    skill: str
    wanted: str  # The model that was asked for; empty: any.
    privacy: str
    detached: bool
    batch: str
    item: str
    code: str
    reason: str
    node: str
    name: str
    model: str
    tokens_in: int
    tokens_out: int
    first_piece_s: float | None
    seconds: float | None
    begins: str
    schema: str = "swarm.task/1"


@dataclass(frozen=True, slots=True)
class TraceView:
    """All that is known of one task. `text` is the answer as far as it came; both texts are empty where none is kept."""

    task: TaskView
    asked: str
    text: str
    answer: AnswerView
    schema: str = "swarm.trace/1"
