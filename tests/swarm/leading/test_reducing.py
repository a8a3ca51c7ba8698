"""What becomes of many values, and of none."""

import pytest

from swarm.expressions import StepFailed, Value
from swarm.leading.reducing import reduced
from swarm.plans import FUNCTIONS

CASES: list[tuple[str, list[Value], Value]] = [
    ("count", ["a", None, "b"], 2),
    ("count", [], 0),
    ("sum", [1, "2", " 3.5 "], 6.5),
    ("sum", [1, 2], 3),
    ("sum", [0.1] * 10, 1.0),
    ("sum", [], 0),
    ("mean", [1, None, "2"], 1.5),
    ("mean", [None], None),
    ("min", ["10", 9, "8.5"], 8.5),
    ("max", ["10", 9], 10),
    ("max", [], None),
    ("mode", ["a", "b", " B\n", "a", "b"], "b"),
    ("mode", ["a", "b"], "a"),
    ("mode", [], None),
    ("first", [None, "b", "c"], "b"),
    ("first", [], None),
    ("sort", ["10", 9, "8"], ["8", 9, "10"]),
    ("sort", ["b", "A", "c", 1], [1, "A", "b", "c"]),
    ("concat", [[1], "b", [None, 2], None], [1, "b", None, 2]),
    ("join", ["a", 1, None, ["b"]], 'a\n1\n["b"]'),
    ("join", [], ""),
]


@pytest.mark.parametrize(("function", "values", "expected"), CASES)
def test_many_values_become_one(function: str, values: list[Value], expected: Value) -> None:
    found = reduced(function, values)
    assert (found, type(found)) == (expected, type(expected))


def test_every_function_is_shown_here() -> None:
    assert {function for function, _, _ in CASES} == set(FUNCTIONS)


@pytest.mark.parametrize("function", ["sum", "mean", "min", "max"])
def test_what_is_no_number_is_named(function: str) -> None:
    with pytest.raises(StepFailed, match="'two' is no number"):
        reduced(function, [1, "two"])


@pytest.mark.parametrize(
    ("function", "values"),
    [("sum", [1.7e308] * 2), ("mean", [1.7e308] * 2), ("sum", ["9" * 300, "0.5", 10**310]), ("mean", [10**310])],
)
def test_numbers_do_not_grow_without_bound(function: str, values: list[Value]) -> None:
    with pytest.raises(StepFailed, match="too large"):
        reduced(function, values)


def test_texts_do_not_grow_without_bound() -> None:
    with pytest.raises(StepFailed, match="characters"):
        reduced("join", ["x" * 100_000] * 11)
