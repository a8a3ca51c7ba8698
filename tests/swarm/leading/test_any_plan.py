"""Whatever a plan says and whatever workers answer, it ends with a value or with a reason, within its budget."""

import json
from contextlib import suppress
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.expressions import Condition, PlanError, StepFailed, Template, Value, reference_of, template_of
from swarm.leading.progress import Progress
from swarm.plans import FUNCTIONS, Ask, Branch, Call, Compose, Filter, Map, Plan, Reduce, Step
from tests.swarm.leading.planning import PLAN, ask

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda below: st.lists(below, max_size=4) | st.dictionaries(st.sampled_from("xyz"), below, max_size=3),
    max_leaves=8,
)
PATHS = st.sampled_from(["", "", "", ".0", ".x", ".7", ".x.0"])
STEPS = "abcde"


def _template(text: str) -> Template:
    try:
        return template_of(text)
    except PlanError:  # Texts may look like references.
        return template_of("plain")


def _ask(text: Template, as_json: bool, null: bool) -> Ask:
    return replace(ask("text", is_json=as_json, null_if_failed=null), texts=(text,))


def step(name: str) -> st.SearchStrategy[Step]:
    """One that names inputs and, nearly always, steps before it."""
    before = ["in", "list", "list", *STEPS[: STEPS.index(name)]] * 4
    references = st.builds(lambda name, path: "${" + name + path + "}", st.sampled_from([*before, "e"]), PATHS)
    texts = st.lists(st.text(max_size=3) | references, max_size=3).map("".join).map(_template)
    of_items = st.lists(references | st.sampled_from(["${item}", "${item.x}", "${index}"]), max_size=3).map("".join).map(_template)
    compared = VALUES | references.map(template_of)
    conditions = st.builds(
        Condition,
        st.sampled_from([(), (), ("x",), ("0", "y")]),
        st.none() | st.lists(compared, max_size=2).map(tuple),
        st.none() | st.text(max_size=2) | references.map(template_of),
        st.none() | st.floats(-3, 3),
        st.none() | st.floats(-3, 3),
        st.none() | st.builds(Condition, contains=st.text(max_size=1)),
    )
    refs, named = references.map(reference_of), st.just(name)
    return st.one_of(
        st.builds(Call, named, st.builds(_ask, texts, st.booleans(), st.booleans())),
        st.builds(Map, named, refs, st.builds(_ask, of_items, st.booleans(), st.booleans())),
        st.builds(Filter, named, refs, conditions, st.none() | refs),
        st.builds(Reduce, named, refs, st.sampled_from(FUNCTIONS), st.none() | conditions),
        st.builds(Branch, named, refs, conditions, refs, refs),
        st.builds(Compose, named, texts),
    )


@settings(max_examples=250, deadline=None)
@given(
    st.tuples(*map(step, STEPS)), VALUES, st.lists(VALUES, max_size=4), st.sampled_from(["${e}", "${d}", "${e.0}", "${in}"]),
    st.integers(1, 12), st.data(),
)  # fmt: skip
def test_any_plan_ends(
    made: tuple[Step, ...], one: Value, many: list[Value], out: str, budget: int, data: st.DataObject
) -> None:
    try:
        plan = Plan(made, {"in": one, "list": many}, reference_of(out), budget, 60.0)
    except PlanError as refused:
        assert str(refused)
        return
    progress = Progress(PLAN, plan, {})
    asked = 0
    while (unit := progress.take()) is not None:
        asked += 1
        match data.draw(st.integers(0, 5)):
            case 0:
                progress.failed(unit, "nobody knows")
            case 1:
                progress.again(unit)
            case 2 | 3:
                progress.answered(unit, json.dumps(data.draw(VALUES)))
            case _:
                progress.answered(unit, data.draw(st.text(max_size=5)))
    assert asked == progress.tasks <= budget
    assert progress.is_done != bool(progress.failure)
    if progress.is_done:
        with suppress(StepFailed):
            json.dumps(progress.value(), allow_nan=False).encode()
