"""A plan: a larger task as a graph of steps, each a value that others are made from; and what makes one impossible."""

from collections.abc import Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from swarm.expressions import NAME, Condition, PlanError, Reference, Template, Value, oddity
from swarm.values import Task

STEPS_MAX = 64
TASKS_MAX = 4096  # Of one plan.
ITEMS_MAX = TASKS_MAX  # Of one list.
FUNCTIONS = ("count", "sum", "mean", "min", "max", "mode", "first", "sort", "concat", "join")  # Of the step `reduce`.
OWN = ("item", "index")  # What a map calls the element at hand and its place.


@dataclass(frozen=True, slots=True)
class Ask:
    """What a step asks of a worker. `texts` are those of the turns of `task`, one for each.

    `is_json`: the answer is JSON, and its value is what that says. `null_if_failed`: whoever gets no answer goes on without.
    """

    task: Task
    texts: tuple[Template, ...]
    is_json: bool = False
    null_if_failed: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for text in self.texts for name in text.names)


@dataclass(frozen=True, slots=True)
class Call:
    """One task; its value is the answer."""

    id: str
    ask: Ask

    @property
    def needs(self) -> tuple[str, ...]:
        return self.ask.names


@dataclass(frozen=True, slots=True)
class Map:
    """One task for each element of a list; its value is the list of answers, null where the element is."""

    id: str
    over: Reference
    ask: Ask

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.over.name, *(name for name in self.ask.names if name not in OWN))


@dataclass(frozen=True, slots=True)
class Filter:
    """The elements of a list for which a condition holds: of themselves, or of what stands at their places in the list `by`."""

    id: str
    over: Reference
    where: Condition
    by: Reference | None = None

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.over.name, *(() if self.by is None else (self.by.name,)), *self.where.names)


@dataclass(frozen=True, slots=True)
class Reduce:
    """One value out of a list, or out of its elements for which a condition holds."""

    id: str
    over: Reference
    function: str
    where: Condition | None = None

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.over.name, *(() if self.where is None else self.where.names))


@dataclass(frozen=True, slots=True)
class Branch:
    """One of two values. What only the other one needs is not asked for."""

    id: str
    on: Reference
    where: Condition
    then: Reference
    otherwise: Reference

    @property
    def to_choose(self) -> tuple[str, ...]:
        """What is needed to know the way."""
        return (self.on.name, *self.where.names)

    @property
    def needs(self) -> tuple[str, ...]:
        return (*self.to_choose, self.then.name, self.otherwise.name)


@dataclass(frozen=True, slots=True)
class Compose:
    """A text made from values, without asking anybody."""

    id: str
    text: Template

    @property
    def needs(self) -> tuple[str, ...]:
        return self.text.names


Step = Call | Map | Filter | Reduce | Branch | Compose


@dataclass(frozen=True, slots=True)
class Plan:
    """A larger task. Only what `out` needs is done, and what needs nothing of each other is done at the same time.

    `tasks_max`: no more are asked for, whatever comes of it. Raises PlanError if it could never be carried out.
    """

    steps: tuple[Step, ...]
    inputs: Mapping[str, Value]
    out: Reference
    tasks_max: int
    deadline_s: float

    def __post_init__(self) -> None:
        if not 1 <= len(self.steps) <= STEPS_MAX:
            raise PlanError(f"{len(self.steps)} steps; a plan has 1 to {STEPS_MAX}")
        self._check_names()
        self._check_order()
        least = self._tasks_at_least()
        if least > self.tasks_max:
            raise PlanError(f"{least} tasks at least, and its budget is {self.tasks_max}; raise budget.tasks, or ask for less")

    @property
    def by_id(self) -> dict[str, Step]:
        return {step.id: step for step in self.steps}

    def _check_names(self) -> None:
        known = dict.fromkeys(self.inputs)
        for name in self.inputs:
            if not NAME.fullmatch(name) or name in OWN:
                raise PlanError(f"an input cannot be called {name[:80]!r}")
            value = self.inputs[name]
            wrong = oddity(value)
            if isinstance(value, list) and len(value) > ITEMS_MAX:
                wrong = f"{len(value)} elements, {ITEMS_MAX} allowed"
            if wrong:
                raise PlanError(f"input {name}: {wrong}")
        for step in self.steps:
            if not NAME.fullmatch(step.id) or step.id in OWN:
                raise PlanError(f"a step cannot be called {step.id[:80]!r}; letters, digits, - and _, and not item or index")
            if step.id in known:
                raise PlanError(f"step {step.id}: something else is called so")
            known[step.id] = None
            if isinstance(step, Reduce) and step.function not in FUNCTIONS:
                raise PlanError(f"step {step.id}: no function {step.function[:80]!r}; there are {', '.join(FUNCTIONS)}")
        for step in self.steps:
            for name in step.needs:
                if name not in known:
                    hint = "; only the text of a map has an item" if name in OWN else ""
                    raise PlanError(f"step {step.id}: nothing is called {name}{hint}")
        if self.out.name not in known:
            raise PlanError(f"out: nothing is called {self.out.name}")

    def _check_order(self) -> None:
        before = {step.id: [need for need in step.needs if need not in self.inputs] for step in self.steps}
        try:
            TopologicalSorter(before).prepare()
        except CycleError as wrong:
            raise PlanError(f"{' needs '.join(reversed(wrong.args[1]))}: that is a circle") from None

    def _tasks_at_least(self) -> int:
        """How many tasks cannot be avoided, as far as that is known before the first is asked."""
        steps, count = self.by_id, 0
        needed, seen = [self.out.name], dict.fromkeys([self.out.name])
        while needed:
            step = steps.get(needed.pop())
            if step is None:
                continue
            count += self._tasks_of(step)
            for name in step.to_choose if isinstance(step, Branch) else step.needs:
                if name not in seen:
                    seen[name] = None
                    needed.append(name)
        return count

    def _tasks_of(self, step: Step) -> int:
        if isinstance(step, Call):
            return 1
        if isinstance(step, Map) and not step.over.path:
            over = self.inputs.get(step.over.name)
            return sum(item is not None for item in over) if isinstance(over, list) else 0
        return 0
