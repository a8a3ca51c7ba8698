"""Machines and the processes that run on them: what stays when a node crashes, and what is lost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from protocol.identity import Identity, NodeId
from protocol.parts import AttemptId, Capability
from swarm.effects import Effect
from swarm.events import Event

if TYPE_CHECKING:
    from simulations.network import DialUnderWay, End


class Handles(Protocol):
    """What the world drives: `swarm.member.Member`, or a stand-in of the tests."""

    def handle(self, event: Event, now: float) -> list[Effect]: ...


@dataclass(slots=True, eq=False)
class Machine:
    """One computer with its identity. It outlives crashes of the node that runs on it.

    `x` and `y` place it on a map of side 1, which decides distances. Two machines hear each other only while they have the
    same `island`. `pace` multiplies the time that its models take; a share `failing` of their answers breaks off,
    `claims` is how many times its true speed it advertises,
    and a share `straggling` takes `straggle_factor` times as long.
    One that `hides_load` says at all times that it is free.
    `has_power` False: nobody there even refuses a connection. `hidden`: its router lets nobody in. `carries` is for how many
    neighbours it is a relay. `speedup` is how many times as fast as one slot alone all of a model's slots are together; 0: each has
    a processor of its own.
    """

    index: int
    node: NodeId
    name: str
    group: str
    addresses: tuple[str, ...]
    capabilities: tuple[Capability, ...]
    failing: float
    skew_s: float
    x: float
    y: float
    identity: Identity | None = None  # Only in wired worlds.
    island: int = 0
    pace: float = 1.0
    has_power: bool = True
    starts: int = 0
    changes: int = 0  # Of what it says of its models.
    claims: float = 1.0
    straggling: float = 0.0
    straggle_factor: float = 1.0
    hidden: bool = False
    carries: int = 0
    hides_load: bool = False
    speedup: float = 0.0
    is_twin: bool = False  # Of others with the same identity.
    process: Process | None = None

    @property
    def is_worker(self) -> bool:
        return bool(self.capabilities)

    def true_speed(self, capability: Capability) -> float:
        """Tokens per second, whatever is advertised."""
        return capability.tokens_per_second / self.claims

    def shared(self, capability: Capability, at_work: int) -> float:
        """How many times as long everything takes while so many slots are at work."""
        others = max(0, min(at_work, capability.slots) - 1)
        return 1 + others * (1 / self.speedup - 1 / capability.slots) if self.speedup else 1.0

    def answer_s(self, capability: Capability, tokens: float) -> float:
        """How long an answer takes at its usual pace."""
        return capability.first_token_ms / 1000 + tokens / self.true_speed(capability)


@dataclass(slots=True, eq=False)
class Process:
    """One run of a node, from start to crash. `open` False: it is over, and nothing happens to it any more.

    A frozen process misses what happens to it, and catches up when it thaws, as a stopped one does that the kernel serves.
    """

    machine: Machine
    node: NodeId
    member: Handles
    epoch: float  # What this machine's clock showed at virtual time 0.
    open: bool = True
    frozen_at: float | None = None
    missed: list[tuple[Any, Any]] = field(default_factory=list)
    links: dict[NodeId, End] = field(default_factory=dict)
    dials: dict[NodeId, DialUnderWay] = field(default_factory=dict)
    generations: dict[AttemptId, Generation] = field(default_factory=dict)
    addresses: tuple[str, ...] = ()  # As its member has them told.
    read: dict[str, list[bytes]] = field(default_factory=dict)  # Model to the prefixes that it holds, the latest last.
    relays: dict[NodeId, None] = field(default_factory=dict)  # That carry for it,
    carried: dict[NodeId, None] = field(default_factory=dict)  # and whom it carries for.

    @property
    def process(self) -> Process:
        """Itself: as the target of an entry, a process is its own."""
        return self


@dataclass(slots=True, eq=False)
class Generation:
    """One answer that a virtual model is writing."""

    process: Process
    attempt: AttemptId
    model: str
    open: bool = True
