"""What makes a plan impossible is said before anything is asked."""

import pytest

from swarm.expressions import Condition, PlanError
from swarm.plans import ITEMS_MAX, STEPS_MAX, Step
from tests.swarm.leading.planning import branch, call, compose, keep, over, plan, reduce

YES = Condition(one_of=("yes",))
WRONG: list[tuple[tuple[Step, ...], dict[str, object], str]] = [
    ((), {}, "0 steps"),
    (tuple(call(f"s{number}", "x") for number in range(STEPS_MAX + 1)), {}, "65 steps"),
    ((call("a", "x"), call("a", "y")), {}, "step a: something else is called so"),
    ((call("x", "y"),), {"x": 1}, "step x: something else is called so"),
    ((call("item", "x"),), {}, "a step cannot be called 'item'"),
    ((call("a b", "x"),), {}, "a step cannot be called 'a b'"),
    ((call("a", "x"),), {"index": 1}, "an input cannot be called 'index'"),
    ((call("a", "${b}"),), {}, "step a: nothing is called b"),
    ((call("a", "${item}"),), {}, "only the text of a map has an item"),
    ((compose("a", "${index}"),), {}, "only the text of a map has an item"),
    ((over("a", "${item}"),), {}, "only the text of a map has an item"),
    ((call("a", "x"),), {"out": "${b}"}, "out: nothing is called b"),
    ((compose("a", "${a}"),), {}, "a needs a: that is a circle"),
    ((compose("a", "${b}"), compose("b", "${c}"), compose("c", "${a}")), {}, "that is a circle"),
    ((branch("a", "${x}", YES, "${x}", "${b}"), compose("b", "${a}")), {"x": "yes"}, "that is a circle"),
    ((reduce("a", "${x}", "average"),), {"x": []}, "no function 'average'; there are count"),
    ((over("a", "${x}"),), {"x": [1] * 101}, "101 tasks at least, and its budget is 100"),
    ((reduce("a", "${x}", "count"),), {"x": [1] * (ITEMS_MAX + 1)}, f"input x: {ITEMS_MAX + 1} elements, {ITEMS_MAX} allowed"),
    ((call("a", "${x}"),), {"x": "\ud800"}, "input x: half of a character"),
    ((call("a", "${x}"),), {"x": float("nan")}, "input x: a number"),
]


@pytest.mark.parametrize(("steps", "more", "why"), WRONG)
def test_an_impossible_plan_is_refused(steps: tuple[Step, ...], more: dict[str, object], why: str) -> None:
    with pytest.raises(PlanError) as refused:
        plan(*steps, **{"out": "${a}", **more})  # type: ignore[arg-type]
    assert why in str(refused.value)


def test_a_circle_is_told_in_the_order_of_needs() -> None:
    with pytest.raises(PlanError) as refused:
        plan(compose("a", "${b}"), compose("b", "${c}"), compose("c", "${a}"))
    names = str(refused.value).partition(":")[0].split(" needs ")
    assert len(names) == 4
    assert "".join(names) in ("abca", "bcab", "cabc")


def test_what_may_be_spared_does_not_count_against_the_budget() -> None:
    many: list[object] = [1] * 200
    plan(over("a", "${x}"), call("b", "y"), out="${b}", x=many)  # type: ignore[arg-type]
    plan(over("a", "${x}"), branch("b", "${no}", YES, "${a}", "${no}"), x=many, no="no")  # type: ignore[arg-type]
    plan(keep("k", "${x}", YES), over("a", "${k}"), x=many)  # type: ignore[arg-type]
    plan(over("a", "${x}"), x=[None] * 200)


def test_a_long_chain_is_no_circle() -> None:
    chain = [compose(f"s{number}", f"${{s{number + 1}}}") for number in range(STEPS_MAX - 1)]
    plan(*chain, compose(f"s{STEPS_MAX - 1}", "end"), out="${s0}")
