"""What of an answer is sent: no stop string, also when one is split over several pieces, and nothing that was delivered before."""

from collections.abc import Sequence

from node.backends import BackendError


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


class Remaining:
    """Takes an answer from its beginning, and passes on what the user does not have yet."""

    def __init__(self, delivered: str) -> None:
        self._awaited = delivered  # Delivered by another worker, and not yet said again here.

    def covers(self, text: str) -> bool:
        """Whether the user has all of this, the next text, already."""
        return bool(text) and self._awaited.startswith(text)

    def after(self, text: str) -> str:
        """What of the next text is new. Raises BackendError if this is not the answer that was delivered."""
        common = min(len(text), len(self._awaited))
        if text[:common] != self._awaited[:common]:
            raise BackendError("the answer that was delivered is not the one that this model gives", retryable=False)
        self._awaited = self._awaited[common:]
        return text[common:]
