"""Ten thousand requests to one model at full load, many cancelled: each answer right, nothing left behind; and its deaths."""

import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from time import perf_counter

import psutil
import trio

from benchmarks.figures import Figure, at_most, percentile
from node.backends import BackendError, GenerationRequest, Piece, Surroundings
from node.backends.contract import ask, running
from node.backends.llama_cpp.backend import LlamaCppBackend
from node.backends.references import resolve
from protocol.parts import Sampling, Turn
from tests.node.backends.llama_cpp.gguf_files import small_model
from tests.node.backends.llama_cpp.hanging import SLEEPING, WAITING, write_site

REQUESTS = int(os.environ.get("REQUESTS", "10000"))
AT_ONCE = 24  # More than there are slots.
TEXTS = 60
TOKENS_MAX = 48
CANCELLED = 0.2
KILLS = 5
HANGS = [WAITING, SLEEPING, signal.SIGSTOP] * 3
STOPS = 40  # Prompts that are cancelled while they are read.
MODEL = "smollm2-135m"


@dataclass(slots=True)
class Run:
    """What has come of it so far."""

    ended: int = 0
    cancelled: int = 0
    wrong: int = 0
    failed: int = 0
    megabytes: list[float] = field(default_factory=list)


def measure(folder: Path) -> list[Figure]:
    return trio.run(_measure, folder)


async def _measure(folder: Path) -> list[Figure]:
    small = LlamaCppBackend(str(small_model(folder / "small.gguf", None)), Surroundings(folder, 1))
    async with running(small):
        run = await _crowd(small)
    real = LlamaCppBackend(resolve(MODEL).argument, Surroundings(folder, 1))
    async with running(real):
        stops = [await _stop(real, number) for number in range(STOPS)]
    again = [await _kill(LlamaCppBackend(resolve(MODEL).argument, Surroundings(folder, 1))) for _ in range(KILLS)]
    sys.path.insert(0, str(write_site(folder)))
    hangs = [await _hang(LlamaCppBackend(resolve(MODEL).argument, Surroundings(folder, 1)), each) for each in HANGS]
    first, last = run.megabytes[1], run.megabytes[-1]
    told = " / ".join(f"{megabytes:.0f}" for megabytes in run.megabytes)
    return [
        Figure(f"requests, {AT_ONCE} at once, of which cancelled at random", f"{run.ended} / {run.cancelled}"),
        Figure("  answers that differ from those given alone", str(run.wrong), "0", run.wrong == 0),
        Figure("  failed", str(run.failed), "0", run.failed == 0),
        Figure("  memory of the child, at each tenth, MB", told, "flat, 5 %", last <= 1.05 * first),
        at_most("cancelled while reading 2,000 tokens: until it is out, p50", percentile(stops, 0.5) * 1000, 10, "ms"),
        Figure("  slowest", f"{max(stops) * 1000:.1f} ms"),
        at_most("kill -9 of the child: until the next answer's first text, slowest", max(again), 3, "s", 2),
        at_most("a child that waits for ever, is silent, or stopped: until an answer has failed, slowest", max(hangs), 1, "s", 2),
    ]


def _request(backend: LlamaCppBackend, text: str, tokens: int) -> GenerationRequest:
    return GenerationRequest("complete", backend.model, (Turn("user", text),), tokens, Sampling(seed=1), ())


async def _crowd(backend: LlamaCppBackend) -> Run:
    dice = Random(8)
    requests = [
        _request(backend, f"{number} " * dice.randint(1, 60), dice.randint(1, TOKENS_MAX)) for number in range(TEXTS)
    ]
    alone = [(await ask(backend, each)).text for each in requests]
    run = Run()

    async def work() -> None:
        while run.ended < REQUESTS:
            number = dice.randrange(TEXTS)
            patience_s = dice.uniform(0.0, 0.02) if dice.random() < CANCELLED else float("inf")
            try:
                with trio.move_on_after(patience_s) as scope:
                    run.wrong += (await ask(backend, requests[number])).text != alone[number]
                run.cancelled += scope.cancelled_caught
            except BackendError:
                run.failed += 1
            run.ended += 1
            if run.ended % (REQUESTS // 10) == 0:
                run.megabytes.append(psutil.Process(backend.pid).memory_info().rss / 1e6)

    async with trio.open_nursery() as nursery:
        for _ in range(AT_ONCE):
            nursery.start_soon(work)
    return run


async def _stop(backend: LlamaCppBackend, number: int) -> float:
    """Seconds from cancelling to the child's word that it has stopped."""
    request = _request(backend, f"{number} word " * 1_000, 8)
    send, receive = trio.open_memory_channel[str | Piece](0)
    cancelled_at = 0.0
    with send, receive, trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(backend.generate, request, send)
            await trio.sleep(0.3 + 0.01 * number)
            cancelled_at = perf_counter()
            scope.cancel()
    return perf_counter() - cancelled_at


async def _kill(backend: LlamaCppBackend) -> float:
    """Seconds without an answer. A model that has just been restarted would wait longer each time."""
    request = _request(backend, "Once upon a time", 1)
    async with running(backend):
        await ask(backend, request)
        psutil.Process(backend.pid).kill()
        began = perf_counter()
        while True:
            with suppress(BackendError):  # Until the node has noticed.
                await ask(backend, request)
                return perf_counter() - began


async def _hang(backend: LlamaCppBackend, number: signal.Signals) -> float:
    """Seconds from a signal to the end of an answer that was under way."""
    send, receive = trio.open_memory_channel[str | Piece](0)

    async def answer() -> None:
        with send, suppress(BackendError):
            await backend.generate(_request(backend, "Once upon a time", 4_000), send)

    async with running(backend), trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        await receive.receive()
        psutil.Process(backend.pid).send_signal(number)
        began = perf_counter()
        async for _ in receive:
            pass
        return perf_counter() - began
