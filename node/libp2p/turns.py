"""Bounds what strangers have under way at once, so that none of them can take all of it by doing nothing."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import trio


class Turns:
    """At most `bound` at once. When all are taken, the oldest of whoever has most of them gives way to a new one."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._taken: list[tuple[str, trio.CancelScope]] = []

    @contextmanager
    def taken(self, whose: str) -> Iterator[None]:
        """Wrap one; if it has to give way, it is cancelled."""
        if len(self._taken) >= self._bound:
            [(most, _)] = Counter(each for each, _ in self._taken).most_common(1)
            oldest = next(turn for turn in self._taken if turn[0] == most)
            self._taken.remove(oldest)
            oldest[1].cancel()
        with trio.CancelScope() as scope:
            turn = (whose, scope)
            self._taken.append(turn)
            try:
                yield
            finally:
                if turn in self._taken:
                    self._taken.remove(turn)
