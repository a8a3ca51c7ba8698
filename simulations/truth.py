"""How good each choice was, by what the world knows and no member can: who was free, how fast it really is, and who is broken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from protocol.messages import Capability, TaskId
from simulations.machines import Machine, Process
from simulations.world import World
from swarm.effects import Notify, Routed
from swarm.events import Asked
from swarm.values import Task

NEAR = 1.25  # A choice is good if the worker needs at most so many times what the best would have needed.
BROKEN = 0.5  # A machine that fails this often counts as broken.
LEARNING_TASKS = 20  # Until then a requester cannot know who is broken.


class Truth:
    """Watches every choice of a world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._machines = {machine.node: machine for machine in world.machines}
        self._by_skill: dict[str, list[tuple[Machine, Capability]]] = {}
        for machine in world.machines:
            for offered in machine.capabilities:
                self._by_skill.setdefault(offered.skill, []).append((machine, offered))
        self._tasks: dict[TaskId, Task] = {}
        self._asked: dict[int, int] = {}
        self.first_choices = self.near = self.late_choices = self.broken = 0

    def watches(self) -> dict[type, Callable[[Process, Any], None]]:
        return {Asked: self._ask, Notify: self._notify}

    @property
    def near_best(self) -> float:
        """Share of first choices within NEAR of the best."""
        return self.near / self.first_choices if self.first_choices else 1.0

    @property
    def to_broken(self) -> float:
        """Share of attempts that went to a broken worker, after each requester's first tasks."""
        return self.broken / self.late_choices if self.late_choices else 0.0

    def _ask(self, process: Process, event: Asked) -> None:
        index = process.machine.index
        self._tasks[event.task.id] = event.task
        self._asked[index] = self._asked.get(index, 0) + 1

    def _notify(self, process: Process, effect: Notify) -> None:
        notice = effect.notice
        if notice.__class__ is not Routed or notice.routing.chosen is None:
            return
        assert isinstance(notice, Routed)
        chosen = notice.routing.chosen
        assert chosen is not None
        task, machine = self._tasks[notice.task], self._machines.get(chosen)
        if self._asked[process.machine.index] > LEARNING_TASKS:
            self.late_choices += 1
            self.broken += machine is None or machine.failing >= BROKEN
        if notice.why != "first":
            return
        here = process.machine
        tokens = min(task.tokens_max, self._world.settings.tokens_expected)  # Nobody knows how long the answer will be.
        offers = self._by_skill[task.skill]
        best_s = min(
            (self._expected_s(here, found, offered, tokens) for found, offered in offers if found.failing < BROKEN),
            default=float("inf"),
        )
        self.first_choices += 1
        if machine is None:
            return  # An invention of an adversary.
        mine_s = min(self._expected_s(here, found, offered, tokens) for found, offered in offers if found is machine)
        self.near += machine.failing < BROKEN and mine_s <= NEAR * best_s

    def _expected_s(self, here: Machine, machine: Machine, capability: Capability, tokens: int) -> float:
        """How long an answer from this machine would take from now on, if nothing else happened."""
        return _work_s(machine, capability, tokens) + 2 * self._world.network.latency_s(here, machine)


def _work_s(machine: Machine, capability: Capability, tokens: int) -> float:
    process = machine.process
    if process is None or process.frozen_at is not None or machine.island:
        return float("inf")
    work_s = (capability.first_token_ms / 1000 + tokens / machine.true_speed(capability)) * machine.pace
    running = len(process.generations)
    before: int = running + process.member.serving.load()[2] - capability.slots + 1  # type: ignore[attr-defined]
    return work_s * (1 + max(0.0, before - 0.5) / capability.slots)
