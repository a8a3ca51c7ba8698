"""Plans inside of a member: their tasks take the way of all tasks, and every plan has one end."""

from random import Random
from typing import Any

import pytest

from protocol import errors
from protocol.messages import TaskRequest
from protocol.parts import TaskId
from swarm.effects import (
    Assigned,
    Conclude,
    Effect,
    Generate,
    Notify,
    PlanConcluded,
    PlanOverdue,
    PlanRetryDue,
    SearchOverdue,
    SetTimer,
    StepAdvanced,
    StopGenerating,
)
from swarm.events import (
    AskCancelled,
    Asked,
    CapabilitiesChanged,
    GenerationFailed,
    GenerationFinished,
    PieceGenerated,
    PlanAsked,
    PlanCancelled,
    Started,
    Stopping,
    TimerFired,
)
from swarm.leading.leading import LEFT, STOPPED
from swarm.member import Member
from swarm.plans import Plan
from swarm.settings import Settings
from swarm.values import PlanOutcome
from tests.swarm.finding.hearing import ADA, notary
from tests.swarm.leading.planning import PLAN, over, plan, reduce
from tests.swarm.samples import NOW, USAGE, capability, task


class Alone:
    """A member with a model of its own that answers when it is told to."""

    def __init__(self, slots: int = 4, **settings: Any) -> None:
        self.member = Member(ADA, "ada", Settings(**settings), notary(ADA), Random(1))
        self.now = NOW
        self.open: list[TaskRequest] = []
        self.effects: list[Effect] = []
        self.tell(Started(()))
        self.tell(CapabilitiesChanged((capability(slots=slots),)))

    def tell(self, event: Any) -> list[Effect]:
        told = self.member.handle(event, self.now)
        self.effects += told
        for effect in told:
            if isinstance(effect, Generate):
                self.open.append(effect.request)
            elif isinstance(effect, StopGenerating):
                self.open = [request for request in self.open if request.attempt != effect.attempt]
        return told

    def begin(self, made: Plan, plan_id: bytes = PLAN) -> list[Effect]:
        return self.tell(PlanAsked(plan_id, made, {}))

    def answer(self) -> list[Effect]:
        """The model ends its oldest answer, which repeats the question."""
        request = self.open.pop(0)
        told = self.tell(PieceGenerated(request.attempt, request.turns[-1].text, (1,)))
        return told + self.tell(GenerationFinished(request.attempt, USAGE))

    def ends(self, plan_id: bytes = PLAN) -> list[PlanOutcome]:
        return [told.outcome for told in self.effects if isinstance(told, PlanConcluded) and told.plan == plan_id]


def test_tasks_of_a_plan_are_given_out_and_their_answers_gathered() -> None:
    alone = Alone(plan_tasks_at_once=2)
    first = alone.begin(plan(over("a", "${list}"), reduce("b", "${a}", "join"), list=list("xyz")))
    given = [told for told in first if isinstance(told, Assigned)]
    assert [(told.plan, told.step, told.index) for told in given] == [(PLAN, "a", 0), (PLAN, "a", 1)]
    assert [told.task.turns[-1].text for told in given] == ["x", "y"]
    assert len(alone.member.leading) == 1
    assert [type(told) for told in alone.answer() if isinstance(told, Assigned | Conclude)] == [Conclude, Assigned]
    while alone.open:
        alone.answer()
    [end] = alone.ends()
    assert (end.failure, end.value, end.tasks) == ("", "x\ny\nz", 3)
    assert [(step.step, step.asked, step.answered, step.failed) for step in end.steps] == [("a", 3, 3, 0)]
    advanced = [told.notice for told in alone.effects if isinstance(told, Notify) and isinstance(told.notice, StepAdvanced)]
    assert [(notice.settled, notice.of, notice.known) for notice in advanced] == [(0, 3, 0), (1, 3, 0), (2, 3, 0), (3, 3, 0)]
    assert (len(alone.member.leading), alone.member.leading._tasks) == (0, {})


def test_a_task_of_the_plan_without_an_answer_ends_it_and_the_others() -> None:
    alone = Alone()
    alone.begin(plan(over("a", "${list}"), list=list("xyz")))
    lost = next(told.task.id for told in alone.effects if isinstance(told, Assigned) and told.index == 1)
    told = alone.tell(AskCancelled(lost))
    assert [type(effect) for effect in told if isinstance(effect, PlanConcluded)] == [PlanConcluded]
    assert len([effect for effect in told if isinstance(effect, Conclude)]) == 3
    [end] = alone.ends()
    assert end.failure == f"step a, element 1: {errors.CANCELLED.meaning}"
    assert len(alone.member.asking) == 0


def fire(alone: Alone, kind: type) -> list[float]:
    """The delays of all timers of a kind that are set, each fired when it is due."""
    delays: list[float] = []
    fired = 0
    while fired < len(alone.effects):
        told = alone.effects[fired]
        fired += 1
        if isinstance(told, SetTimer) and isinstance(told.timer, kind | SearchOverdue):
            alone.now += told.delay_s
            alone.tell(TimerFired(told.timer))
            if isinstance(told.timer, kind):
                delays.append(told.delay_s)
    return delays


def test_what_nobody_can_do_is_asked_again_now_and_then_until_it_is_given_up() -> None:
    alone = Alone(plan_tries_max=3)
    alone.begin(plan(over("a", "${list}", skill="paint"), list=["x"]))
    assert fire(alone, PlanRetryDue) == [2.0, 4.0]
    [end] = alone.ends()
    assert end.failure.startswith("step a, element 0: ")
    assert (end.tasks, end.steps[0].failed) == (3, 1)


def test_a_worker_that_comes_back_in_time_is_asked_again() -> None:
    alone = Alone()
    alone.begin(plan(over("a", "${list}", skill="paint"), list=["x", "y"]))
    for told in list(alone.effects):
        if isinstance(told, SetTimer) and isinstance(told.timer, SearchOverdue):
            alone.now += told.delay_s
            alone.tell(TimerFired(told.timer))
    assert alone.ends() == []
    alone.tell(CapabilitiesChanged((capability(skill="paint", slots=4),)))
    fire(alone, PlanRetryDue)
    while alone.open:
        alone.answer()
    [end] = alone.ends()
    assert (end.value, end.tasks) == (["x", "y"], 4)
    assert alone.tell(TimerFired(PlanRetryDue(PLAN, "a", 0))) == []


def test_what_no_time_heals_is_not_asked_again() -> None:
    alone = Alone()
    alone.begin(plan(over("a", "${list}"), list=["x"]))
    request = alone.open.pop()
    alone.tell(GenerationFailed(request.attempt, errors.TOO_LONG.number, "it does not fit"))
    assert "a" in alone.ends()[0].failure
    assert not [told for told in alone.effects if isinstance(told, SetTimer) and isinstance(told.timer, PlanRetryDue)]


@pytest.mark.parametrize(
    ("event", "why"),
    [
        (PlanCancelled(PLAN), LEFT),
        (TimerFired(PlanOverdue(PLAN)), "its deadline has passed"),
        (Stopping(), STOPPED),
    ],
)
def test_an_early_end_takes_the_tasks_with_it_and_keeps_what_there_is(event: Any, why: str) -> None:
    alone = Alone(plan_tasks_at_once=2)
    alone.begin(plan(over("a", "${list}"), list=list("xyz")))
    alone.answer()
    alone.tell(event)
    [end] = alone.ends()
    assert (end.failure, end.value, end.steps[0].values) == (why, None, ("x", None, None))
    assert len([told for told in alone.effects if isinstance(told, Assigned)]) == 3
    ends = [told.outcome.code for told in alone.effects if isinstance(told, Conclude)]
    assert ends == [None, *[errors.SHUTTING_DOWN if why == STOPPED else errors.CANCELLED] * 2]
    assert len(alone.member.asking) == 0
    assert alone.tell(event)[-1:] != [PlanConcluded(PLAN, end)]
    assert len(alone.ends()) == 1


def test_no_task_outlasts_the_plan() -> None:
    alone = Alone()
    alone.begin(plan(over("a", "${list}"), list=["x"], deadline_s=7.0))
    [given] = [told for told in alone.effects if isinstance(told, Assigned)]
    assert given.task.deadline_s == 7.0
    alone = Alone(plan_tasks_at_once=1)
    alone.begin(plan(over("a", "${list}"), list=["x", "y"], deadline_s=32.0))
    alone.now += 10.0
    alone.answer()
    assert [told.task.deadline_s for told in alone.effects if isinstance(told, Assigned)] == [30.0, 22.0]


def test_plans_are_bounded_and_a_stopping_node_begins_none() -> None:
    alone = Alone(plans_max=1)
    made = plan(over("a", "${list}"), list=["x"])
    alone.begin(made)
    alone.begin(made, b"q" * 16)
    assert "no more are begun" in alone.ends(b"q" * 16)[0].failure
    alone.answer()
    assert alone.ends()[0].value == ["x"]
    alone.tell(Stopping())
    alone.begin(made, b"r" * 16)
    assert alone.ends(b"r" * 16)[0].failure == STOPPED


def test_plans_and_tasks_beside_each_other_do_not_mix() -> None:
    alone = Alone(slots=8)
    made = plan(over("a", "${list}", "${item}"), list=["x", "y"])
    alone.begin(made)
    alone.begin(made, b"q" * 16)
    alone.tell(Asked(task(TaskId(b"t" * 16))))
    while alone.open:
        alone.answer()
    assert [end.value for end in (*alone.ends(), *alone.ends(b"q" * 16))] == [["x", "y"], ["x", "y"]]
    assert len([told for told in alone.effects if isinstance(told, Conclude)]) == 5


def test_a_plan_without_tasks_ends_at_once() -> None:
    alone = Alone()
    alone.begin(plan(reduce("a", "${list}", "sum"), list=[1, 2]))
    [end] = alone.ends()
    assert (end.value, end.tasks, end.seconds) == (3, 0, 0.0)


def test_a_result_that_has_no_such_part_is_told() -> None:
    alone = Alone()
    alone.begin(plan(over("a", "${list}"), out="${a.3}", list=["x"]))
    alone.answer()
    [end] = alone.ends()
    assert end.failure == "out: ${a.3}: a list has no 3"
