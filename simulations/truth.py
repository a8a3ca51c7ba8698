"""How good each choice was, by what the world knows and no member can: who was free, how fast it really is, and who is broken.

A choice is compared with the best that could be made from news of each worker's load that has just arrived: what has happened since
such news was sent, nobody here can know, and no router is to blame for it. `near_best_now` is the same by what holds at the moment.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from typing import Any

from protocol import limits as lim
from protocol.messages import TaskCancelled, TaskRequest
from protocol.parts import Capability, TaskId
from simulations.machines import Machine, Process
from simulations.world import World
from swarm.effects import Assigned, Notify, Routed
from swarm.events import Asked, GenerationFailed, GenerationFinished, Received
from swarm.values import Task

NEAR = 1.25  # A choice is good if the worker needs at most so many times what the best would have needed.
BROKEN = 0.5  # A machine that fails this often counts as broken.
LEARNING_TASKS = 20  # Until then a requester cannot know who is broken.
CHANGES_MAX = 256  # Of one worker's load that are remembered: many more than happen while a message travels.


class Truth:
    """Watches every choice of a world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._machines = {machine.node: machine for machine in world.machines}
        self._by_skill: dict[str, list[tuple[Machine, Capability]]] = {}
        self._loads: dict[int, Loads] = {}
        for machine in world.machines:
            self._loads[machine.index] = Loads()
            for offered in machine.capabilities:
                self._by_skill.setdefault(offered.skill, []).append((machine, offered))
        self._tasks: dict[TaskId, Task] = {}
        self._asked: dict[int, int] = {}
        self.first_choices = self.near = self.near_now = 0
        self.learnt_choices = self.near_learnt = 0
        self.late_choices = self.broken = 0

    def watches(self) -> dict[type, Callable[[Process, Any], None]]:
        return {
            Asked: self._ask, Assigned: self._ask, Notify: self._notify, Received: self._received,
            GenerationFinished: self._changes, GenerationFailed: self._changes,
        }  # fmt: skip

    @property
    def near_best(self) -> float:
        """Share of first choices within NEAR of the best, by the newest loads that could be known."""
        return self.near / self.first_choices if self.first_choices else 1.0

    @property
    def near_best_now(self) -> float:
        """The same by the loads of that moment."""
        return self.near_now / self.first_choices if self.first_choices else 1.0

    @property
    def near_best_learnt(self) -> float:
        """As `near_best`, after each requester's first tasks."""
        return self.near_learnt / self.learnt_choices if self.learnt_choices else 1.0

    @property
    def to_broken(self) -> float:
        """Share of attempts that went to a broken worker, after each requester's first tasks."""
        return self.broken / self.late_choices if self.late_choices else 0.0

    def _ask(self, process: Process, event: Asked | Assigned) -> None:
        index = process.machine.index
        self._tasks[event.task.id] = event.task
        self._asked[index] = self._asked.get(index, 0) + 1

    def _received(self, process: Process, event: Received) -> None:
        if isinstance(event.message, TaskRequest | TaskCancelled):
            self._changes(process, event)

    def _changes(self, process: Process, event: object) -> None:
        """The load of a worker is about to change: up to now it was what it is."""
        if process.machine.is_worker:
            self._loads[process.machine.index].until(self._world.agenda.now, _load(process))

    def _notify(self, process: Process, effect: Notify) -> None:
        notice = effect.notice
        if not isinstance(notice, Routed) or notice.routing.chosen is None:
            return
        here, machine = process.machine, self._machines.get(notice.routing.chosen)
        learnt = self._asked[here.index] > LEARNING_TASKS
        if learnt:
            self.late_choices += 1
            self.broken += machine is None or machine.failing >= BROKEN
        if notice.why != "first":
            return
        task = self._tasks[notice.task]
        near, near_now = self._is_near(here, machine, task, True), self._is_near(here, machine, task, False)
        self.first_choices += 1
        self.near += near
        self.near_now += near_now
        if learnt:
            self.learnt_choices += 1
            self.near_learnt += near

    def _is_near(self, here: Machine, chosen: Machine | None, task: Task, as_known: bool) -> bool:
        """Whether a worker would need at most NEAR times as long as the best."""
        if chosen is None or chosen.failing >= BROKEN:
            return False  # Broken, or an invention of an adversary.
        tokens = min(task.tokens_max, self._world.settings.tokens_expected)  # Nobody knows how long the answer will be.
        expected = [
            (self._expected_s(here, machine, offered, tokens, as_known), machine)
            for machine, offered in self._by_skill[task.skill]
            if machine.failing < BROKEN
        ]
        mine_s = min(expected_s for expected_s, machine in expected if machine is chosen)
        return mine_s <= NEAR * min(expected_s for expected_s, _ in expected)

    def _expected_s(
        self, here: Machine, machine: Machine, capability: Capability, tokens: int, as_known: bool
    ) -> float:
        """How long an answer from this machine would take from now on, if nothing else happened."""
        process = machine.process
        if process is None or process.frozen_at is not None or machine.island or self._is_refused(here, machine):
            return float("inf")
        latency_s, load = self._world.network.latency_s(here, machine), _load(process)
        if as_known:
            load = self._loads[machine.index].at(self._world.agenda.now - latency_s, load)
        work_s = machine.answer_s(capability, tokens) * machine.pace * machine.shared(capability, load + 1)
        before = load - capability.slots + 1
        return 2 * latency_s + work_s * (1 + max(0.0, before - 0.5) / capability.slots)

    def _is_refused(self, here: Machine, machine: Machine) -> bool:
        """Whether the two refuse each other's greetings, because one of their clocks is wrong."""
        return self._world.scenario.wired and abs(here.skew_s - machine.skew_s) * 1000 > lim.CLOCK_SKEW_MS_MAX


class Loads:
    """What a worker had to do, and until when."""

    def __init__(self) -> None:
        self._until: list[float] = []
        self._loads: list[int] = []

    def until(self, now: float, load: int) -> None:
        """Up to now this was its load."""
        self._until.append(now)
        self._loads.append(load)
        if len(self._until) > CHANGES_MAX:
            del self._until[: CHANGES_MAX // 2], self._loads[: CHANGES_MAX // 2]

    def at(self, then: float, load_now: int) -> int:
        """Its load at a moment in the past."""
        found = bisect_right(self._until, then)
        return self._loads[found] if found < len(self._loads) else load_now


def _load(process: Process) -> int:
    """Attempts at work and in the queue. A model that was told to stop is at work until it has stopped."""
    queued: int = process.member.serving.load()[2]  # type: ignore[attr-defined]
    return len(process.generations) + queued
