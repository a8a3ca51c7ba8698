"""How many threads are best for a model on this machine as it is now: tried when it is loaded, for a few tokens each.

As many as there are cores are not always best: small models are too small to share out, memory is as fast for half of the cores,
and what else is at work on the machine makes all threads wait for the one that it interrupts.
"""

from collections.abc import Callable
from time import perf_counter

from node.backends.llama_cpp.batch import Row
from node.backends.llama_cpp.context import Context

ROUNDS = 5  # Of which the quickest counts: whatever disturbs makes it slower, never quicker.
WORTH = 1.05  # So many times as fast one thread more must be, or it is left to others.
TRY_S_MAX = 3.0  # In all; a model so slow is tried with few.


def best_threads(most: int, seconds: Callable[[int], float]) -> int:
    """The fewest that are nearly as fast as any number up to `most`. `seconds` tries one, and may be noisy."""
    tried = sorted({1, *(most >> shift for shift in range(most.bit_length())), most} - {0}, reverse=True)
    found: dict[int, float] = {}
    began = perf_counter()
    for count in tried:
        if found and perf_counter() - began > TRY_S_MAX:
            break
        found[count] = seconds(count)
    quickest = min(found.values())
    return min(count for count, took_s in found.items() if took_s <= quickest * WORTH)


def trial(context: Context, token: int) -> Callable[[int], float]:
    """How long one token of a text takes with so many threads."""

    def seconds(threads: int) -> float:
        context.use_threads(threads)
        took_s = []
        for position in range(ROUNDS):
            began = perf_counter()
            context.decode([Row(0, position, token, True)])
            took_s.append(perf_counter() - began)
        context.forget(0, 0)
        return min(took_s)

    return seconds
