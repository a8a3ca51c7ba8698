"""Plans over HTTP: a larger task as a graph of steps in JSON, checked before anything is asked; its progress as events."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

import msgspec
import trio
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from node.api.bodies import read_json
from node.api.control import AskBody, asked_task
from node.api.edge import internal_error
from node.api.errors import ApiError, bad_request, error_body
from node.api.past import Label, unreadable
from node.api.streaming import EVENT_STREAM, KEEP_ALIVE, KEEP_ALIVE_S, body_part, named_event
from node.api.tasks import Service
from node.api.waiting import stopping, while_connected
from node.desk import PlanEnded, PlanItem, TaskEnded
from node.store.journal import JournalError
from node.views import PlanStepView, PlanTaskView, PlanView, SettledView
from swarm.events import PlanAsked
from swarm.expressions import Condition, PlanError, reference_of, template_of
from swarm.plans import STEPS_MAX, TASKS_MAX, Ask, Branch, Call, Compose, Filter, Map, Plan, Reduce, Step
from swarm.values import PlanOutcome

TASKS_DEFAULT = 256
DEADLINE_S_DEFAULT = 600.0
PLAN_S_MAX = 86_400.0

_encode = msgspec.json.Encoder().encode
_NOT_GIVEN: Any = msgspec.UNSET


class ConditionBody(
    msgspec.Struct, forbid_unknown_fields=True, rename={"same": "is", "one_of": "in", "unless": "not"}, kw_only=True
):
    """What a value must be: all that is given must hold."""

    field: str = ""
    same: Any = _NOT_GIVEN
    one_of: list[Any] | None = None
    contains: str | None = None
    above: float | None = None
    below: float | None = None
    unless: "ConditionBody | None" = None


class StepBody(msgspec.Struct, forbid_unknown_fields=True, tag_field="op", kw_only=True):
    """One step; `op` says which."""

    id: str


class AskingBody(StepBody, kw_only=True):
    call: AskBody
    on_fail: Literal["fail", "null"] = "fail"


class CallBody(AskingBody, tag="call"):
    pass


class MapBody(AskingBody, tag="map"):
    over: str


class FilterBody(StepBody, tag="filter"):
    over: str
    where: ConditionBody
    by: str | None = None


class ReduceBody(StepBody, tag="reduce"):
    over: str
    fn: str
    where: ConditionBody | None = None


class BranchBody(StepBody, tag="branch", rename={"otherwise": "else"}):
    on: str
    where: ConditionBody
    then: str
    otherwise: str


class TemplateBody(StepBody, tag="template"):
    text: str


AnyStep = CallBody | MapBody | FilterBody | ReduceBody | BranchBody | TemplateBody
STEPS = get_args(AnyStep)


class BudgetBody(msgspec.Struct, forbid_unknown_fields=True):
    tasks: Annotated[int, msgspec.Meta(ge=1, le=TASKS_MAX)] = TASKS_DEFAULT
    deadline_s: Annotated[float, msgspec.Meta(gt=0.0, le=PLAN_S_MAX)] = DEADLINE_S_DEFAULT


class PlanBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A plan. What was answered under the same `batch` before is not asked again."""

    steps: Annotated[list[AnyStep], msgspec.Meta(max_length=STEPS_MAX)]
    out: str
    inputs: dict[str, Any] = {}
    budget: BudgetBody = msgspec.field(default_factory=BudgetBody)
    about: str = ""
    batch: Label = ""


_PLAN = msgspec.json.Decoder(PlanBody)
plan_body = _PLAN.decode


async def plan(service: Service, request: Request) -> ASGIApp:
    body = await read_json(request, _PLAN)
    asked = plan_of(service, body)
    known: Mapping[str, str] = {}
    if body.batch:
        try:
            known = await service.recorder.answers(body.batch)
        except JournalError as error:
            raise unreadable(error) from None
    return PlanStream(service, PlanAsked(service.draw(16), asked, known), body.batch)


def plan_of(service: Service, body: PlanBody) -> Plan:
    """The plan that was written so. Raises ApiError."""
    steps: list[Step] = []
    for number, step in enumerate(body.steps):
        try:
            steps.append(_step(service, step))
        except (PlanError, ApiError) as wrong:
            raise bad_request(f"step {step.id[:80]}: {wrong}", f"steps[{number}]") from None
    try:
        return Plan(tuple(steps), body.inputs, reference_of(body.out), body.budget.tasks, body.budget.deadline_s)
    except PlanError as wrong:
        raise bad_request(f"The plan: {wrong}.") from None


class PlanStream:
    """A response that carries a plan out. The events: `step` for each that has come further, `task` for each that ended, `end`.

    An `error` event comes only where no `end` can: a bug, or a node that stops.
    """

    def __init__(self, service: Service, asked: PlanAsked, batch: str) -> None:
        self._service, self._asked, self._batch = service, asked, batch
        self._finished = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def run() -> None:
            try:
                await self._run(send)
            except Exception as bug:
                await send(self._broken(internal_error(bug)))

        async def say_goodbye() -> None:
            if not self._finished:
                await send(self._broken(stopping()))

        await send({"type": "http.response.start", "status": 200, "headers": EVENT_STREAM})
        await while_connected(receive, run, say_goodbye)

    async def _run(self, send: Send) -> None:
        async with self._service.desk.plan(self._asked, self._batch) as items:
            while not self._finished:
                item: PlanItem | None = None
                with trio.move_on_after(KEEP_ALIVE_S):
                    item = await items.receive()
                self._finished = isinstance(item, PlanEnded)
                data = KEEP_ALIVE if item is None else self._event(item)
                await send(body_part(data, more=not self._finished))

    def _event(self, item: PlanItem) -> bytes:
        if isinstance(item, PlanEnded):
            return named_event("end", _encode(plan_view(self._asked.id, item.outcome)))
        if isinstance(item, TaskEnded):
            answer = item.answer
            told = PlanTaskView(
                item.step, item.index, answer.task, answer.code, answer.reason, answer.name, answer.model, answer.seconds
            )
            return named_event("task", _encode(told))
        return named_event("step", _encode(SettledView(item.step, item.settled, item.of, item.known)))

    def _broken(self, error: ApiError) -> Message:
        self._finished = True
        return body_part(named_event("error", error_body(error, openai=False)), more=False)


def plan_view(identity: bytes, outcome: PlanOutcome) -> PlanView:
    """What came of a plan. The answers of its steps are told where the plan itself has none."""
    steps = [
        PlanStepView(
            step.step, step.asked, step.answered, step.known, step.failed, step.reason,
            list(step.values) if outcome.failure else None,
        )
        for step in outcome.steps
    ]  # fmt: skip
    state = "failed" if outcome.failure else "done"
    return PlanView(identity.hex(), state, outcome.failure, outcome.value, steps, outcome.tasks, round(outcome.seconds, 3))


def _step(service: Service, body: StepBody) -> Step:
    match body:
        case CallBody():
            return Call(body.id, _ask(service, body))
        case MapBody():
            return Map(body.id, reference_of(body.over), _ask(service, body))
        case FilterBody():
            by = None if body.by is None else reference_of(body.by)
            return Filter(body.id, reference_of(body.over), _condition(body.where), by)
        case ReduceBody():
            where = None if body.where is None else _condition(body.where)
            return Reduce(body.id, reference_of(body.over), body.fn, where)
        case BranchBody():
            ways = reference_of(body.then), reference_of(body.otherwise)
            return Branch(body.id, reference_of(body.on), _condition(body.where), *ways)
        case TemplateBody():
            return Compose(body.id, template_of(body.text))
    raise AssertionError(f"a step of no kind: {body!r}")


def _ask(service: Service, body: AskingBody) -> Ask:
    task = asked_task(service, body.call)
    return Ask(
        task,
        tuple(template_of(turn.text) for turn in task.turns),
        is_json=body.call.schema is not None,
        null_if_failed=body.on_fail == "null",
    )


def _condition(body: ConditionBody) -> Condition:
    choices: list[Any] | None = body.one_of
    if body.same is not _NOT_GIVEN:
        choices = [body.same, *(choices or [])]
    if (choices, body.contains, body.above, body.below, body.unless) == (None, None, None, None, None):
        raise PlanError("where: nothing is asked of the value; give is, in, contains, above, below or not")
    field = tuple(part for part in body.field.split(".") if part)
    unless = None if body.unless is None else _condition(body.unless)
    one_of = None if choices is None else tuple(map(_compared, choices))
    contains = None if body.contains is None else _compared(body.contains)
    return Condition(field, one_of, contains, body.above, body.below, unless)


def _compared(value: Any) -> Any:
    """A text with references stays one; all else is a value."""
    if not isinstance(value, str):
        return value
    template = template_of(value)
    return template if template.names else "".join(part for part in template.parts if isinstance(part, str))
