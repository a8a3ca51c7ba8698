"""How a plan comes along: what is asked, in which order, and what comes of it."""

from dataclasses import replace
from random import Random

import pytest

from swarm.expressions import Condition, template_of
from swarm.leading import progress
from swarm.plans import ITEMS_MAX, Step
from tests.swarm.leading.planning import PLAN, Played, branch, call, compose, keep, over, plan, reduce


def test_a_call_is_asked_and_its_answer_is_the_value() -> None:
    played = Played(plan(call("a", "say ${what}"), what="hello"), lambda text: f" {text}!\n")
    assert (played.asked, played.value) == (["say hello"], "say hello!")


def test_a_map_asks_for_each_element_and_keeps_their_order() -> None:
    played = Played(plan(over("a", "${list}", "${index}: ${item} of ${list.0}"), list=["x", None, "y"]))
    assert played.asked == ["0: x of x", "2: y of x"]
    assert played.value == ["0: X OF X", None, "2: Y OF X"]


def test_specialists_in_a_row() -> None:
    steps = (
        over("language", "${texts}"),
        keep("german", "${texts}", Condition(one_of=("de",)), "${language}"),
        over("mood", "${german}", "mood of ${item}"),
        reduce("bad", "${mood}", "count", Condition(one_of=("bad",))),
        compose("said", "${bad} of ${german}"),
    )
    answers = {"eins": "de", "two": "en", "drei": " DE\n", "mood of eins": "bad", "mood of drei": "good"}
    played = Played(plan(*steps, texts=["eins", "two", "drei"]), answers.__getitem__)
    assert played.value == '1 of ["eins","drei"]'
    assert played.asked == ["eins", "two", "drei", "mood of eins", "mood of drei"]


def test_what_the_result_does_not_need_is_not_asked() -> None:
    played = Played(plan(call("a", "a"), call("b", "b"), out="${b}"))
    assert (played.asked, played.value) == (["b"], "B")


@pytest.mark.parametrize(("answer", "asked", "value"), [("yes", "then", "THEN"), ("no", "otherwise", "OTHERWISE")])
def test_of_a_branch_only_one_way_is_asked(answer: str, asked: str, value: str) -> None:
    steps = (
        call("q", "question"), call("t", "then"), call("e", "otherwise"),
        branch("b", "${q}", Condition(one_of=("yes",)), "${t}", "${e}"),
    )  # fmt: skip
    played = Played(plan(*steps), lambda text: answer if text == "question" else text.upper())
    assert (played.asked, played.value) == (["question", asked], value)


def test_both_ways_are_asked_if_something_else_needs_them() -> None:
    steps = (
        call("t", "then"), call("e", "otherwise"), branch("b", "${yes}", Condition(one_of=(True,)), "${t}", "${e}"),
        compose("all", "${b} ${t} ${e}"),
    )  # fmt: skip
    assert Played(plan(*steps, yes=True)).value == "THEN THEN OTHERWISE"


def test_a_list_of_nothing_is_answered_at_once() -> None:
    played = Played(plan(over("a", "${list}"), reduce("n", "${a}", "count"), list=[]))
    assert (played.asked, played.value) == ([], 0)


def test_an_answer_in_json_is_a_value_with_parts() -> None:
    played = Played(plan(call("a", "who?", is_json=True), compose("b", "${a.name.0}")), lambda text: '{"name": ["wren"]}')
    assert played.value == "wren"
    assert "not JSON" in Played(plan(call("a", "who?", is_json=True)), lambda text: "{").failure


def test_steps_wait_for_what_they_compare_with() -> None:
    """The odd one out: whatever the others are."""
    common = Condition(one_of=(template_of("${common}"),))
    steps = (
        keep("odd", "${list}", Condition(unless=common), "${kinds}"),
        over("kinds", "${list}", "kind of ${item}"),
        reduce("common", "${kinds}", "mode"),
        reduce("first", "${odd}", "first"),
        reduce("others", "${kinds}", "count", common),
        branch("b", "${others}", Condition(one_of=(template_of("${two}"),)), "${first}", "${list}"),
    )
    kinds = {"kind of a": "vowel", "kind of b": "consonant", "kind of c": "consonant"}
    assert Played(plan(*steps, list=list("bac"), two=2), kinds.__getitem__).value == "a"


# --- What fails -----------------------------------------------------------------------------------------------------------


def test_without_an_answer_the_plan_ends_and_nothing_more_is_asked() -> None:
    played = Played(plan(over("a", "${list}"), list=list("xyz")), lambda text: None if text == "y" else text)
    assert played.failure == "step a, element 1: nobody knows"
    assert played.asked == ["x", "y"]
    assert played.progress.steps["a"].results == ["x", None, None]


def test_a_step_may_go_on_without_those_that_failed() -> None:
    steps = (over("a", "${list}", null_if_failed=True), over("b", "${a}", "again ${item}"), reduce("all", "${b}", "join"))
    played = Played(plan(*steps, list=list("xyz")), lambda text: None if text == "y" else text)
    assert played.asked == ["x", "y", "z", "again x", "again z"]
    assert played.value == "again x\nagain z"
    assert (played.progress.steps["a"].failed, played.progress.steps["a"].answered) == (1, 2)


def test_an_element_that_makes_no_text_is_one_that_failed() -> None:
    items = [{"name": "x"}, {}, {"name": "y" * 200_000}, "text"]
    played = Played(plan(over("a", "${list}", "say ${item.name}", null_if_failed=True), list=items))
    assert (played.asked, played.value) == (["say x"], ["SAY X", None, None, None])
    assert (played.progress.steps["a"].failed, played.progress.tasks) == (3, 1)
    assert Played(plan(over("a", "${list}", "say ${item.name}"), list=items)).failure.startswith("step a, element 1: ")


@pytest.mark.parametrize(
    ("steps", "why"),
    [
        ((over("a", "${text}"),), "${text} is not a list but abc"),
        ((over("a", "${deep.many}"),), f"{ITEMS_MAX + 1} elements"),
        ((keep("a", "${list}", Condition(contains="x"), "${two}"),), "3 elements and ${two} has 2"),
        ((compose("a", "${list.7}"),), "has no 7"),
        ((reduce("a", "${list}", "sum"),), "'x' is no number"),
        ((call("a", "${long}"),), "too long for one task"),
        ((branch("a", "${list.9}", Condition(contains="x"), "${text}", "${text}"),), "has no 9"),
        ((branch("a", "${text}", Condition(contains=template_of("${text.x}")), "${text}", "${text}"),), "has no x"),
        ((branch("a", "${text}", Condition(contains="a"), "${list.8}", "${text}"),), "has no 8"),
        ((keep("a", "${list}", Condition(one_of=(template_of("${list.7}"),))),), "has no 7"),
    ],
)
def test_what_cannot_be_done_with_the_values_names_the_step(steps: tuple[Step, ...], why: str) -> None:
    made = plan(
        *steps, text="abc", deep={"many": [1] * (ITEMS_MAX + 1)}, list=list("xyz"), two=[1, 2], long="x" * 200_000, tasks_max=4096
    )  # fmt: skip
    failure = Played(made).failure
    assert failure.startswith("step a: ")
    assert why in failure


def test_the_budget_bounds_what_is_asked() -> None:
    steps = (call("a", "a list", is_json=True), over("b", "${a}"))
    played = Played(plan(*steps, tasks_max=3), lambda text: "[1, 2, 3]")
    assert played.failure == "its budget of 3 tasks is used up"
    assert played.asked == ["a list", "1", "2"]
    assert Played(plan(*steps, tasks_max=4), lambda text: "[1, 2, 3]").value == [*["[1, 2, 3]"] * 3]


def test_answers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "ANSWERS_CHARACTERS_MAX", 5)
    assert "characters" in Played(plan(over("a", "${list}"), list=["abc", "def", "ghi"])).failure


def test_what_is_asked_again_comes_next_as_another_task_and_counts() -> None:
    found = progress.Progress(PLAN, plan(over("a", "${list}"), list=list("xy"), tasks_max=3), {})
    first = found.take()
    assert first
    found.again(first)
    second, third = found.take(), found.take()
    assert second
    assert third
    assert (second.key, second.tries, third.tries) == (first.key, 2, 1)
    assert len({first.task.id, second.task.id, third.task.id}) == 3
    found.again(second)
    assert found.take() is None
    assert "budget" in found.failure


# --- A second run ---------------------------------------------------------------------------------------------------------


def test_what_has_been_answered_is_not_asked_again() -> None:
    made = plan(over("a", "${list}"), over("b", "${a}", "again ${item}"), list=list("xyz"))
    first = Played(made, lambda text: None if text == "again Y" else text.upper())
    assert first.asked == ["x", "y", "z", "again X", "again Y"]
    second = Played(made, known=first.keys)
    assert second.asked == ["again Y", "again Z"]
    assert second.value == ["AGAIN X", "AGAIN Y", "AGAIN Z"]
    assert [second.progress.steps[step].known for step in "ab"] == [3, 1]


def test_a_question_that_has_changed_is_another_one() -> None:
    known = Played(plan(over("a", "${list}"), list=["x", "y"])).keys
    changed = [
        plan(over("a", "${list}", "say ${item}"), list=["x", "y"]),
        plan(over("a", "${list}", skill="summarize"), list=["x", "y"]),
        plan(over("other", "${list}"), list=["x", "y"]),
        plan(over("a", "${list}"), list=["y", "x"]),
    ]
    assert [len(Played(made, known=known).asked) for made in changed] == [2, 2, 2, 2]
    hotter = over("a", "${list}")
    tokens = replace(hotter, ask=replace(hotter.ask, task=replace(hotter.ask.task, tokens_max=5)))
    assert len(Played(plan(tokens, list=["x", "y"]), known=known).asked) == 2
    patient = replace(hotter, ask=replace(hotter.ask, task=replace(hotter.ask.task, deadline_s=5.0)))
    assert Played(plan(patient, list=["x", "y"]), known=known).asked == []


def test_every_task_of_a_plan_has_an_id_of_its_own() -> None:
    places = [("a", 0, 0), ("a", 1, 0), ("a", 0, 1), ("b", 0, 0), ("0 a", 0, 0)]
    ids = {progress.task_id(plan_id, *place) for plan_id in (PLAN, b"q" * 16) for place in places}
    assert len(ids) == 10
    assert {len(found) for found in ids} == {16}


@pytest.mark.parametrize("seed", range(20))
def test_the_result_does_not_depend_on_which_answer_comes_first(seed: int) -> None:
    dice = Random(seed)
    steps = (
        over("a", "${list}"), over("b", "${list}", "b ${item}"), keep("c", "${a}", Condition(contains="X"), "${b}"),
        over("d", "${c}", "d ${item}"), reduce("e", "${d}", "join"), compose("f", "${e} ${a}"),
    )  # fmt: skip
    found = progress.Progress(PLAN, plan(*steps, list=list("xyzx")), {})
    under_way = []
    while True:
        while (unit := found.take()) is not None:
            under_way.append(unit)
        if not under_way:
            break
        unit = under_way.pop(dice.randrange(len(under_way)))
        found.answered(unit, unit.task.turns[-1].text.upper())
    assert found.value() == 'D X\nD X ["X","Y","Z","X"]'
