"""Who asks what, and when: the tasks of a scenario as entries of the agenda."""

from collections.abc import Sequence
from functools import partial
from random import Random
from typing import Any

from protocol.parts import Demands, Sampling, TaskId, Turn
from simulations.machines import Machine
from simulations.plans import plan_over
from simulations.scenario import WorkloadTable
from simulations.world import World
from swarm.events import AskCancelled, Asked, PlanAsked, PlanCancelled
from swarm.values import Privacy, Task

DEMANDS: dict[str, Any] = {
    "schema": "{}", "grammar": 'root ::= "0"', "options": ("0", "1"), "forced": "0", "logprobs": 1, "tools": "[]",
}  # fmt: skip
"""What each demand looks like; virtual models answer as always."""


class Workload:
    """Schedules every task of a world. What is asked, by whom and when depends on the seed alone, never on how tasks fare."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.unasked = 0  # Their node was down, so nobody could ask.
        for number, table in enumerate(world.scenario.workload):
            dice = world.dice(f"workload {number}")
            asking = [machine for machine in world.machines if table.by in ("", machine.group)]
            asking = asking[: table.requesters or None]
            rate = table.rate_per_s or table.load * capacity(world.machines, table)
            first_s = dice.uniform(0.0, table.burst / rate)
            world.agenda.call(table.from_s + first_s, partial(self._come, table, rate, asking, dice))

    def _come(self, table: WorkloadTable, rate: float, asking: list[Machine], dice: Random) -> None:
        world = self._world
        if world.agenda.now >= (table.until_s or world.scenario.seconds):
            return
        for _ in range(table.burst if table.arrival == "bursts" else 1):
            self._ask(table, asking, dice)
        match table.arrival:
            case "poisson":
                wait_s = dice.expovariate(rate)
            case "even":
                wait_s = 1.0 / rate
            case "bursts":
                wait_s = table.burst / rate
        world.agenda.call(wait_s, partial(self._come, table, rate, asking, dice))

    def _ask(self, table: WorkloadTable, asking: list[Machine], dice: Random) -> None:
        machine = asking[dice.randrange(len(asking))]
        task_id = TaskId(dice.randbytes(16))
        question = task_id.hex().ljust(table.input_bytes, "?")[: table.input_bytes]  # No two alike: nobody holds it already.
        task = Task(
            id=task_id,
            skill=table.skills[dice.randrange(len(table.skills))],
            turns=(*self._instructions(table, dice), Turn("user", question)),
            model="",
            tokens_max=dice.randint(*table.tokens),
            sampling=Sampling(),
            stops=(),
            deadline_s=table.deadline_s,
            privacy=Privacy.SWARM,
            worker=None,
            demands=Demands(**{feature: DEMANDS[feature] for feature in table.demands}),
        )
        event: Asked | PlanAsked = Asked(task)
        if table.items[1]:
            event = PlanAsked(task.id, plan_over(dice.randint(*table.items), table.skills, task), {})
        impatient, patience_s = dice.random() < table.cancelled, dice.uniform(*table.patience_s)
        process = machine.process
        if process is None or process.frozen_at is not None:
            self.unasked += 1
            return
        self._world.handle(process, event)
        if impatient:
            leaving = PlanCancelled(task.id) if table.items[1] else AskCancelled(task.id)
            self._world.agenda.post(patience_s, process, leaving)

    def _instructions(self, table: WorkloadTable, dice: Random) -> tuple[Turn, ...]:
        """Those of one of the programs."""
        if not table.prefixes:
            return ()
        return (Turn("system", f"program {dice.randrange(table.prefixes)} ".ljust(table.prefix_bytes, ".")),)


def offered_load(tables: Sequence[WorkloadTable], machines: Sequence[Machine]) -> float:
    """What is asked, as a share of what all workers can do."""
    return sum(table.load or table.rate_per_s / max(capacity(machines, table), 1e-9) for table in tables)


def capacity(machines: Sequence[Machine], table: WorkloadTable) -> float:
    """How many of these tasks all workers could do in a second, if each were busy all of the time."""
    tokens = (sum(table.tokens) / 2 + 1) / 2  # Answers are as long as is allowed, or any shorter: see `answer_tokens`.
    tasks = 0.0
    for machine in machines:
        offered = [each for each in machine.capabilities if each.skill in table.skills]
        each_s = [machine.answer_s(each, tokens) * machine.shared(each, each.slots) / each.slots for each in offered]
        tasks += 1 / min(each_s) if each_s else 0.0
    return tasks
