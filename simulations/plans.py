"""Plans in a virtual world: what is asked for, and whether what comes of it is right.

Of each item the first skill is asked. Those whose answer has a fourth piece are kept, the last skill is asked of each of them, and
the result is the list of these answers. Virtual models answer the same task alike whoever and wherever they are, so that the result
can be worked out without any swarm.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from protocol.parts import TaskId, Turn
from simulations.invariants import EPSILON_S
from simulations.machines import Process
from simulations.workers import answer_tokens, piece_text
from simulations.world import Violation, World
from swarm.effects import Assigned, Conclude, PlanConcluded
from swarm.events import LoopLate, PlanAsked
from swarm.expressions import Condition, Reference, Template, Value
from swarm.plans import Ask, Filter, Map, Plan
from swarm.values import PlanId, Task

KEPT = Condition(contains=piece_text(3).strip())


def plan_over(items: int, skills: Sequence[str], task: Task) -> Plan:
    """A plan over so many items, whose tasks are like `task`."""
    texts: list[Value] = [f"{index} {task.turns[-1].text}" for index in range(items)]
    likes = [replace(task, skill=skill, turns=(Turn("user", "${item}"),)) for skill in (skills[0], skills[-1])]
    asks = [Ask(like, (Template((Reference("item"),)),)) for like in likes]
    steps = (
        Map("first", Reference("items"), asks[0]),
        Filter("kept", Reference("items"), KEPT, Reference("first")),
        Map("last", Reference("kept"), asks[1]),
    )
    return Plan(steps, {"items": texts}, Reference("last"), 8 * items, task.deadline_s)


class EveryPlanEndsRight:
    """Each plan has exactly one end, in time; one that is done has the right result, and has asked again only what had failed."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._waiting: dict[PlanId, tuple[Process, Plan, float]] = {}
        self._assigned: dict[PlanId, dict[tuple[str, int], TaskId]] = {}
        self._failed: dict[TaskId, None] = {}

    def watches(self) -> dict[type, Callable[[Process, Any], None]]:
        return {
            PlanAsked: self._asked, Assigned: self._gave_out, Conclude: self._ended, PlanConcluded: self._concluded,
            LoopLate: self._late,
        }  # fmt: skip

    def look(self, world: World) -> None:
        now = world.agenda.now
        for plan, (process, _, over_at) in list(self._waiting.items()):
            if not process.open:
                del self._waiting[plan], self._assigned[plan]
            elif process.frozen_at is None and now > over_at + EPSILON_S:
                raise Violation(f"a plan without an end: {plan.hex()}")

    def finish(self, world: World) -> None:
        self.look(world)
        if any(process.frozen_at is None for process, _, _ in self._waiting.values()):
            raise Violation("a plan without an end")

    def _asked(self, process: Process, event: PlanAsked) -> None:
        self._waiting[event.id] = process, event.plan, self._world.agenda.now + event.plan.deadline_s
        self._assigned[event.id] = {}

    def _gave_out(self, process: Process, effect: Assigned) -> None:
        if effect.plan not in self._waiting:
            raise Violation("a task of a plan that has ended")
        assigned, place = self._assigned[effect.plan], (effect.step, effect.index)
        if place in assigned and assigned[place] not in self._failed:
            raise Violation("a plan has asked for the same twice")
        assigned[place] = effect.task.id

    def _ended(self, process: Process, effect: Conclude) -> None:
        if effect.outcome.code is not None:
            self._failed[effect.task] = None

    def _concluded(self, process: Process, effect: PlanConcluded) -> None:
        if effect.plan not in self._waiting or self._waiting[effect.plan][0] is not process:
            raise Violation("a second end of a plan")
        _, plan, over_at = self._waiting.pop(effect.plan)
        assigned = self._assigned.pop(effect.plan)
        if self._world.agenda.now > over_at + EPSILON_S:
            raise Violation("a plan ends after its deadline")
        if effect.outcome.failure:
            return
        value, asked = self._worked_out(assigned, plan)
        if effect.outcome.value != value:
            raise Violation(f"a plan came to {effect.outcome.value!r} where {value!r} is right")
        if len(assigned) != asked:
            raise Violation(f"a plan has asked {len(assigned)} tasks where {asked} do")

    def _late(self, process: Process, event: LoopLate) -> None:
        for plan, (waiting, asked, over_at) in self._waiting.items():
            if waiting is process:
                self._waiting[plan] = waiting, asked, over_at + event.late_s

    def _worked_out(self, assigned: dict[tuple[str, int], TaskId], plan: Plan) -> tuple[list[str], int]:
        """The result, and how many tasks it takes."""
        items = plan.inputs["items"]
        assert isinstance(items, list)
        kept = sum(KEPT.holds(self._answer(assigned["first", index], plan)) for index in range(len(items)))
        return [self._answer(assigned["last", index], plan) for index in range(kept)], len(items) + kept

    def _answer(self, task: TaskId, plan: Plan) -> str:
        step = plan.steps[0]
        assert isinstance(step, Map)
        tokens = answer_tokens(task, step.ask.task.tokens_max)
        return "".join(map(piece_text, range(min(self._world.scenario.pieces_max, tokens)))).strip()
