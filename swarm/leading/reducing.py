"""Many values become one: what the step `reduce` can do. Nulls, which stand for what failed, are left out."""

import math
from collections.abc import Callable, Sequence
from typing import Final

from swarm.expressions import StepFailed, Value, joined, number_of, text_of
from swarm.plans import FUNCTIONS


def _numbers(values: Sequence[Value]) -> list[float | int]:
    found: list[float | int] = []
    for value in values:
        number = number_of(value)
        if number is None:
            raise StepFailed(f"{text_of(value)[:60]!r} is no number")
        found.append(number)
    return found


def _sum(values: Sequence[Value]) -> float | int:
    numbers = _numbers(values)
    try:
        return sum(numbers) if all(isinstance(number, int) for number in numbers) else math.fsum(numbers)
    except OverflowError:
        raise StepFailed("the numbers are too large") from None


def _mean(values: Sequence[Value]) -> Value:
    try:
        return _sum(values) / len(values) if values else None
    except OverflowError:
        raise StepFailed("the numbers are too large") from None


def _mode(values: Sequence[Value]) -> Value:
    """The most frequent; of several the one that came first."""
    counts: dict[str, int] = {}
    for value in values:
        key = text_of(value).strip().casefold()
        counts[key] = counts.get(key, 0) + 1
    return max(values, key=lambda value: counts[text_of(value).strip().casefold()], default=None)


def _sort(values: Sequence[Value]) -> Value:
    """Numbers by size if all are numbers, else texts by their characters."""
    if all(number_of(value) is not None for value in values):
        return sorted(values, key=lambda value: number_of(value) or 0)
    return sorted(values, key=lambda value: text_of(value).casefold())


def _concat(values: Sequence[Value]) -> Value:
    """Lists one after the other."""
    return [item for value in values for item in (value if isinstance(value, list) else [value])]


def _first(values: Sequence[Value]) -> Value:
    return values[0] if values else None


_FUNCTIONS: Final[dict[str, Callable[[Sequence[Value]], Value]]] = {
    "count": len,
    "sum": _sum,
    "mean": _mean,
    "min": lambda values: min(_numbers(values), default=None),
    "max": lambda values: max(_numbers(values), default=None),
    "mode": _mode,
    "first": _first,
    "sort": _sort,
    "concat": _concat,
    "join": lambda values: joined(map(text_of, values), "\n"),
}
assert tuple(_FUNCTIONS) == FUNCTIONS


def reduced(function: str, values: Sequence[Value]) -> Value:
    """One value out of many. Of nothing `count` and `sum` are 0, `join` an empty text, lists empty and all else null.

    Raises StepFailed.
    """
    return _FUNCTIONS[function]([value for value in values if value is not None])
