"""What each worker had beside its fair share, and how much of the work was for nothing.

Fair is that each is busy the same share of its time, which gives to each by speed and slots.

- Crowded is a worker that has more than CROWD times its fair share of all attempts that are under way, at work or waiting, and more
  than one for each slot: one task on a slow worker is more than its share, and no crowd. What counts is how long that lasts.
- Placed on it is the work that it has accepted in some WINDOW_S, beside the same share of its time in the mean of the whole run:
  at 60 %, 6 s of work for each slot in any 10 s. A worker that is busy all of the time does 1.67 times that; the rest waits, or
  has turned out to be shorter than could be known. What left a queue before it began is not counted, nor one attempt alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from protocol import errors
from protocol.parts import AttemptId
from simulations.machines import Machine, Process
from simulations.workload import capacity, offered_load
from simulations.world import World
from swarm.doing.moving import CROWDED
from swarm.effects import Assigned, Conclude, Generate
from swarm.events import Asked, GenerationFailed, GenerationFinished
from swarm.values import Task

CROWD = 2.0
LOOK_S = 0.25  # Between looks at who is crowded.
WINDOW_S = 10.0
STEP_S = 1.0  # Between the beginnings of windows.


class Shares:
    """Watches every attempt of a world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._machines = {machine.node: machine for machine in world.machines}
        self._tasks: dict[bytes, Task] = {}
        self._placed: list[tuple[float, Machine, float]] = []  # When, where, and for how long.
        self._begun: dict[AttemptId, float] = {}
        self._worked_s = self._wasted_s = 0.0
        self._crowded_since: dict[int, float] = {}
        self.crowded_s = 0.0  # The longest that any worker was crowded without a break.
        tables = world.scenario.workload
        self._speeds = [
            (machine, sum(capacity([machine], table) for table in tables)) for machine in world.machines if machine.is_worker
        ]
        self._all_speeds = sum(speed for _, speed in self._speeds)
        if self._all_speeds:
            world.agenda.call(self._rush()[0], self._look_for_crowds)

    def watches(self) -> dict[type, Callable[[Process, Any], None]]:
        return {
            Asked: self._asked, Assigned: self._asked, Conclude: self._concluded, Generate: self._generates,
            GenerationFinished: self._ended, GenerationFailed: self._ended,
        }  # fmt: skip

    @property
    def wasted(self) -> float:
        """Share of the models' time that went into attempts which were cancelled: another was faster, or the user left."""
        return self._wasted_s / self._worked_s if self._worked_s else 0.0

    def over_fair(self) -> list[float]:
        """For each worker and each window in which it was given more than one attempt for a slot: given over fair."""
        begin, end = self._rush()
        windows: dict[tuple[int, int], list[float]] = {}
        for at, machine, work_s in self._placed:
            last = int(at // STEP_S)
            for first in range(last - int(WINDOW_S / STEP_S) + 1, last + 1):
                if begin <= first * STEP_S <= end - WINDOW_S:
                    windows.setdefault((machine.index, first), []).append(work_s)
        slots = {machine.index: _slots(machine) for machine in self._machines.values()}
        fair_s = WINDOW_S * offered_load(self._world.scenario.workload, self._world.machines)
        return [
            sum(given) / slots[index] / fair_s for (index, _), given in windows.items() if len(given) > slots[index]
        ]

    def _look_for_crowds(self) -> None:
        now = self._world.agenda.now
        loads = [(machine, speed, _under_way(machine)) for machine, speed in self._speeds]
        all_loads = sum(load for _, _, load in loads)
        for machine, speed, load in loads:
            if load > _slots(machine) and load > CROWD * all_loads * speed / self._all_speeds:
                since = self._crowded_since.setdefault(machine.index, now)
                self.crowded_s = max(self.crowded_s, now - since + LOOK_S)
            else:
                self._crowded_since.pop(machine.index, None)
        if now < self._rush()[1]:
            self._world.agenda.call(LOOK_S, self._look_for_crowds)

    def _rush(self) -> tuple[float, float]:
        """From when until when all tables of the workload ask."""
        tables, end_s = self._world.scenario.workload, self._world.scenario.seconds
        begin = max((table.from_s for table in tables), default=0.0)
        return begin, min((table.until_s or end_s for table in tables), default=0.0)

    def _asked(self, process: Process, event: Asked | Assigned) -> None:
        self._tasks[event.task.id] = event.task

    def _concluded(self, process: Process, effect: Conclude) -> None:
        task = self._tasks.pop(effect.task, None)
        if task is None:
            return
        asked_at = self._world.agenda.now - effect.outcome.seconds
        tokens = (1 + task.tokens_max) / 2  # On the average: nobody can know how long the answer will be.
        for end in effect.outcome.attempts:
            machine = self._machines.get(end.worker)
            if machine is not None and end.accepted_s is not None and end.reason != CROWDED:
                self._placed.append((asked_at + end.begun_s, machine, _work_s(machine, tokens)))

    def _generates(self, process: Process, effect: Generate) -> None:
        self._begun[effect.request.attempt] = self._world.agenda.now

    def _ended(self, process: Process, event: GenerationFinished | GenerationFailed) -> None:
        worked_s = self._world.agenda.now - self._begun.pop(event.attempt, self._world.agenda.now)
        self._worked_s += worked_s
        if isinstance(event, GenerationFailed) and event.code == errors.CANCELLED.number:
            self._wasted_s += worked_s


def _work_s(machine: Machine, tokens: float) -> float:
    """How long an answer takes there."""
    return min(machine.answer_s(each, tokens) for each in machine.capabilities)


def _under_way(machine: Machine) -> int:
    """Attempts at work and in the queue. One that stands still has none: those who asked it have gone elsewhere."""
    process = machine.process
    serving = getattr(process.member, "serving", None) if process is not None and process.frozen_at is None else None
    return sum(serving.load()[1:]) if serving is not None else 0


def _slots(machine: Machine) -> int:
    return max((offered.slots for offered in machine.capabilities), default=1)
