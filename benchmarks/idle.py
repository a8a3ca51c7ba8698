"""What a node costs that does nothing: no model, three neighbours, one minute."""

from pathlib import Path
from time import sleep

import psutil

from benchmarks.figures import Figure, at_most
from tests.processes import real_nodes

SETTLE_S = 10
WATCH_S = 60


def measure(folder: Path) -> list[Figure]:
    with real_nodes(folder) as start:
        first = start.start("first")
        for number in range(3):
            start.start(f"other-{number}", join=first.addresses[:1])
        sleep(SETTLE_S)
        process = psutil.Process(first.process.pid)
        before = sum(process.cpu_times()[:2])
        sleep(WATCH_S)
        spent_s = sum(process.cpu_times()[:2]) - before
        memory = process.memory_info().rss / 2**20
    return [
        at_most("memory (RSS)", memory, 120, "MB", 0),
        at_most("processor, share of one core", 100 * spent_s / WATCH_S, 1, "%", 2),
    ]
