"""A real model goes on with answers that another process began, from random cuts: how often it differs, and how long it takes."""

from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from time import perf_counter

import trio

from benchmarks.figures import Figure, percentile
from node.backends import Backend, GenerationRequest, Piece, Surroundings
from node.backends.contract import Answer, ask, running
from node.backends.references import open_backend
from protocol.parts import Capability, Sampling, Turn

MODEL = "smollm2-135m"
TOKENS = 64
CUTS = 200  # With the same number of threads; a fifth of them with another number, and a fifth from the text alone.
SEED = 3
LONG_TOKENS = 256  # What the prefill is measured with.
ROUNDS = 7
PROMPTS = (
    ("chat", "Tell me a story about a flock of starlings."),
    ("chat", "What is a leap year, and why do we need it?"),
    ("chat", "List five animals that live in the sea, one a line."),
    ("chat", "Explain in two sentences how bread rises."),
    ("chat", "Write a short poem about the rain."),
    ("chat", "Wie geht es dir? Antworte auf Deutsch."),
    ("complete", "The three most important inventions in history are"),
    ("complete", "def fibonacci(n):\n"),
    ("complete", "🦜 🐦 🦉 🦜 🐦 🦉 🦜 🐦"),
    ("complete", "Привет, как дела? Сегодня хорошая погода, и"),
)


@dataclass(frozen=True, slots=True)
class _Whole:
    """An answer that was not interrupted, and what was asked for it."""

    request: GenerationRequest
    answer: Answer


def measure(folder: Path) -> list[Figure]:
    return trio.run(_measure, folder)


async def _measure(folder: Path) -> list[Figure]:
    one, two = (open_backend(MODEL, Surroundings(folder / str(threads), threads)) for threads in (1, 2))
    other = open_backend(MODEL, Surroundings(folder / "other", 1))
    async with running(one) as offered, running(other) as offered_other:
        wholes = await _wholes(one, offered)
        same = _numerics(offered) == _numerics(offered_other)
        cuts = await _differing(other, wholes, CUTS, with_tokens=True)
        texts = await _differing(other, wholes, CUTS // 5, with_tokens=False)
        prefill = await _prefill(one, other, offered)
    async with running(two) as offered_two:
        alike = _numerics(offered) == _numerics(offered_two)
        threads = await _differing(two, wholes, CUTS // 5, with_tokens=True)
    return [
        Figure("two processes, one thread each, are of one class of numerics", "yes" if same else "no", "yes", same),
        Figure(f"  of {CUTS} random cuts, joined texts that differ", str(cuts), "0", cuts == 0),
        Figure("one thread and two are of one class of numerics", "yes" if alike else "no"),
        Figure(f"  of {CUTS // 5} random cuts, joined texts that differ", str(threads), "0", threads == 0 or not alike),
        Figure(f"from the text alone, of {CUTS // 5} random cuts, texts that differ", str(texts)),
        *prefill,
    ]


def _numerics(offered: tuple[Capability, ...]) -> set[bytes]:
    return {capability.numerics for capability in offered}


async def _wholes(backend: Backend, offered: tuple[Capability, ...]) -> list[_Whole]:
    """Every prompt's answer at temperature 0, and one drawn with a seed."""
    wholes = []
    for number, (skill, text) in enumerate(PROMPTS):
        for temperature in (0.0, 0.8):
            sampling = Sampling(temperature, top_p=0.95, seed=number + 1)
            request = GenerationRequest(skill, offered[0].model, (Turn("user", text),), TOKENS, sampling, ("\n\n\n",))
            wholes.append(_Whole(request, await ask(backend, request)))
    return wholes


async def _differing(backend: Backend, wholes: list[_Whole], cuts: int, *, with_tokens: bool) -> int:
    """How many answers are not what they would have been. The cuts of one answer are far apart, so the cache holds others."""
    dice = Random(SEED)
    differing = 0
    for number in range(cuts):
        whole = wholes[number % len(wholes)]
        begun = _joined(whole.answer.pieces[: dice.randint(1, len(whole.answer.pieces))])
        tokens = begun.tokens if with_tokens else ()
        rest = await ask(backend, replace(whole.request, delivered=begun.text, delivered_tokens=tokens))
        differing += begun.text + rest.text != whole.answer.text
    return differing


async def _prefill(one: Backend, other: Backend, offered: tuple[Capability, ...]) -> list[Figure]:
    """How long it takes to go on with a long answer where nothing of it is in the cache."""
    turns = (Turn("user", "Tell me a long story about a flock of starlings."),)
    request = GenerationRequest("chat", offered[0].model, turns, LONG_TOKENS, Sampling(seed=1), ())
    whole = await ask(one, request)
    assert len(whole.tokens) > LONG_TOKENS / 2, "the model has less to say than it had; ask it something else"
    rates, waits = [], []
    for number in range(ROUNDS):
        # As if it answered something else each time, or what was read in the round before would be there already.
        asked = replace(request, turns=(Turn("user", f"{number}. {turns[0].text}"),))
        begun = _joined(whole.pieces[: len(whole.pieces) - 1 - number])
        began = perf_counter()
        # One token more than was delivered: the time is that of the prefill and of one step.
        wanted = replace(asked, delivered=begun.text, delivered_tokens=begun.tokens, tokens_max=len(begun.tokens) + 1)
        rest = await ask(other, wanted)
        waits.append(perf_counter() - began)
        rates.append((rest.generated.tokens_in + len(begun.tokens)) / waits[-1])
    return [
        Figure("prefill of what was delivered, nothing in the cache", f"{percentile(rates, 0.5):.0f} tok/s"),
        Figure(f"  until it goes on after {len(whole.tokens)} tokens", f"{percentile(waits, 0.5):.2f} s"),
    ]


def _joined(pieces: tuple[Piece, ...]) -> Piece:
    return Piece("".join(piece.text for piece in pieces), tuple(token for piece in pieces for token in piece.tokens))
