"""One measured figure beside its goal, and how a list of them is printed."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """`goal` is in words; `reached` is None for figures without one."""

    name: str
    value: str
    goal: str = ""
    reached: bool | None = None


def at_most(name: str, value: float, goal: float, unit: str, digits: int = 1) -> Figure:
    """A figure that should be small."""
    return Figure(name, f"{value:.{digits}f} {unit}", f"<= {goal:g} {unit}", value <= goal)


def percentile(samples: Sequence[float], share: float) -> float:
    """The nearest-rank percentile: of 20 samples, 0.5 is the tenth smallest."""
    ordered = sorted(samples)
    return ordered[max(0, min(len(ordered) - 1, round(share * len(ordered)) - 1))]


def show(title: str, figures: Sequence[Figure]) -> None:
    print(f"\n{title}")
    for figure in figures:
        mark = {True: "reached", False: "MISSED", None: ""}[figure.reached]
        print(f"  {figure.name:<58} {figure.value:>14}   {figure.goal:<12} {mark}", flush=True)
