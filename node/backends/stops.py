"""Keeps stop strings out of an answer, also when one is split over several pieces."""

from collections.abc import Sequence


class StopFilter:
    """Passes text on as soon as no stop string can begin in it any more."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._longest = max(map(len, self._stops), default=0)
        self._held = ""
        self.stopped = False

    def push(self, text: str) -> str:
        """Take the next text in; return what may be sent now: nothing more once a stop string has been met."""
        if self.stopped:
            return ""
        self._held += text
        found = [at for at in (self._held.find(stop) for stop in self._stops) if at >= 0]
        if found:
            self.stopped = True
            passed, self._held = self._held[: min(found)], ""
            return passed
        keep = self._beginning_of_a_stop()
        passed, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return passed

    def flush(self) -> str:
        """The answer is over: what was held back was no stop string after all."""
        passed, self._held = self._held, ""
        return passed

    def _beginning_of_a_stop(self) -> int:
        """How many of the last characters could be the beginning of a stop string."""
        for length in range(min(self._longest - 1, len(self._held)), 0, -1):
            tail = self._held[-length:]
            if any(stop.startswith(tail) for stop in self._stops):
                return length
        return 0
