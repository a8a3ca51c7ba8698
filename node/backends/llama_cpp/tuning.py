"""What suits a model on this machine as it is now, tried when it is loaded: how batches are filled, and how many threads.

As many threads as there are cores are not always best: small models are too small to share out, memory is as fast for half of the
cores, and what else is at work on the machine makes all threads wait for the one that it interrupts.
"""

from collections.abc import Callable, Sequence
from contextlib import closing
from time import perf_counter

import numpy as np

from node.backends.llama_cpp.batch import Row
from node.backends.llama_cpp.context import EXACT_BLOCK, QUICK_BLOCK, AbortFlag, Context
from node.backends.llama_cpp.model import Model
from node.backends.llama_cpp.pipe import Ready
from node.backends.llama_cpp.room import conversations, free_bytes

TEXT = "Every evening the starlings gather over the reed bed, turn and fold like smoke."  # More tokens than any kernel minds.
ROUNDS = 5  # Of which the quickest counts: whatever disturbs makes it slower, never quicker.
ROUNDS_FILLED = 2  # Of full blocks and others, which differ by a quarter or not at all,
WORTH_FILLED = 1.1  # so that this tells them apart; if not the first time, then never.
WORTH = 1.05  # So many times as fast one thread more must be, or it is left to others.
TRY_S_MAX = 3.0  # In all; a model so slow is tried with few.


def fitting(model: Model, tokens: int, exact: str, threads: int, memory: int, abort: AbortFlag) -> tuple[Context, bool]:
    """The memory for conversations of `tokens` tokens in what may be had of `memory` bytes; and whether it is exact.

    Raises LoadFailed and ComputeFailed.
    """
    text = [model.first_token, *model.tokenize_plain(TEXT)]
    with closing(Context(model, 1, len(text), threads, abort)) as context:
        is_exact = computes_alike(context, text)
        text_bytes = _bytes_of(context, text, tokens)
        block = EXACT_BLOCK if exact == "always" and not is_exact and model.forgets else 1
        if block == 1 and model.forgets and _is_quicker_filled(context, model.first_token):
            block = QUICK_BLOCK
    count = conversations(text_bytes, min(free_bytes(), memory))
    context = Context(model, count, tokens, threads, abort)
    context.block, context.text_bytes = block, text_bytes
    if block == EXACT_BLOCK:
        is_exact = computes_alike(context, text)
    if threads > 1:
        context.use_threads(best_threads(threads, trial(context, model.first_token)))
    return context, is_exact


def fitting_again(model: Model, before: Ready, memory: int, abort: AbortFlag) -> Context:
    """The memory as it was found to be right when this model was loaded before, for fewer if less is free. Raises LoadFailed."""
    count = min(before.slots, conversations(before.text_bytes, min(free_bytes(), memory)))
    context = Context(model, count, before.context_tokens, before.threads, abort)
    context.block, context.text_bytes = before.block, before.text_bytes
    return context


def computes_alike(context: Context, text: Sequence[int]) -> bool:
    """Whether a token has the same bits alone as among others. Raises ComputeFailed.

    For many kinds of weights llama.cpp has other kernels for several rows than for one, and which depends on the processor.
    """
    rows = [Row(0, at, token, True) for at, token in enumerate(text[: context.tokens])]
    for row in rows:
        context.decode([row])
    alone = context.logits(0).copy()
    context.forget(0, 0)
    context.decode(rows)
    alike = np.array_equal(alone, context.logits(len(rows) - 1))
    context.forget(0, 0)
    return bool(alike)


def _bytes_of(context: Context, text: Sequence[int], tokens: int) -> float:
    """What a text of so many tokens takes. Measured: layers differ, and some keep a state that does not grow."""
    rows = [Row(0, at, token, True) for at, token in enumerate(text[: context.tokens])]
    sizes = []
    for part in (rows[:1], rows[1:]):
        context.decode(part)
        sizes.append(context.size_of(0))
    context.forget(0, 0)
    each = (sizes[1] - sizes[0]) / (len(rows) - 1)
    return max(sizes[0] + each * (tokens - 1), 1.0)


def speedup_of(context: Context, token: int) -> float:
    """How many times as many tokens per second all texts make together as one alone, for they share threads."""
    alone_s = _growth_s(context, token)
    together_s = _timed(context, [Row(number, 0, token, True) for number in range(context.sequences)])
    for number in range(context.sequences):
        context.forget(number, 0)
    return context.sequences * alone_s / together_s


def _is_quicker_filled(context: Context, token: int) -> bool:
    """Whether a block of rows takes less time than one that lacks a row."""
    rows = [Row(0, at, token, True) for at in range(2 * QUICK_BLOCK)]

    def is_quicker() -> bool:
        fewer_s = _timed(context, rows[:-1])
        context.forget(0, 0)
        whole_s = _timed(context, rows)
        context.forget(0, 0)
        return WORTH_FILLED * whole_s < fewer_s

    return all(is_quicker() for _ in range(ROUNDS_FILLED))


def _growth_s(context: Context, token: int) -> float:
    """What one more token of a text takes."""
    took_s = min(_timed(context, [Row(0, at, token, True)]) for at in range(ROUNDS))
    context.forget(0, 0)
    return took_s


def _timed(context: Context, rows: Sequence[Row]) -> float:
    began = perf_counter()
    context.decode(rows)
    return perf_counter() - began


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
        return _growth_s(context, token)

    return seconds
