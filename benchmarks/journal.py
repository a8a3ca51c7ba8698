"""What it costs that a task is on the disk before its first word: nodes with and without a journal, in turns."""

import os
import threading
from pathlib import Path
from time import perf_counter

from benchmarks.figures import Figure, at_most, percentile
from benchmarks.latency import Client
from node.store.journal import Entry, Journal
from tests.processes import RealNode, real_nodes

ROUNDS = 300
WARM_UP = 20
AT_ONCE = 16
SECONDS = 4.0
TURNS = 3
THINKING_MS = 20  # Far quicker than any model on a laptop; slower than a disk.
WITHOUT = {"journal.entries_max": 0}


def measure(folder: Path) -> list[Figure]:
    figures = [*_disk(folder)]
    with real_nodes(folder) as start:
        for first_ms, told in ((THINKING_MS, f"a model that thinks for {THINKING_MS} ms"), (0, "one that answers at once")):
            model = f"echo:first_ms={first_ms}"
            kept = start.start(f"with-{first_ms}", models=(model,))
            bare = start.start(f"without-{first_ms}", models=(model,), **WITHOUT)
            figures += _latency(kept, bare, told, hidden=first_ms > 0)
        figures += _throughput(kept, bare)
    return figures


def _disk(folder: Path) -> list[Figure]:
    """What this disk takes for one small commit, and for one of a hundred tasks."""
    journal = Journal(folder / "journal.db", keep_days=30, entries_max=10_000)
    times: dict[int, list[float]] = {1: [], 100: []}
    for size, samples in times.items():
        for _ in range(100):
            entries = [_entry() for _ in range(size)]
            began = perf_counter()
            journal.write(entries)
            samples.append(perf_counter() - began)
    journal.close()
    one, many = (percentile(samples, 0.5) * 1000 for samples in times.values())
    return [
        Figure("the disk: one commit of one task, p50", f"{one:.2f} ms"),
        Figure("  and of a hundred tasks, for each", f"{many / 100:.3f} ms"),
    ]


def _entry() -> Entry:
    return Entry(
        os.urandom(16), 1, "open", "chat", "", "swarm", False, "", "", 1, "", "", "", "", "", 0, 0, None, None, "why",
        b"r" * 200, b"{}" * 300, "",
    )  # fmt: skip


def _latency(kept: RealNode, bare: RealNode, told: str, *, hidden: bool) -> list[Figure]:
    clients = [(Client(kept), list[float]()), (Client(bare), list[float]())]
    for number in range(WARM_UP + ROUNDS):
        for client, samples in clients if number % 2 else reversed(clients):
            first_s = client.first_token_s()
            if number >= WARM_UP:
                samples.append(first_s)
    added = [(percentile(clients[0][1], share) - percentile(clients[1][1], share)) * 1000 for share in (0.5, 0.99)]
    without = percentile(clients[1][1], 0.5) * 1000
    name = f"added to the first token of {told}, p50"
    return [
        # Who answers at once waits for the disk, whatever that takes; who thinks has its wait hidden.
        at_most(name, added[0], 1, "ms", 2) if hidden else Figure(name, f"{added[0]:.2f} ms"),
        Figure("  the same, p99", f"{added[1]:.2f} ms"),
        Figure("  without a journal, p50", f"{without:.2f} ms"),
    ]


def _throughput(kept: RealNode, bare: RealNode) -> list[Figure]:
    speeds: dict[str, list[float]] = {kept.name: [], bare.name: []}
    for _ in range(TURNS):
        for node in (kept, bare):
            speeds[node.name].append(_tasks_per_s(node))
    ratio = percentile([own / other for own, other in zip(*speeds.values(), strict=True)], 0.5)
    with_s, without_s = (percentile(found, 0.5) for found in speeds.values())
    return [
        Figure(f"tasks/s with {AT_ONCE} at once, median of {TURNS}", f"{with_s:.0f}"),
        Figure("  without a journal", f"{without_s:.0f}"),
        Figure("  lost to the journal, median of pairs", f"{(1 - ratio) * 100:.0f} %"),
    ]


def _tasks_per_s(node: RealNode) -> float:
    done = [0] * AT_ONCE
    until = perf_counter() + SECONDS

    def ask(number: int) -> None:
        client = Client(node)
        while perf_counter() < until:
            client.first_token_s()
            done[number] += 1

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / SECONDS
