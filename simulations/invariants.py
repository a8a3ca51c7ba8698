"""What must hold in every world: checked at each event and effect, now and then, and at the end."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from protocol.parts import AttemptId, TaskId
from simulations.machines import Process
from simulations.network import WAITING_MAX
from simulations.workers import answer_tokens, piece_text
from simulations.world import Violation, World
from swarm.choosing.standing import WORKERS_MAX
from swarm.effects import Assigned, Conclude, Generate, Reply
from swarm.events import Asked, GenerationFailed, GenerationFinished, LoopLate
from swarm.member import Member
from swarm.values import Task

LOOK_S = 20.0  # Between looks at every member; the end of a run is always looked at.
# No part of a member holds more items of one kind than this; the largest bound of any of them.
ITEMS_MAX = WORKERS_MAX
EPSILON_S = 1e-6  # Sums of the same delays in another order.


class Invariant(Protocol):
    """One thing that must hold. Raises Violation."""

    def watches(self) -> dict[type, Callable[[Process, Any], None]]: ...

    def look(self, world: World) -> None:
        """Now and then, and at the end."""

    def finish(self, world: World) -> None:
        """At the end, when every deadline has passed and every fault that ends has ended."""


@dataclass(slots=True)
class _Waiting:
    """A user who waits for the answer to a task."""

    process: Process
    task: Task
    asked_at: float
    pieces: int = 0
    excused_s: float = 0.0  # This long the process was frozen meanwhile, so its timers were late.

    @property
    def over_at(self) -> float:
        return self.asked_at + self.task.deadline_s


class EveryTaskEndsOnce:
    """Each task has exactly one end, in time; what users read before is the answer from its beginning, without gap or echo."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._waiting: dict[TaskId, _Waiting] = {}
        self.orphaned = 0  # Their node crashed, and with it went who asked.

    def watches(self) -> dict[type, Callable[[Process, Any], None]]:
        return {Asked: self._asked, Assigned: self._asked, Reply: self._replied, Conclude: self._concluded, LoopLate: self._late}

    def look(self, world: World) -> None:
        now = world.agenda.now
        for waiting in list(self._waiting.values()):
            process = waiting.process
            if not process.open:
                self.orphaned += 1
                del self._waiting[waiting.task.id]
            elif process.frozen_at is None and now > waiting.over_at + waiting.excused_s + EPSILON_S:
                raise Violation(f"a task without an end: {waiting.task.id.hex()} asked at {waiting.asked_at:.3f} s")

    def finish(self, world: World) -> None:
        for waiting in self._waiting.values():
            if waiting.process.frozen_at is None:
                raise Violation(f"a task without an end: {waiting.task.id.hex()} asked at {waiting.asked_at:.3f} s")

    def _asked(self, process: Process, event: Asked | Assigned) -> None:
        self._waiting[event.task.id] = _Waiting(process, event.task, self._world.agenda.now)

    def _replied(self, process: Process, effect: Reply) -> None:
        waiting = self._of(process, effect.task)
        if self._world.agenda.now > waiting.over_at + EPSILON_S:
            raise Violation("text of an answer after its deadline")
        if effect.text != piece_text(waiting.pieces):
            raise Violation(f"a user reads {effect.text!r} where {piece_text(waiting.pieces)!r} should come")
        waiting.pieces += 1

    def _concluded(self, process: Process, effect: Conclude) -> None:
        waiting = self._of(process, effect.task)
        del self._waiting[effect.task]
        late_s = self._world.agenda.now - waiting.over_at - EPSILON_S
        if effect.outcome.code is not None:
            if late_s > waiting.excused_s:
                raise Violation(f"a task ends {late_s:.3f} s after its deadline")
            return
        if late_s > 0:
            raise Violation(f"an answer {late_s:.3f} s after its deadline")
        task = waiting.task
        pieces = min(self._world.scenario.pieces_max, answer_tokens(task.id, task.tokens_max))
        if waiting.pieces != pieces:
            raise Violation(f"an answer counts as complete with {waiting.pieces} of {pieces} pieces")

    def _late(self, process: Process, event: LoopLate) -> None:
        for waiting in self._waiting.values():
            if waiting.process is process:
                waiting.excused_s += event.late_s

    def _of(self, process: Process, task: TaskId) -> _Waiting:
        waiting = self._waiting.get(task)
        if waiting is None or waiting.process is not process:
            raise Violation("a second end, or text after the end, of a task")
        return waiting


class WorkersKeepTheirSlots:
    """No model does more at once than it has slots, none does one attempt twice, and none does what it does not offer."""

    def __init__(self) -> None:
        self._begun: dict[AttemptId, Process] = {}

    def watches(self) -> dict[type, Callable[[Process, Any], None]]:
        return {Generate: self._generate, GenerationFinished: self._ended, GenerationFailed: self._ended}

    def look(self, world: World) -> None:
        for attempt, process in list(self._begun.items()):
            if not process.open:
                del self._begun[attempt]

    def finish(self, world: World) -> None:
        self.look(world)
        if any(process.frozen_at is None for process in self._begun.values()):
            raise Violation("a model still works after every deadline")

    def _generate(self, process: Process, effect: Generate) -> None:
        attempt = effect.request.attempt
        if self._begun.get(attempt) is process:
            raise Violation("an attempt is generated twice at once")
        needed, skill = effect.request.demands.features, effect.request.skill
        offers = [offered for offered in process.machine.capabilities if offered.model == effect.model]
        if not any(offered.skill == skill and needed.issubset(offered.features) for offered in offers):
            raise Violation(f"{effect.model} of {process.machine.name} does not offer {skill} with {sorted(needed)}")
        slots = max(offered.slots for offered in offers)
        # World and member agree on what has ended: ends reach both in the same moment.
        if sum(generation.model == effect.model for generation in process.generations.values()) >= slots:
            raise Violation(f"{effect.model} of {process.machine.name} does more than its {slots} slots allow")
        self._begun[attempt] = process

    def _ended(self, process: Process, event: GenerationFinished | GenerationFailed) -> None:
        self._begun.pop(event.attempt, None)


class QueuesAreBounded:
    """Nothing in a member or on a link grows beyond its limit, whatever happens around it."""

    def watches(self) -> dict[type, Callable[[Process, Any], None]]:
        return {}

    def look(self, world: World) -> None:
        for machine in world.machines:
            process = machine.process
            if process is None:
                continue
            for dial in process.dials.values():
                _within("messages that wait for a dial", len(dial.waiting), WAITING_MAX, process)
            if isinstance(process.member, Member):
                self._look_into(world, process, process.member)

    def finish(self, world: World) -> None:
        for machine in world.machines:
            process = machine.process
            if process is None or process.frozen_at is not None or not isinstance(process.member, Member):
                continue
            self._look_for_leaks(process, process.member)
            _, busy, queued = process.member.serving.load()
            if len(process.member.asking) or busy or queued:
                raise Violation(
                    f"{machine.name} is not done: {len(process.member.asking)} asked, {busy} busy, {queued} queued"
                )

    def _look_into(self, world: World, process: Process, member: Member) -> None:
        settings = world.settings
        models = len({offered.model for offered in process.machine.capabilities})
        _within("tasks under way", len(member.asking), settings.tasks_max, process)
        _within("attempts in the queue", member.serving.load()[2], settings.queue_max * max(1, models), process)
        _within("adverts known", len(member.index), settings.adverts_max, process)

    def _look_for_leaks(self, process: Process, member: Member) -> None:
        for part_name, part in vars(member).items():
            for name, held in getattr(part, "__dict__", {}).items():
                if isinstance(held, dict | list | deque):
                    _within(f"{part_name}.{name}", len(held), ITEMS_MAX, process)


def _within(what: str, count: int, bound: int, process: Process) -> None:
    if count > bound:
        raise Violation(f"{process.machine.name}: {count} {what}, {bound} allowed")
