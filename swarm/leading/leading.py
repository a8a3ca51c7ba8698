"""Leads the plans of this node's users: gives out their tasks, so many at once, and gathers the answers.

The requester leads its own plans. Each task takes the way of any other: it is placed, hedged and gone on with elsewhere as those
are, so the death of a worker is no matter of the plan.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from protocol import errors
from protocol.parts import TaskId
from swarm.effects import Assigned, Effect, Notify, PlanConcluded, PlanOverdue, PlanRetryDue, SetTimer, StepAdvanced
from swarm.events import PlanAsked
from swarm.expressions import StepFailed, Value
from swarm.leading.progress import Progress, Unit
from swarm.settings import Settings
from swarm.values import Outcome, PlanId, PlanOutcome, StepOutcome, Task

# What time may heal: somebody able comes back, or there is room again. Everything else is an end.
AGAIN = (
    errors.NO_CAPABLE_PEER, errors.TOO_MANY_TASKS, errors.EXHAUSTED, errors.STREAM_BROKEN, errors.BACKEND_FAILED,
)  # fmt: skip
STOPPED = "this node is stopping"
LEFT = "whoever asked has left"


@dataclass(slots=True)
class _Led:
    progress: Progress
    begun_at: float
    open: dict[TaskId, tuple[Unit, list[str]]] = field(default_factory=dict)  # With what has been answered so far.
    resting: dict[tuple[str, int], Unit] = field(default_factory=dict)  # Until they are asked again.
    told: dict[str, int] = field(default_factory=dict)  # Of each step how many tasks are settled, as was told last.

    def advanced(self) -> list[Effect]:
        """News of the steps that have come further."""
        news: list[Effect] = []
        for name, state in self.progress.steps.items():
            settled = len(state.results) - state.left
            if self.told.get(name) != settled:
                self.told[name] = settled
                news.append(Notify(StepAdvanced(self.progress.id, name, settled, len(state.results), state.known)))
        return news


class Leading:
    """The plans under way. `ask` and `cancel` are what any task of this node goes through."""

    def __init__(
        self,
        settings: Settings,
        ask: Callable[[Task, float], list[Effect]],
        cancel: Callable[[TaskId, float], list[Effect]],
    ) -> None:
        self._settings, self._ask, self._cancel = settings, ask, cancel
        self._plans: dict[PlanId, _Led] = {}
        self._tasks: dict[TaskId, _Led] = {}
        self._stopping = False

    def __len__(self) -> int:
        return len(self._plans)

    def __contains__(self, task: object) -> bool:
        """Whether it is a task of a plan."""
        return task in self._tasks

    def begin(self, asked: PlanAsked, now: float) -> list[Effect]:
        led = _Led(Progress(asked.id, asked.plan, asked.known), now)
        if self._stopping or len(self._plans) >= self._settings.plans_max:
            led.progress.failure = STOPPED if self._stopping else f"{len(self._plans)} plans are under way, no more are begun"
            return [PlanConcluded(asked.id, _outcome(led, now))]
        self._plans[asked.id] = led
        return [SetTimer(asked.plan.deadline_s, PlanOverdue(asked.id)), *self._go_on(led, now)]

    def said(self, task: TaskId, text: str) -> None:
        """More of the answer to a task."""
        self._tasks[task].open[task][1].append(text)

    def concluded(self, task: TaskId, outcome: Outcome, now: float) -> list[Effect]:
        """A task of a plan has ended."""
        led = self._tasks.pop(task)
        unit, texts = led.open.pop(task)
        if outcome.code is None:
            led.progress.answered(unit, "".join(texts))
        elif outcome.code in AGAIN and unit.tries < self._settings.plan_tries_max:
            led.resting[unit.step, unit.index] = unit
            wait_s = self._settings.plan_retry_s * 2 ** (unit.tries - 1)
            return [SetTimer(wait_s, PlanRetryDue(led.progress.id, unit.step, unit.index)), *self._go_on(led, now)]
        else:
            led.progress.failed(unit, outcome.reason or outcome.code.meaning)
        return self._go_on(led, now)

    def retry_due(self, timer: PlanRetryDue, now: float) -> list[Effect]:
        led = self._plans.get(timer.plan)
        unit = led.resting.pop((timer.step, timer.index), None) if led is not None else None
        if led is None or unit is None:
            return []
        led.progress.again(unit)
        return self._go_on(led, now)

    def overdue(self, timer: PlanOverdue, now: float) -> list[Effect]:
        return self._give_up(timer.plan, "its deadline has passed", now)

    def cancel(self, plan: PlanId, now: float) -> list[Effect]:
        return self._give_up(plan, LEFT, now)

    def stop(self, now: float) -> list[Effect]:
        """The node is stopping: every plan ends now, and none begins any more. Their tasks end as all others do."""
        self._stopping = True
        ends: list[Effect] = []
        for plan, led in self._plans.items():
            led.progress.failure = STOPPED
            ends.append(PlanConcluded(plan, _outcome(led, now)))
        self._plans.clear()
        self._tasks.clear()
        return ends

    def _give_up(self, plan: PlanId, why: str, now: float) -> list[Effect]:
        led = self._plans.get(plan)
        if led is None:
            return []
        led.progress.failure = why
        return self._end(led, now)

    def _go_on(self, led: _Led, now: float) -> list[Effect]:
        """Give out what can be asked now. The deadline of each task is the plan's at the latest."""
        progress, assigned = led.progress, list[Effect]()
        left_s = led.begun_at + progress.plan.deadline_s - now
        while len(led.open) < self._settings.plan_tasks_at_once and left_s > 0:
            unit = progress.take()
            if unit is None:
                break
            task = replace(unit.task, deadline_s=min(unit.task.deadline_s, left_s))
            led.open[task.id] = (unit, [])
            self._tasks[task.id] = led
            assigned += [Assigned(progress.id, unit.step, unit.index, unit.key, task), *self._ask(task, now)]
        ended = self._end(led, now) if progress.is_done or progress.failure else []
        return [*led.advanced(), *assigned, *ended]

    def _end(self, led: _Led, now: float) -> list[Effect]:
        del self._plans[led.progress.id]
        effects: list[Effect] = []
        for task in led.open:
            del self._tasks[task]
            effects += self._cancel(task, now)
        return [*effects, PlanConcluded(led.progress.id, _outcome(led, now))]


def _outcome(led: _Led, now: float) -> PlanOutcome:
    progress = led.progress
    value: Value = None
    if progress.is_done:
        try:
            value = progress.value()
        except StepFailed as wrong:
            progress.failure = f"out: {wrong}"
    steps = tuple(
        StepOutcome(name, len(state.results), state.answered, state.known, state.failed, state.reason, tuple(state.results))
        for name, state in progress.steps.items()
    )
    return PlanOutcome(progress.failure, value, steps, progress.tasks, now - led.begun_at)
