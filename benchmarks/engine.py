"""The node's engine beside llama-server, of the same source and flags, both over HTTP with one client, in turns.

LLAMA_SERVER names its program; `make bench-engine` builds it. PARTS chooses some of the measurements: many, shared, long and stall,
and locked, boundary, python and exact, which need no server (see `in_process`). EXACT is the node's `offer.exact`.
"""

import http.client
import json
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from pathlib import Path
from statistics import median
from threading import Thread
from time import monotonic, perf_counter, sleep

from benchmarks import in_process
from benchmarks.figures import Figure, percentile
from benchmarks.workload import ROUNDS, TOKENS, Weights, find_models, prompt
from tests.node.libp2p.strangers import free_port
from tests.processes import real_nodes

PARTS = os.environ.get("PARTS", "many shared long stall locked boundary python exact").split()
THREADS = [int(number) for number in os.environ.get("THREADS", "1 2").split()]
CROWDS = [int(number) for number in os.environ.get("CROWDS", "1 2 4 8 16").split()]
EXACT = os.environ.get("EXACT", "auto")
PLACES, PLACE_TOKENS = 16, 2048
LONG = (800, 1_900)  # Tokens of prompts that come alone.
LATE_S = 4.0  # After which a long prompt comes among others.
START_S = 60.0
TUNINGS = {
    "llama-server": (),
    "llama-server, q8_0": ("-ctk", "q8_0", "-ctv", "q8_0", "-fa", "on"),
}
"""What a user who has read its manual may try; the better one counts, at each point."""


@dataclass(frozen=True, slots=True)
class Rival:
    """Somebody who serves completions at this place."""

    name: str
    place: str
    model: str
    headers: dict[str, str]
    ended_early: list[int] = field(default_factory=list)
    """The tokens of answers that had fewer than they could have: who gives them has less to do."""


@dataclass(slots=True)
class Asked:
    """One completion as its user sees it: seconds since it was asked, of the first text and of every text."""

    tokens: int
    first_s: float
    gaps_s: list[float]

    def longest_gap_s(self, after_s: float = 0.0) -> float:
        """Of those that ended so many seconds after it was asked, or later."""
        ends = accumulate(self.gaps_s, initial=self.first_s)
        next(ends)
        return max((gap for gap, end in zip(self.gaps_s, ends, strict=True) if end >= after_s), default=0.0)


def measure(folder: Path) -> list[Figure]:
    figures: list[Figure] = []
    for weights in find_models(folder):
        for threads in THREADS:
            here, where = folder / weights.name / str(threads), f"{weights.name}, {threads} thread(s)"
            if any(part in _PARTS for part in PARTS):
                with _rivals(here, weights, threads) as rivals:
                    figures += [figure for part in PARTS if part in _PARTS for figure in _PARTS[part](rivals, where)]
                figures.append(_ended_early(rivals, where))
            for part in PARTS:
                if part not in _PARTS:
                    figures += in_process.PARTS[part](here / part, weights, threads, where)
    return figures


@contextmanager
def _rivals(folder: Path, weights: Weights, threads: int) -> Iterator[list[Rival]]:
    """The node first."""
    with real_nodes(folder) as start:
        node = start.start("node", models=(f"llama_cpp:{weights.argument}",), **{"offer.threads": threads, "offer.exact": EXACT})
        headers = {"authorization": f"Bearer {node.key}", "content-type": "application/json"}
        rivals = [Rival("node", node.api.removeprefix("http://"), weights.name, headers)]
        servers = []
        try:
            for name, tuning in TUNINGS.items():
                port = free_port()
                command = [
                    os.environ["LLAMA_SERVER"], "-m", str(weights.path), "--host", "127.0.0.1", "--port", str(port),
                    "-t", str(threads), "-tb", str(threads), "-np", str(PLACES), "-c", str(PLACES * PLACE_TOKENS),
                    "--no-kv-unified", "--no-webui", *tuning,
                ]  # fmt: skip
                with (folder / f"{port}.log").open("wb") as log:
                    servers.append(subprocess.Popen(command, stdout=log, stderr=log))
                rivals.append(Rival(name, f"127.0.0.1:{port}", weights.name, {"content-type": "application/json"}))
                _wait_healthy(rivals[-1])
            yield rivals
        finally:
            for server in servers:
                server.kill()
                server.wait()


def _wait_healthy(rival: Rival) -> None:
    until = monotonic() + START_S
    while monotonic() < until:
        try:
            connection = http.client.HTTPConnection(rival.place, timeout=5)
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        sleep(0.1)
    raise TimeoutError(f"{rival.name} does not get ready")


def _ask(rival: Rival, text: str, tokens: int = TOKENS) -> Asked:
    """A text to go on with, because not every model has a chat template."""
    body = {
        "model": rival.model, "prompt": text, "max_tokens": tokens, "temperature": 0,
        "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip
    connection = http.client.HTTPConnection(rival.place, timeout=300)
    began = perf_counter()
    connection.request("POST", "/v1/completions", json.dumps(body), rival.headers)
    response = connection.getresponse()
    assert response.status == 200, (rival.name, response.read())
    times: list[float] = []
    counted = 0
    for line in response:
        if not line.startswith(b"data: {"):
            continue
        said = json.loads(line[6:])
        if any(choice.get("text") for choice in said.get("choices", ())):
            times.append(perf_counter() - began)
        counted = (said.get("usage") or {}).get("completion_tokens", counted)
    connection.close()
    gaps = [later - earlier for earlier, later in pairwise(times)]
    ended_s = perf_counter() - began
    if counted < tokens:
        rival.ended_early.append(counted)
    return Asked(counted, times[0] if times else ended_s, gaps)  # It may have nothing to say.


def _together(jobs: Sequence[Callable[[], Asked]]) -> list[Asked]:
    done: list[Asked | None] = [None] * len(jobs)

    def do(number: int) -> None:
        done[number] = jobs[number]()

    threads = [Thread(target=do, args=(number,)) for number in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(done), "a request failed"
    return [asked for asked in done if asked is not None]


def _compared(name: str, rates: dict[str, list[float]], goal: float) -> list[Figure]:
    """Medians of the rounds, and ours to those of the rival who is better.

    The ratio is the median of the rounds' ratios: what makes the machine slower for a while makes it so for all.
    """
    ours, *others = rates.values()
    ratio = min(median(own / other for own, other in zip(ours, theirs, strict=True)) for theirs in others)
    return [
        Figure(name, " / ".join(f"{median(each):.0f}" for each in rates.values())),
        Figure("  ratio to the better", f"{ratio:.2f}", f">= {goal}", ratio >= goal),
    ]


def _ended_early(rivals: Sequence[Rival], where: str) -> Figure:
    counts = [len(rival.ended_early) for rival in rivals]
    return Figure(f"{where}: answers that ended early", " / ".join(map(str, counts)), "0", not any(counts))


# --- Many at once -----------------------------------------------------------------------------------------------------


def _many(rivals: Sequence[Rival], where: str) -> list[Figure]:
    figures = []
    for rival in rivals:
        _ask(rival, prompt(40))
    for crowd in CROWDS:
        speeds: dict[str, list[float]] = {rival.name: [] for rival in rivals}
        firsts: dict[str, list[float]] = {rival.name: [] for rival in rivals}
        longest: dict[str, list[float]] = {rival.name: [] for rival in rivals}
        for number in range(ROUNDS):
            for rival in (*rivals[number % len(rivals) :], *rivals[: number % len(rivals)]):
                prompts = [prompt(40) for _ in range(crowd)]
                began = perf_counter()
                asked = _together([lambda rival=rival, text=text: _ask(rival, text) for text in prompts])  # type: ignore[misc]
                speeds[rival.name].append(sum(each.tokens for each in asked) / (perf_counter() - began))
                firsts[rival.name] += [each.first_s for each in asked]
                longest[rival.name].append(max(each.longest_gap_s() for each in asked))
        name = f"{where}, {crowd} at once: tok/s, {' / '.join(rival.name for rival in rivals)}"
        figures += _compared(name, speeds, 1.15 if crowd == 16 else 1.0)
        for share in (0.5, 0.95):
            first = {rival.name: percentile(firsts[rival.name], share) for rival in rivals}
            best = min(first[rival.name] for rival in rivals[1:])
            told = " / ".join(f"{first[rival.name] * 1000:.0f}" for rival in rivals)
            figures.append(Figure(f"  first text, p{share * 100:.0f}, ms", told, "no worse", first["node"] <= best))
        figures.append(Figure("  longest gap, s", " / ".join(f"{median(each):.2f}" for each in longest.values())))
    return figures


# --- A beginning that all share ---------------------------------------------------------------------------------------


def _shared(rivals: Sequence[Rival], where: str) -> list[Figure]:
    """Eight at once after the same 300 tokens, which nobody, or everybody, has seen before; then one again after 1,000."""
    cold: dict[str, list[float]] = {rival.name: [] for rival in rivals}
    warm: dict[str, list[float]] = {rival.name: [] for rival in rivals}
    again: dict[str, list[float]] = {rival.name: [] for rival in rivals}
    for _ in range(ROUNDS):
        for rival in rivals:
            beginning = prompt(300)
            for times in (cold, warm):
                prompts = [f"{beginning} {prompt(12)}" for _ in range(8)]
                began = perf_counter()
                asked = _together([lambda rival=rival, text=text: _ask(rival, text, 32) for text in prompts])  # type: ignore[misc]
                times[rival.name].append(sum(each.tokens for each in asked) / (perf_counter() - began))
            long = prompt(1_000)
            first, second = _ask(rival, long, 1), _ask(rival, long, 1)
            again[rival.name].append(1 - second.first_s / first.first_s)
    figures = []
    for name, times, goal in (("cold", cold, 2.5), ("warm", warm, 1.1)):
        figures += _compared(f"{where}, 8 share 300 tokens, {name}: tok/s", times, goal)
    saved = median(again["node"])
    told = " / ".join(f"{median(again[rival.name]) * 100:.0f}" for rival in rivals)
    figures.append(Figure("  1,000 tokens again: less time to the first text, %", told, ">= 95", saved >= 0.95))
    return figures


# --- A long prompt alone ----------------------------------------------------------------------------------------------


def _long(rivals: Sequence[Rival], where: str) -> list[Figure]:
    """What reading it takes, and how fast it is gone on with."""
    figures = []
    for length in LONG:
        firsts: dict[str, list[float]] = {rival.name: [] for rival in rivals}
        speeds: dict[str, list[float]] = {rival.name: [] for rival in rivals}
        for _ in range(ROUNDS):
            text = prompt(length)
            for rival in rivals:
                asked = _ask(rival, text)
                firsts[rival.name].append(asked.first_s)
                speeds[rival.name].append((asked.tokens - 1) / sum(asked.gaps_s))
        first = {name: median(each) for name, each in firsts.items()}
        figures += [
            Figure(f"{where}, {length} tokens alone: first text, s", " / ".join(f"{first_s:.1f}" for first_s in first.values())),
            Figure("  ratio to the better", f"{first['node'] / min(first[rival.name] for rival in rivals[1:]):.2f}"),
            *_compared("  from there on, tok/s", speeds, 1.0),
        ]
    return figures


# --- A long prompt among others ---------------------------------------------------------------------------------------


def _stall(rivals: Sequence[Rival], where: str) -> list[Figure]:
    """Four stream; then a prompt of 1,100 tokens comes."""
    longest: dict[str, list[float]] = {rival.name: [] for rival in rivals}
    firsts: dict[str, list[float]] = {rival.name: [] for rival in rivals}
    for _ in range(ROUNDS):
        for rival in rivals:
            alone = [lambda rival=rival: _ask(rival, prompt(40), 400) for _ in range(4)]

            def late(rival: Rival = rival) -> Asked:
                sleep(LATE_S)
                return _ask(rival, prompt(1_100), 4)

            *streams, long = _together([*alone, late])
            longest[rival.name].append(max(each.longest_gap_s(LATE_S) for each in streams))
            firsts[rival.name].append(long.first_s)
    gap, first = median(longest["node"]), median(firsts["node"])
    best = min(median(firsts[rival.name]) for rival in rivals[1:])
    gaps = " / ".join(f"{median(longest[rival.name]):.2f}" for rival in rivals)
    told = " / ".join(f"{median(firsts[rival.name]):.2f}" for rival in rivals)
    return [
        Figure(f"{where}, 1,100 tokens come among 4 streams: longest gap, s", gaps, "<= 0.35", gap <= 0.35),
        Figure("  first text of the long one, s", told, "<= 2 x", first <= 2 * best),
    ]


_Part = Callable[[Sequence[Rival], str], list[Figure]]
_PARTS: dict[str, _Part] = {"many": _many, "shared": _shared, "long": _long, "stall": _stall}
