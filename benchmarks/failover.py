"""A worker dies before its first token, twenty times with kill -9; another is frozen with SIGSTOP."""

import signal
from pathlib import Path
from time import perf_counter, sleep

from benchmarks.figures import Figure, at_most
from tests.processes import RealNode, real_nodes

KILLS = 20
THINKING = "echo:first_ms=400"


def measure(folder: Path) -> list[Figure]:
    waits = []
    with real_nodes(folder) as start:
        asker = start.start("asker")
        workers = [start.start(f"worker-{n}", models=(THINKING,), join=asker.addresses[:1]) for n in range(2)]
        for number in range(KILLS):
            asker.wait_for("chat", 2)
            victim, wait_s = _kill_and_wait(asker, workers)
            waits.append(wait_s)
            workers.remove(victim)
            workers.append(start.start(f"next-{number}", models=(THINKING,), join=asker.addresses[:1]))
        asker.wait_for("chat", 2)
        frozen = workers[0]
        began = perf_counter()
        frozen.kill(signal.SIGSTOP)
        while any(peer["name"] == frozen.name for peer in asker.control("GET", "peers")["peers"]):
            sleep(0.05)
        dropped_s = perf_counter() - began
    return [
        at_most(f"kill -9 before the first token: answered by another, slowest of {KILLS}", max(waits), 2, "s", 2),
        Figure("  of which the new worker thinks", "0.40 s"),
        at_most("a frozen peer (SIGSTOP) is out of the routing", dropped_s, 10, "s"),
    ]


def _kill_and_wait(asker: RealNode, workers: list[RealNode]) -> tuple[RealNode, float]:
    victim, killed_at, text = None, 0.0, ""
    for event, data in asker.stream("Answer, whoever is left."):
        if event == "route" and victim is None:
            chosen = next(found["name"] for found in data["candidates"] if found["chosen"])
            victim = next(worker for worker in workers if worker.name == chosen)
            sleep(0.1)  # It has accepted by now, and is thinking.
            victim.kill()
            killed_at = perf_counter()
        elif event == "text":
            text += data["text"]
        elif event == "end":
            assert victim is not None
            assert data["code"] == "", data
            assert data["name"] != victim.name, data
            assert text == "Answer, whoever is left.", text
            return victim, perf_counter() - killed_at
    raise AssertionError("the stream ended without an end")
