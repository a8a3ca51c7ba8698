"""The node's engine without HTTP: beside llama_cpp.Llama behind one lock, and beside its own parts without a child and a pipe.

What it is compared with has a process of its own as well, and its time is taken there: OpenMP keeps threads for every thread
that has computed, and in one process those of one side would slow the other.
"""

import os
import subprocess
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from threading import Lock
from time import perf_counter

import llama_cpp
import trio
from llama_cpp import Llama

from benchmarks.figures import Figure, at_most, percentile
from benchmarks.workload import ROUNDS, TOKENS, Weights, prompt
from node.backends import Exactness, GenerationRequest, Piece, Surroundings
from node.backends.contract import running
from node.backends.llama_cpp import pipe
from node.backends.llama_cpp.backend import LlamaCppBackend
from node.backends.llama_cpp.context import AbortFlag, Context, Logits
from node.backends.llama_cpp.formats import Formats
from node.backends.llama_cpp.mailbox import Sink
from node.backends.llama_cpp.model import Model
from node.backends.llama_cpp.room import free_bytes
from node.backends.llama_cpp.scheduler import Scheduler, Text
from node.backends.llama_cpp.tuning import fitting
from node.backends.llama_cpp.worker import Worker
from protocol.parts import Sampling, Turn

CROWD = 16
BLOCKS = {1: 8, CROWD: 2}  # In each round of `boundary`: a single answer is over soon, and one per cent is little.
LLAMA_TOKENS = 2048


@dataclass(frozen=True, slots=True)
class Run:
    """The answers to some texts: tokens of all together, and seconds until the last was there."""

    tokens: int
    seconds: float


Side = Callable[[list[str]], Awaitable[Run]]


async def _in_turns(sides: Sequence[Side], crowd: int, blocks: int) -> list[list[float]]:
    """Tokens per second of each side in each block, which goes through the sides and back again: A B B A.

    What drifts slower than a block does so for all alike. All sides get the same texts, which none has seen before.
    """
    for side in sides:
        await side([prompt(40)])
    speeds: list[list[float]] = [[] for _ in sides]
    for _ in range(blocks):
        runs: list[list[Run]] = [[] for _ in sides]
        for order in (range(len(sides)), reversed(range(len(sides)))):
            texts = [prompt(40) for _ in range(crowd)]
            for number in order:
                runs[number].append(await sides[number](texts))
        for number, both in enumerate(runs):
            speeds[number].append(sum(run.tokens for run in both) / sum(run.seconds for run in both))
    return speeds


def _through(backend: LlamaCppBackend) -> Side:
    """The engine as the node uses it."""

    async def run(texts: list[str]) -> Run:
        counts: list[int] = []

        async def complete(text: str) -> None:
            request = GenerationRequest("complete", backend.model, (Turn("user", text),), TOKENS, Sampling())
            sending, receiving = trio.open_memory_channel[str | Piece](0)
            async with trio.open_nursery() as call:
                call.start_soon(_read, receiving)
                async with sending:
                    counts.append((await backend.generate(request, sending)).tokens_out)

        began = perf_counter()
        async with trio.open_nursery() as nursery:
            for text in texts:
                nursery.start_soon(complete, text)
        return Run(sum(counts), perf_counter() - began)

    return run


async def _read(pieces: trio.MemoryReceiveChannel[str | Piece]) -> None:
    async for _ in pieces:
        pass


@contextmanager
def _process(log: Path) -> Iterator[Executor]:
    """One that works on its main thread, as the node's child does. What the library says goes to the log."""
    with ProcessPoolExecutor(1, get_context("spawn"), _redirect, (log,)) as process:
        yield process


def _redirect(log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        os.dup2(file.fileno(), 2)


def _within(process: Executor, work: Callable[..., Run], *given: object) -> Side:
    async def run(texts: list[str]) -> Run:
        return await trio.to_thread.run_sync(process.submit(work, *given, texts).result)

    return run


# --- Behind one lock --------------------------------------------------------------------------------------------------


async def _locked(folder: Path, weights: Weights, threads: int, where: str) -> list[Figure]:
    """Many threads that share one Llama, as a simple server has them; and the same without threads, which is its best."""
    backend = LlamaCppBackend(weights.argument, Surroundings(folder, threads))
    async with running(backend):
        with _process(folder / "locked.log") as locked, _process(folder / "alone.log") as alone:
            sides = (
                _through(backend),
                _within(locked, _behind_lock, weights.path, threads),
                _within(alone, _one_after_another, weights.path, threads),
            )
            speeds = await _in_turns(sides, CROWD, ROUNDS)
    ours, *others = speeds
    to_locked, to_alone = (median(own / other for own, other in zip(ours, theirs, strict=True)) for theirs in others)
    told = " / ".join(f"{median(each):.0f}" for each in speeds)
    return [
        Figure(f"{where}, {CROWD} at once: tok/s, backend / Llama behind a lock / Llama without threads", told),
        Figure("  ratio to the one behind a lock", f"{to_locked:.2f}", ">= 3", to_locked >= 3),
        Figure("  ratio to the one without threads", f"{to_alone:.2f}"),
    ]


@cache
def _llama(path: Path, threads: int) -> Llama:
    return Llama(str(path), n_ctx=LLAMA_TOKENS, n_threads=threads, n_threads_batch=threads, verbose=False)


def _complete(llama: Llama, text: str) -> int:
    """Returns how many tokens came."""
    made = llama.create_completion(text, max_tokens=TOKENS, temperature=0.0)
    assert isinstance(made, dict)  # Not streamed.
    return made["usage"]["completion_tokens"]


def _behind_lock(path: Path, threads: int, texts: list[str]) -> Run:
    llama, lock = _llama(path, threads), Lock()

    def complete(text: str) -> int:
        with lock:
            return _complete(llama, text)

    with ThreadPoolExecutor(len(texts)) as askers:
        began = perf_counter()
        tokens = sum(askers.map(complete, texts))
        return Run(tokens, perf_counter() - began)


def _one_after_another(path: Path, threads: int, texts: list[str]) -> Run:
    llama = _llama(path, threads)
    began = perf_counter()
    tokens = sum(_complete(llama, text) for text in texts)
    return Run(tokens, perf_counter() - began)


# --- Without a boundary -----------------------------------------------------------------------------------------------


async def _boundary(folder: Path, weights: Weights, threads: int, where: str) -> list[Figure]:
    """What the child costs: its pipe, both event loops, and also the making of text from tokens, which it does besides.

    Both processes are new in each round: where memory happens to lie makes one as fast as it is for as long as it lives.
    """
    theirs: dict[int, list[float]] = {crowd: [] for crowd in BLOCKS}
    ours: dict[int, list[float]] = {crowd: [] for crowd in BLOCKS}
    for _ in range(ROUNDS):
        backend = LlamaCppBackend(weights.argument, Surroundings(folder, threads))
        async with running(backend) as offered:
            with _process(folder / "parts.log") as process:
                parts = _within(process, _parts, weights.path, threads, offered[0].slots, offered[0].context_tokens)
                for crowd, blocks in BLOCKS.items():
                    without, through = await _in_turns((parts, _through(backend)), crowd, blocks)
                    theirs[crowd] += without
                    ours[crowd] += through
    figures = []
    for crowd in BLOCKS:
        lost = [(1 - own / other) * 100 for own, other in zip(ours[crowd], theirs[crowd], strict=True)]
        told = f"{median(ours[crowd]):.1f} / {median(theirs[crowd]):.1f}"
        middle = f"{percentile(lost, 0.25):.1f} to {percentile(lost, 0.75):.1f} %"
        figures += [
            Figure(f"{where}, {crowd} at once: tok/s, child / its parts in one process", told),
            at_most(f"  lost, median of {len(lost)} blocks", median(lost), 1, "%", 2),
            Figure("  lost, the middle half of the blocks", middle),
        ]
    return figures


@cache
def _engine(path: Path, threads: int, sequences: int, tokens: int) -> tuple[Model, Scheduler]:
    model = Model(path)
    return model, Scheduler(Context(model, sequences, tokens, threads, AbortFlag()))


def _parts(path: Path, threads: int, sequences: int, tokens: int, texts: list[str]) -> Run:
    model, scheduler = _engine(path, threads, sequences, tokens)
    began = perf_counter()
    left = {Text(model.tokenize(text), _likeliest): TOKENS for text in texts}
    for text in left:
        scheduler.add(text)
    counted = 0
    while left:
        for grown in scheduler.compute() if scheduler.plan() else ():
            ended = model.is_end(grown.token)
            counted += not ended
            left[grown.text] -= 1
            if ended or not left[grown.text]:
                scheduler.remove(grown.text)
                del left[grown.text]
    return Run(counted, perf_counter() - began)


def _likeliest(logits: Logits) -> int:
    return int(logits.argmax())


# --- Python's share ---------------------------------------------------------------------------------------------------


async def _python(folder: Path, weights: Weights, threads: int, where: str) -> list[Figure]:
    """What of the child's time is not the library's computing: its batches, dice, text and messages are Python."""
    figures = []
    with _process(folder / "worker.log") as process:
        for crowd in (1, CROWD):
            for temperature in (0.0, 0.8):
                texts = [[prompt(40) for _ in range(crowd)] for _ in range(ROUNDS)]
                shares = await trio.to_thread.run_sync(process.submit(_shares, weights.path, threads, temperature, texts).result)
                name = f"{where}, {crowd} at once, temperature {temperature}: time in Python"
                figures.append(at_most(name, median(shares) * 100, 2, "%", 2))
    return figures


def _shares(path: Path, threads: int, temperature: float, crowds: list[list[str]]) -> list[float]:
    """Of the time that each crowd's answers take, the share outside of llama_decode."""
    worker, sink, clock = _worker(path, threads)
    shares = []
    for texts in crowds:
        for number, text in enumerate(texts):
            worker.begin(pipe.Generate(number, "complete", [["user", text]], TOKENS, temperature=temperature, seed=number + 1))
        clock.seconds, began = 0.0, perf_counter()
        while worker.plan():
            worker.step()
            sink.flush()
        shares.append(1 - clock.seconds / (perf_counter() - began))
    return shares


@cache
def _worker(path: Path, threads: int) -> tuple[Worker, Sink, "_Clock"]:
    """As the child has it, but for the thread that waits for requests."""
    model = Model(path)
    context, _ = fitting(model, LLAMA_TOKENS, "auto", threads, free_bytes(), AbortFlag())
    reader = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert reader.stdin is not None
    sink = Sink(reader.stdin.fileno())
    clock = llama_cpp.llama_decode = _Clock(llama_cpp.llama_decode, reader)
    return Worker(model, context, None, Formats(model), sink), sink, clock


@dataclass(slots=True)
class _Clock:
    """A function, and the seconds that it takes. The reader lives as long."""

    function: Callable[..., int]
    reader: "subprocess.Popen[bytes]"
    seconds: float = 0.0

    def __call__(self, *given: object) -> int:
        began = perf_counter()
        try:
            return self.function(*given)
        finally:
            self.seconds += perf_counter() - began


# --- Exactness --------------------------------------------------------------------------------------------------------


async def _exact(folder: Path, weights: Weights, threads: int, where: str) -> list[Figure]:
    """What it costs to compute so that others can compute the same: nothing for weights where that is so anyway."""
    exact: tuple[Exactness, ...] = ("auto", "always")
    backends = [LlamaCppBackend(weights.argument, Surroundings(folder / each, threads, exact=each)) for each in exact]
    figures = []
    async with running(backends[0]), running(backends[1]):
        for crowd in (1, 4, CROWD):
            speeds = await _in_turns([_through(backend) for backend in backends], crowd, ROUNDS)
            told = " / ".join(f"{median(each):.0f}" for each in speeds)
            ratios = " / ".join(f"{median(own / auto for own, auto in zip(each, speeds[0], strict=True)):.2f}" for each in speeds)
            figures.append(Figure(f"{where}, {crowd} at once: tok/s, {' / '.join(exact)}; ratios", f"{told}; {ratios}"))
    return figures


def _run(part: Callable[..., Awaitable[list[Figure]]]) -> Callable[[Path, Weights, int, str], list[Figure]]:
    return lambda folder, weights, threads, where: trio.run(part, folder, weights, threads, where)


PARTS = {"locked": _run(_locked), "boundary": _run(_boundary), "python": _run(_python), "exact": _run(_exact)}
