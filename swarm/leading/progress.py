"""How far one plan has come: what is known, what may be asked next, and what comes of it. Knows neither workers nor time."""

import hashlib
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import assert_never

from protocol.parts import TaskId
from swarm.expressions import Reference, StepFailed, Value, text_of, value_of
from swarm.leading.reducing import reduced
from swarm.plans import ITEMS_MAX, Ask, Branch, Call, Compose, Filter, Map, Plan, Reduce, Step
from swarm.values import PlanId, Task, too_long

ANSWERS_CHARACTERS_MAX = 4_000_000  # Of all answers of a plan, which are held until it ends.


@dataclass(frozen=True, slots=True)
class Unit:
    """One task of a plan: the only one of its step, or the one for an element. `key` is the same for the same question only.

    `tries` counts this one.
    """

    step: str
    index: int
    key: str
    task: Task
    tries: int


@dataclass(slots=True)
class StepState:
    """A step that asks. `results` has a place for each element of `items`; `left` of them are not settled yet."""

    ask: Ask
    is_map: bool
    items: list[Value]
    results: list[Value]
    left: int
    answered: int = 0
    failed: int = 0
    known: int = 0  # Of those answered, the ones whose answers were known before.
    reason: str = ""  # Why the latest failed.


class Progress:
    """One plan under way: `take` gives what to ask next, `answered` and `failed` say what came of it."""

    def __init__(self, plan_id: PlanId, plan: Plan, known: Mapping[str, str]) -> None:
        """`known`: answers of an earlier run, by `Unit.key`."""
        self.id, self.plan = plan_id, plan
        self.steps: dict[str, StepState] = {}
        self.values: dict[str, Value] = dict(plan.inputs)
        self.failure = ""  # Why it can go no further, for people.
        self._known = known
        self._steps = plan.by_id
        self._waiting: deque[tuple[str, int]] = deque()  # Steps and places. Texts are made when they are asked: they may be large.
        self._tries: dict[tuple[str, int], int] = {}  # Of what was asked before in vain.
        self.tasks = 0  # Taken so far.
        self._characters = 0

    @property
    def is_done(self) -> bool:
        return self.plan.out.name in self.values and not self.failure

    def value(self) -> Value:
        """What it has come to. Raises StepFailed if that has no such part."""
        return self.plan.out.of(self.values)

    def take(self) -> Unit | None:
        """The next task to ask, with all done before that needs nobody. None while there is none, or if the plan has ended.

        What is asked counts; one too many is the end of the plan.
        """
        self._advance()
        while self._waiting and not self.failure:
            step, index = self._waiting.popleft()
            state = self.steps[step]
            task = self._task(step, index, state)
            if isinstance(task, str):
                self._fail(step, index, task)
            else:
                unit = Unit(step, index, _key(step, index, task), task, self._tries.get((step, index), 0) + 1)
                known = self._known.get(unit.key)
                if known is None:
                    return self._counted(unit)
                state.known += 1
                self.answered(unit, known)
            if not state.left:
                self._advance()
        return None

    def answered(self, unit: Unit, text: str) -> None:
        state = self.steps[unit.step]
        self._characters += len(text)
        if self._characters > ANSWERS_CHARACTERS_MAX:
            self.failure = f"its answers have more than {ANSWERS_CHARACTERS_MAX} characters"
        value: Value = text.strip()
        if state.ask.is_json:
            try:
                value = value_of(text)
            except StepFailed as wrong:
                return self.failed(unit, f"the answer: {wrong}")
        state.answered += 1
        self._settle(unit.step, unit.index, value)

    def failed(self, unit: Unit, reason: str) -> None:
        """There is no answer, and none will be asked for any more."""
        self._fail(unit.step, unit.index, reason)

    def again(self, unit: Unit) -> None:
        """There was no answer; the same is asked next, as another task."""
        self._tries[unit.step, unit.index] = unit.tries
        self._waiting.appendleft((unit.step, unit.index))

    def _counted(self, unit: Unit) -> Unit | None:
        if self.tasks >= self.plan.tasks_max:
            self.failure = f"its budget of {self.plan.tasks_max} tasks is used up"
            return None
        self.tasks += 1
        return unit

    # --- What can be done now -----------------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Do every step whose values are there, and let those wait that ask."""
        while not self.failure and not self.is_done:
            ready = self._ready()
            if not ready:
                return
            for step in ready:
                try:
                    self._do(step)
                except StepFailed as wrong:
                    self.failure = f"step {step.id}: {wrong}"
                    return

    def _ready(self) -> list[Step]:
        """The steps that the result needs, whose values are there, and that have not begun."""
        ready: dict[str, Step] = {}
        needed = [self.plan.out.name]
        seen = dict.fromkeys(needed)
        while needed:
            name = needed.pop()
            if name in self.values or name in self.steps:
                continue
            step = self._steps[name]
            missing = [need for need in self._needs(step) if need not in self.values]
            if not missing:
                ready[name] = step
            for need in missing:
                if need not in seen:
                    seen[need] = None
                    needed.append(need)
        return [step for step in self.plan.steps if step.id in ready]

    def _needs(self, step: Step) -> tuple[str, ...]:
        """Of a branch only the way that is taken, once that is known."""
        if not isinstance(step, Branch):
            return step.needs
        if any(name not in self.values for name in step.to_choose):
            return step.to_choose
        try:
            return (self._way(step).name,)
        except StepFailed:
            return ()  # Doing it says why.

    def _way(self, step: Branch) -> Reference:
        return step.then if step.where.of(self.values).holds(step.on.of(self.values)) else step.otherwise

    def _do(self, step: Step) -> None:
        match step:
            case Call():
                self.steps[step.id] = StepState(step.ask, False, [None], [None], 1)
                self._waiting.append((step.id, 0))
            case Map():
                self._begin_map(step)
            case Filter():
                over = self._list(step.over)
                by = over if step.by is None else self._list(step.by)
                if len(by) != len(over):
                    raise StepFailed(f"{step.over} has {len(over)} elements and {step.by} has {len(by)}")
                kept = step.where.of(self.values)
                self.values[step.id] = [item for item, other in zip(over, by, strict=True) if kept.holds(other)]
            case Reduce():
                where = None if step.where is None else step.where.of(self.values)
                items = [item for item in self._list(step.over) if where is None or where.holds(item)]
                self.values[step.id] = reduced(step.function, items)
            case Branch():
                self.values[step.id] = self._way(step).of(self.values)
            case Compose():
                self.values[step.id] = step.text.of(self.values)
            case _:
                assert_never(step)

    def _begin_map(self, step: Map) -> None:
        items = self._list(step.over)
        self.steps[step.id] = StepState(step.ask, True, items, [None] * len(items), len(items))
        for index, item in enumerate(items):
            if item is None:
                self._settle(step.id, index, None)
            else:
                self._waiting.append((step.id, index))
        if not items:
            self.values[step.id] = []

    def _list(self, reference: Reference) -> list[Value]:
        value = reference.of(self.values)
        if not isinstance(value, list):
            raise StepFailed(f"{reference} is not a list but {text_of(value)[:60]}")
        if len(value) > ITEMS_MAX:
            raise StepFailed(f"{reference} has {len(value)} elements, {ITEMS_MAX} allowed")
        return value

    # --- What is asked ------------------------------------------------------------------------------------------------

    def _task(self, step: str, index: int, state: StepState) -> Task | str:
        """The task for one place, or why there can be none."""
        values = {**self.values, "item": state.items[index], "index": index} if state.is_map else self.values
        wanted = state.ask.task
        try:
            texts = [text.of(values) for text in state.ask.texts]
        except StepFailed as wrong:
            return str(wrong)
        turns = tuple(replace(turn, text=text) for turn, text in zip(wanted.turns, texts, strict=True))
        excess = too_long(turns, wanted.demands.size)
        if excess:
            return f"too long for one task: {excess}"
        return replace(wanted, id=task_id(self.id, step, index, self._tries.get((step, index), 0)), turns=turns)

    def _fail(self, step: str, index: int, reason: str) -> None:
        state = self.steps[step]
        state.failed += 1
        state.reason = reason
        if state.ask.null_if_failed:
            self._settle(step, index, None)
        else:
            which = f", element {index}" if state.is_map else ""
            self.failure = self.failure or f"step {step}{which}: {reason}"

    def _settle(self, step: str, index: int, value: Value) -> None:
        state = self.steps[step]
        state.results[index] = value
        state.left -= 1
        if not state.left:
            self.values[step] = state.results if state.is_map else state.results[0]


def task_id(plan: PlanId, step: str, index: int, tries: int) -> TaskId:
    """Of a task of a plan that was asked so often before. Whoever leads the plan gives it the same one."""
    return TaskId(hashlib.sha256(b"starlings plan task\x00" + plan + f"{tries} {index} {step}".encode()).digest()[:16])


def _key(step: str, index: int, task: Task) -> str:
    """What an answer is known by in a later run: the place in the plan, and all that the answer depends on."""
    asked = (
        task.skill, task.model, task.worker, task.turns, task.tokens_max, task.sampling, task.stops, task.privacy.value,
        task.demands,
    )  # fmt: skip
    return f"{step} {index} {hashlib.sha256(repr(asked).encode()).hexdigest()[:32]}"
