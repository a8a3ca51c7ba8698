"""When a task leaves a queue that nobody could know of: news of loads is a little old, and two requesters meet at one worker.

The worker's promise says how many are before us. To ask somebody who is free instead costs one round trip and no work, because
what is queued has not begun.
"""

from collections.abc import Callable

from swarm.doing.attempts import Attempt, Open
from swarm.values import Routing, Terms

GAIN = 0.8  # Of what this worker would cost now, the most that the other may: a move costs messages, and may meet others again.
CROWDED = "others were there before"


def elsewhere(opened: Open, attempt: Attempt, choose: Callable[[], Routing]) -> Routing | None:
    """Who is asked instead of a worker that has just promised, once for each task; None to stay, as nearly always.

    The worker may be asked again should the other one fail.
    """
    terms = attempt.worker.terms
    if opened.moved or len(opened.live) > 1 or opened.speaker is not None or terms is None:
        return None
    before = _waiting(attempt, terms)
    if before <= terms.waiting:
        return None  # As was known when it was drawn.
    routing = choose()
    other = next((found for found in routing.candidates if found.node == routing.chosen), None)
    if other is None or other.cost_s > GAIN * attempt.worker.cost_s * terms.delay(before) / terms.delay(terms.waiting):
        return None
    opened.moved = True
    opened.tried.remove(attempt.worker.node)
    return routing


def _waiting(attempt: Attempt, terms: Terms) -> int:
    """How many attempts the worker has: those whose end this one waits for, and one in every other slot."""
    ahead = attempt.accepted.ahead if attempt.accepted is not None else 0
    return ahead + terms.slots - 1 if ahead else 0
