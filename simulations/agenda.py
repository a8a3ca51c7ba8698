"""The virtual clock and the one heap of everything that is going to happen."""

from collections.abc import Callable
from heapq import heappush
from itertools import count
from typing import Any, Protocol

from simulations.machines import Process


class Target(Protocol):
    """Whom an entry is for. Nothing happens to a target that has closed in the meantime."""

    @property
    def open(self) -> bool:
        """Whether it can still be told something."""

    @property
    def process(self) -> Process:
        """Which process is told."""


class Agenda:
    """A heap of (time, order, target, what). Entries of one moment come in the order in which they were added.

    Without a target, `what` is a function of the world's own that is called; otherwise it is an event of the target's process.
    Nothing is ever removed: what has lost its target is skipped when its time has come.
    """

    __slots__ = ("heap", "now", "order")

    def __init__(self) -> None:
        self.now = 0.0
        self.heap: list[tuple[float, int, Target | None, Any]] = []
        self.order = count()

    def post(self, delay_s: float, target: Target, event: object) -> None:
        """An event for a process, after a delay."""
        heappush(self.heap, (self.now + delay_s, next(self.order), target, event))

    def call(self, delay_s: float, act: Callable[[], None]) -> None:
        """Something that the world does, after a delay."""
        heappush(self.heap, (self.now + delay_s, next(self.order), None, act))
