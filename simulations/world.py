"""The world of one scenario: machines made from its tables, one clock, and what becomes of every event and effect."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from heapq import heappop
from itertools import cycle
from math import exp, log
from random import Random
from typing import Any, Protocol

from protocol.errors import ProtocolError
from protocol.genesis import swarm_id
from protocol.identity import Identity, NodeId
from protocol.notary import Notary
from protocol.parts import Capability
from simulations.agenda import Agenda
from simulations.machines import Handles, Machine, Process
from simulations.network import Network, exchanges_of
from simulations.notary import TrustingNotary
from simulations.registry import Registry
from simulations.scenario import MembersTable, Scenario
from simulations.sly import Sly
from simulations.trace import Recorded, line_of
from simulations.wire import Wire
from simulations.workers import Workers
from swarm.effects import (
    Announce,
    Assigned,
    Conclude,
    Dial,
    DialBack,
    Disconnect,
    Effect,
    FindProviders,
    Generate,
    Notify,
    PlanConcluded,
    Provide,
    Reply,
    Send,
    SetTimer,
    StopGenerating,
    UseRelays,
)
from swarm.events import (
    CapabilitiesChanged,
    ContactsFound,
    Event,
    GenerationFailed,
    GenerationFinished,
    LoopLate,
    NeighbourDown,
    NeighbourUp,
    Received,
    Reserved,
    Started,
    Stopping,
    TimerFired,
)
from swarm.finding.issuing import Notary as Notarises
from swarm.member import Member
from swarm.settings import Settings
from swarm.values import MEMBERSHIP, Contact

EPOCH = 1_800_000_000.0  # What a right clock shows at virtual time 0: a day in January 2027.
NUMERICS = b"virtual"  # All answers are made alike, so that anybody can go on with anybody's.
LINES_SHOWN = 40  # Of the trace, with the report of a failure.
LINE_CHARACTERS_MAX = 160  # Of those; --trace writes them in full.
LEAVE_S = 0.5  # A node that stops gives its last words this long; `node/links.py` calls it DRAIN_S.

MakeMember = Callable[[NodeId, str, Settings, Notarises, Random], Handles]


class Watcher(Protocol):
    """Sees events before they are handled and effects before they are performed, of the classes that it names."""

    def watches(self) -> dict[type, Callable[[Process, Any], None]]:
        """A method for each class of event or effect."""


class Violation(Exception):
    """An invariant does not hold. Without the place where it happened; that is for WorldFailure."""


class WorldFailure(Exception):
    """A run went wrong: an invariant, a rule of the wire, or an exception of a member. Says when, and what came before."""

    def __init__(self, scenario: str, seed: int, at: float, what: str, lines: list[str]) -> None:
        self.scenario, self.seed, self.at, self.what, self.lines = scenario, seed, at, what, lines
        before = "\n".join(f"  {line}" for line in lines)
        super().__init__(
            f"{what}\nin {scenario} at {at:.6f} s; the last lines of the trace:\n{before}\n"
            f"Play it again: swarm sim run {scenario} --seed {seed}"
        )

    def __reduce__(self) -> tuple[type[WorldFailure], tuple[str, int, float, str, list[str]]]:
        return type(self), (self.scenario, self.seed, self.at, self.what, self.lines)


class World:
    """Members, machines and everything between them. Built from a scenario and a seed; `run` moves the clock."""

    def __init__(self, scenario: Scenario, seed: int, make_member: MakeMember = Member) -> None:
        self.scenario, self.seed, self.agenda = scenario, seed, Agenda()
        self.settings = scenario.settings()
        self.events = 0
        self._make_member = make_member
        self._swarm = swarm_id(scenario.name)
        # Every source of chance has dice of its own, made from the seed and a name: what is added reshuffles nothing else.
        self.machines = self._make_machines(self.dice("machines"))
        self._wire = Wire(self.agenda, self._swarm, self.dice("wire")) if scenario.wired else None
        self.network = Network(self.agenda, scenario.network, self.machines, self.dice("network"), self._wire, self._swarm)
        self.registry = Registry(self.agenda, scenario.network, self.dice("registry"))
        self.workers = Workers(self.agenda, scenario.pieces_max)
        self._watching: dict[type, list[Callable[[Process, Any], None]]] = {}
        self._recent: deque[Recorded] = deque(maxlen=LINES_SHOWN)
        self._trace: Callable[[str], None] | None = None
        self._performers: dict[type, Callable[[Process, Any], None]] = {
            Send: lambda process, effect: self.network.send(process, effect.to, effect.message),
            SetTimer: lambda process, effect: self.agenda.post(effect.delay_s, process, TimerFired(effect.timer)),
            Dial: self.network.dial,
            DialBack: self.network.dial_back,
            UseRelays: lambda process, effect: self.network.use_relays(process, effect.nodes),
            Announce: lambda process, effect: setattr(process, "addresses", effect.addresses),
            Disconnect: lambda process, effect: self.network.disconnect(process, effect.node, effect.cause),
            Generate: self.workers.generate,
            StopGenerating: lambda process, effect: self.workers.stop(process, effect.attempt),
            Provide: lambda process, effect: self.registry.provide(process.machine, effect.subjects),
            FindProviders: lambda process, effect: self.registry.find(process, effect.subject),
            Reply: _watched_only,
            Conclude: _watched_only,
            Assigned: _watched_only,
            PlanConcluded: _watched_only,
            Notify: _watched_only,
        }
        self._schedule_starts(self.dice("starts"))

    def dice(self, name: str) -> Random:
        """Dice that depend on the seed and this name alone. Text seeds do not depend on PYTHONHASHSEED."""
        return Random(f"{self.seed} {name}")

    def watch(self, watcher: Watcher) -> None:
        """Let a watcher see what it names, from now on."""
        for cls, see in watcher.watches().items():
            self._watching.setdefault(cls, []).append(see)

    def trace(self, write: Callable[[str], None]) -> None:
        """Give a line for every handled event and every effect to `write`."""
        self._trace = write

    # --- The clock ----------------------------------------------------------------------------------------------------

    def run(self, until: float) -> None:
        """Let everything happen up to this time. Raises WorldFailure."""
        agenda, heap, deliver = self.agenda, self.agenda.heap, self._deliver
        try:
            while heap and heap[0][0] <= until:
                agenda.now, _, target, what = heappop(heap)
                if target is None:
                    what()
                elif target.open:
                    deliver(target, what)
        except (Violation, ProtocolError, AssertionError, LookupError, TypeError, ValueError) as wrong:
            raise self.failure(wrong) from wrong
        agenda.now = until

    def failure(self, wrong: Exception) -> WorldFailure:
        """What went wrong, with the time and what came before."""
        name = str(wrong) if isinstance(wrong, Violation) else f"{type(wrong).__name__}: {wrong}"
        lines = [
            line_of(at, process.machine.name, one, self._names())[:LINE_CHARACTERS_MAX]
            for at, process, what in self._recent
            for one in (what if isinstance(what, list) else [what])
        ]
        return WorldFailure(self.scenario.name, self.seed, self.agenda.now, name, lines[-LINES_SHOWN:])

    def _deliver(self, target: Any, what: Any) -> None:
        """An entry whose target is still there has come up."""
        process: Process = target.process
        if process.frozen_at is not None:
            process.missed.append((target, what))
            return
        kind = what.__class__
        if kind is bytes:
            assert self._wire is not None
            for event in self._wire.read(target, what):
                if event.__class__ is NeighbourUp:
                    self.network.reached(target, event)
                self.handle(process, event)
            return
        if target is not process:
            if kind is Received:
                message = what.message
                is_tasks = message.__class__ in self.network.task_classes
                if is_tasks and not exchanges_of(target).received(message):
                    return
            elif kind is NeighbourUp or kind is NeighbourDown:
                self.network.reached(target, what)
            elif kind is GenerationFinished or kind is GenerationFailed:
                self.workers.ended(target)
        self.handle(process, what)

    def handle(self, process: Process, event: Event) -> None:
        """Let a member handle an event, and perform the effects in order."""
        now, recent, watching, performers = self.agenda.now, self._recent, self._watching, self._performers
        self.events += 1
        recent.append((now, process, event))
        if event.__class__ in watching:
            for see in watching[event.__class__]:
                see(process, event)
        if self._trace is not None:
            self._trace(line_of(now, process.machine.name, event, self._names()))
        effects = process.member.handle(event, process.epoch + now)
        if effects:
            recent.append((now, process, effects))
        for effect in effects:
            kind = effect.__class__
            if kind in watching:
                for see in watching[kind]:
                    see(process, effect)
            if self._trace is not None:
                self._trace(line_of(now, process.machine.name, effect, self._names()))
            performers[kind](process, effect)

    def perform(self, process: Process, effect: Effect) -> None:
        """Perform one effect of a process, as if its member had just asked for it."""
        self._performers[effect.__class__](process, effect)

    # --- Machines: what faults do to them -----------------------------------------------------------------------------

    def start(self, machine: Machine) -> None:
        """A node starts, with nothing but its identity."""
        if machine.process is not None:
            return
        machine.starts += 1
        machine.has_power = True
        dice = self.dice(f"member {machine.index} start {machine.starts}")
        notary: Notarises = TrustingNotary(machine.node)
        if machine.identity is not None:
            notary = Notary(machine.identity, self._swarm, dice)
        settings = replace(self.settings, carried_max=machine.carries) if machine.carries else self.settings
        make_member = Sly if machine.hides_load and self._make_member is Member else self._make_member
        member = make_member(machine.node, machine.name, settings, notary, dice)
        process = machine.process = Process(
            machine, machine.node, member, EPOCH + machine.skew_s, addresses=machine.addresses
        )
        seeds = [seed for seed in self.machines[: self.scenario.bootstraps] if seed is not machine]
        drawn = self.dice(f"join {machine.index}").sample(seeds, min(self.scenario.join, len(seeds)))
        for event in (
            Started(machine.addresses),
            CapabilitiesChanged(machine.capabilities),
            ContactsFound("join", MEMBERSHIP, tuple(Contact(None, seed.addresses) for seed in drawn)),
        ):
            self.agenda.post(0.0, process, event)

    def crash(self, machine: Machine, silently: bool = False) -> None:
        """The node is gone without a word of its own; `silently`: its kernel as well."""
        process = machine.process
        if process is None:
            return
        machine.process = None
        machine.has_power = not silently
        process.open = False
        process.missed.clear()
        self.network.crashed(process, silently)
        self.workers.crashed(process)

    def leave(self, machine: Machine) -> None:
        """The node stops in order."""
        process = machine.process
        if process is not None:
            self.agenda.post(0.0, process, Stopping())
            self.agenda.call(LEAVE_S, lambda: self.crash(machine) if machine.process is process else None)

    def change(self, machine: Machine) -> None:
        """The node has something new to say of its models."""
        machine.changes += 1
        machine.capabilities = tuple(
            replace(offered, description=f"change {machine.changes}") for offered in machine.capabilities
        )
        if machine.process is not None and machine.process.frozen_at is None:
            self.handle(machine.process, CapabilitiesChanged(machine.capabilities))

    def reserve(self, machine: Machine, reserved: bool) -> None:
        """The owner wants the machine for itself, or not any more."""
        if machine.process is not None and machine.process.frozen_at is None:
            self.handle(machine.process, Reserved(reserved))

    def freeze(self, machine: Machine) -> None:
        """The process stands still, as after SIGSTOP or when a laptop sleeps for a moment. Its kernel still listens."""
        if machine.process is not None and machine.process.frozen_at is None:
            machine.process.frozen_at = self.agenda.now

    def thaw(self, machine: Machine) -> None:
        """The process goes on, and finds everything that it has missed, in order."""
        process = machine.process
        if process is None or process.frozen_at is None:
            return
        late_s = self.agenda.now - process.frozen_at
        process.frozen_at = None
        missed, process.missed = process.missed, []
        self.handle(process, LoopLate(late_s))
        for target, what in missed:
            if target.open:
                self._deliver(target, what)

    # --- Making -------------------------------------------------------------------------------------------------------

    def _make_machines(self, dice: Random) -> list[Machine]:
        machines: list[Machine] = []
        for table in self.scenario.members:
            for number in range(table.count):
                machines.append(self._machine(table, number, len(machines), dice))
        return machines

    def _machine(self, table: MembersTable, number: int, index: int, dice: Random) -> Machine:
        seed = sha256(f"{self.seed} node {index - number if table.twins else index}".encode()).digest()
        identity = Identity(seed) if self.scenario.wired else None
        node = identity.node if identity is not None else NodeId(seed)
        skills = dice.sample(table.skills, table.skills_each) if table.skills_each else table.skills
        speed, first_ms = _between_log(dice, table.tokens_per_second), round(dice.uniform(*table.first_token_ms))
        reading = _between_log(dice, table.tokens_in_per_second) if table.tokens_in_per_second[1] else 0.0
        models = [table.model if table.models == 1 else f"{table.model}-{model}" for model in range(table.models)]
        capabilities = tuple(
            Capability(
                skill, model, sha256(model.encode()).digest(), table.context_tokens, speed * table.claims, first_ms,
                table.slots, (), "", NUMERICS, tuple(table.features), reading, table.speedup if table.tells_speedup else 0.0,
            )
            for skill, model in zip(skills, cycle(models), strict=False)
        )
        return Machine(
            index, node, f"{table.name}-{number}", table.name, (f"/sim/{index}",), capabilities, table.failing,
            table.clock_s + dice.uniform(-table.skew_s, table.skew_s), dice.random(), dice.random(), identity,
            claims=table.claims, straggling=table.straggling, straggle_factor=table.straggle_factor,
            hidden=table.hidden, carries=table.carries, hides_load=table.hides_load, speedup=table.speedup, is_twin=table.twins,
        )  # fmt: skip

    def _schedule_starts(self, dice: Random) -> None:
        for machine in self.machines:
            # Those whom everybody dials are there first, as the bootstrap nodes of a real swarm are.
            delay_s = 0.0 if machine.index < self.scenario.bootstraps else dice.uniform(0.0, self.scenario.start_s)
            self.agenda.call(delay_s, lambda machine=machine: self.start(machine))  # type: ignore[misc]

    def _names(self) -> dict[NodeId, str]:
        if not hasattr(self, "_named"):
            self._named = {machine.node: machine.name for machine in self.machines}
        return self._named


def _watched_only(process: Process, effect: object) -> None:
    """For the user; here only watchers see it."""


def _between_log(dice: Random, bounds: tuple[float, float]) -> float:
    """Drawn so that each doubling is as likely as the next."""
    least, most = bounds
    return least if least == most else exp(dice.uniform(log(least), log(most)))
