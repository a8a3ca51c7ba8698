"""What somebody who waits for the set-up sees: one line that moves on a terminal, a line now and then elsewhere."""

import re
import sys
import time
from collections.abc import Callable
from typing import TextIO

QUIET_BETWEEN_S = 15.0  # Without a terminal (CI, a pipe): often enough to tell a slow build from a dead one.
CLEAR = "\r\033[K"  # To the line's start, and empty it.
NINJA_STEP = re.compile(r"^\s*\[(\d+)/(\d+)\]")


def spoken(seconds: float) -> str:
    """A duration as one would say it, no finer than the estimate is: `8 s`, `50 s`, `1 min 40 s`, `12 min`."""
    if seconds < 10:
        return f"{max(1, round(seconds))} s"
    tens = round(seconds / 10) * 10
    if tens < 60:
        return f"{tens} s"
    if tens < 300:
        return f"{tens // 60} min {tens % 60} s" if tens % 60 else f"{tens // 60} min"
    return f"{round(seconds / 60)} min"


class Line:
    """One step of the set-up on the screen: `name` in front, then what it is doing, at last how it ended."""

    def __init__(self, name: str, out: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._out = sys.stdout if out is None else out
        self._clock = clock
        self._terminal = self._out.isatty()
        self._begun = clock()
        self._written = -QUIET_BETWEEN_S + self._begun

    def show(self, text: str) -> None:
        """Show what is going on now. May be called as often as one likes."""
        if self._terminal:
            self._out.write(f"{CLEAR}  {self._name:<9} {text}")
        elif self._clock() - self._written >= QUIET_BETWEEN_S:
            self._out.write(f"  {self._name:<9} {text}\n")
            self._written = self._clock()
        self._out.flush()

    def tell(self, text: str) -> None:
        """Something worth a line of its own, wherever it is read."""
        self._out.write(f"{CLEAR if self._terminal else ''}  {self._name:<9} {text}\n")
        self._out.flush()

    def end(self, text: str) -> None:
        """The last word on this step, with the time it took."""
        self.tell(f"{text} · {spoken(self._clock() - self._begun)}")


class Compilation:
    """Reads ninja's `[12/95]` lines and says how far it is and how long it will still take."""

    def __init__(self, expected_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begun = clock()
        self._expected_s = expected_s

    def read(self, line: str) -> str | None:
        """The text to show after this line of output, or None if it says nothing new."""
        step = NINJA_STEP.match(line)
        if step is None:
            return None
        done, total = int(step[1]), int(step[2])
        return f"{done}/{total} · {self.left(done, total)}"

    def left(self, done: int, total: int) -> str:
        """The time left, in words. Files differ in cost, so the first tenth leans on the expectation for this machine."""
        spent = self._clock() - self._begun
        share = done / total
        measured = spent * (total - done) / done
        expected = max(self._expected_s - spent, 0.0)
        trust = min(1.0, share / 0.1)
        left = trust * measured + (1 - trust) * expected
        return f"about {spoken(left)} left" if done < total else "linking"
