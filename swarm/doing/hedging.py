"""When a second worker may be asked although the first has not failed: once per task, out of a small budget, not when all are slow.

Dean and Barroso, The Tail at Scale (2013): a second request after the 95th percentile costs 5 % and cuts the tail; without a
budget it doubles an overload.
"""

from collections.abc import Callable, Iterable

from protocol.identity import NodeId
from swarm.doing.attempts import Open
from swarm.settings import Settings

PENDING_MIN = 4  # Fewer waiting attempts say nothing about everybody.


class HedgeBudget:
    """A token bucket: every task pays in a share of a hedge."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._tokens = 1.0  # A node that has just started may try one.
        self.spent = 0

    def task_begun(self) -> None:
        self._tokens = min(self._settings.hedge_burst, self._tokens + self._settings.hedge_share)

    def take(self, overdue: int, pending: int) -> bool:
        """Whether to hedge now: `overdue` of the `pending` attempts that have not spoken are later than their workers usually are.

        When most are, it is not this worker that is slow, and more requests would make it worse.
        """
        if self._tokens < 1.0 or (pending >= PENDING_MIN and 2 * overdue > pending):
            return False
        self._tokens -= 1.0
        self.spent += 1
        return True


def waiting(opens: Iterable[Open], usual_s: Callable[[NodeId, float], float | None], now: float) -> tuple[int, int]:
    """How many attempts that have not spoken yet are later than their workers usually are, and how many there are in all."""
    overdue = pending = 0
    for opened in opens:
        for attempt in opened.live:
            if attempt.first_piece_at is None:
                limit_s = usual_s(attempt.worker.node, now)
                pending += 1
                overdue += limit_s is not None and now - attempt.begun_at >= limit_s + attempt.reading_s
    return overdue, pending
