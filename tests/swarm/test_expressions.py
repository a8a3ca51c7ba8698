"""How steps of a plan speak of values: what a reference is, what a text becomes, and what fulfils a condition."""

import pytest

from swarm.expressions import (
    DEPTH_MAX,
    TEXT_CHARACTERS_MAX,
    Condition,
    PlanError,
    Reference,
    StepFailed,
    Value,
    number_of,
    reference_of,
    template_of,
    value_of,
)

VALUES: dict[str, Value] = {
    "name": "wren", "list": ["a", {"b": [1, 2.5]}], "none": None, "yes": True, "long": "x" * (TEXT_CHARACTERS_MAX // 2),
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("plain", "plain"),
        ("", ""),
        ("${name}", "wren"),
        ("a ${name} and ${name}s", "a wren and wrens"),
        ("${list}", '["a",{"b":[1,2.5]}]'),
        ("${list.1.b.1}", "2.5"),
        ("${none} ${yes}", "null true"),
        ("$${name} $name {name} $$", "${name} $name {name} $$"),
    ],
)
def test_references_in_a_text_are_filled_in(text: str, filled: str) -> None:
    assert template_of(text).of(VALUES) == filled


@pytest.mark.parametrize("text", ["${", "${}", "${a b}", "${1a}", "${a..b}", "${a.}", "${.a}", "x ${name", "${${a}}"])
def test_what_looks_like_a_reference_and_is_none_is_refused(text: str) -> None:
    with pytest.raises(PlanError, match="names no value"):
        template_of(text)


@pytest.mark.parametrize("text", ["name", "", "${name} ", "${name}${name}", "$${name}"])
def test_where_a_value_is_wanted_only_one_reference_will_do(text: str) -> None:
    assert reference_of("${list.0}") == Reference("list", ("0",))
    with pytest.raises(PlanError, match="write"):
        reference_of(text)


@pytest.mark.parametrize("text", ["${list.2}", "${list.x}", "${list.1.c}", "${name.0}", "${none.a}", "${list.99999999999}"])
def test_a_way_that_leads_nowhere_fails_its_step(text: str) -> None:
    with pytest.raises(StepFailed, match="has no"):
        reference_of(text).of(VALUES)


def test_a_text_that_grows_too_long_is_given_up_before_it_is_built() -> None:
    assert len(template_of("${long}${long}").of(VALUES)) == TEXT_CHARACTERS_MAX
    with pytest.raises(StepFailed, match="characters"):
        template_of("${long}" * 1_000_000).of(VALUES)


@pytest.mark.parametrize(
    ("condition", "holding", "failing"),
    [
        (Condition(one_of=("German",)), ["German", " german\n"], ["Germany", "", 1, None, ["German"]]),
        (Condition(one_of=("a", 1, None)), ["A", 1, 1.0], ["b", "1", None, True]),
        (Condition(one_of=(False,)), [False], [0, "false", None]),
        (Condition(contains="ER"), ["German", ["er"]], ["", None, 1]),
        (Condition(above=1, below=3), [2, 1.5, "2", " 2.9\n", "2e0"], [1, 3, "x", "", None, True, "2 apples", "nan", [2]]),
        (Condition(above=1), ["1e300"], ["1e999", "-1e999"]),
        (Condition(unless=Condition(contains="x")), ["y", 0], ["x", None]),
        (Condition(field=("a", "b"), one_of=(1,)), [{"a": {"b": 1}}], [{"a": 1}, {}, "a", None, {"a": {"b": None}}]),
    ],
)
def test_what_fulfils_a_condition(condition: Condition, holding: list[Value], failing: list[Value]) -> None:
    assert [value for value in holding if not condition.holds(value)] == []
    assert [value for value in failing if condition.holds(value)] == []


def test_a_value_can_be_compared_with_others() -> None:
    condition = Condition(
        one_of=(template_of("${list}"), template_of("x ${name}"), "y"), contains=template_of("${name}"),
        unless=Condition(one_of=(template_of("${none}"),)),
    )  # fmt: skip
    assert condition.names == ("list", "name", "name", "none")
    filled = condition.of({"list": ["wren", 1], "name": "wren", "none": "X WREN"})
    assert [filled.holds(value) for value in (["wren", 1], "x wren", "x", "y")] == [True, False, False, False]


def test_what_is_not_there_fulfils_neither_a_condition_nor_its_contrary() -> None:
    contrary = Condition(unless=Condition(contains="x"))
    assert not contrary.holds(None)
    assert not Condition(field=("a",), unless=Condition(contains="x")).holds({})


def test_numbers_are_found_in_texts() -> None:
    found = [number_of(value) for value in ("12", "-3", "+.5", "1.", "4,5", "0x10", "１２", "9" * 300, "9" * 301, True, None)]
    assert found == [12, -3, 0.5, 1.0, None, None, 12, int("9" * 300), None, None, None]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[" * (DEPTH_MAX + 1) + "]" * (DEPTH_MAX + 1), "deep"),
        ("NaN", "a number"),
        ("1e999", "a number"),
        ('"\\ud800"', "half of a character"),
        ('{"\\udc00": 1}', "half of a character"),
        ("9" * 301, "300 digits"),
        ("[-" + "9" * 4_000 + "]", "300 digits"),
        ("9" * 5_000, "not JSON"),
    ],
)
def test_json_that_later_steps_could_not_say_is_no_answer(text: str, why: str) -> None:
    with pytest.raises(StepFailed, match=why):
        value_of(text)


def test_json_becomes_values() -> None:
    assert value_of(' {"a": [1, "ü", null]} ') == {"a": [1, "ü", None]}
