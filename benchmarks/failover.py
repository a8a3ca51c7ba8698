"""A worker dies before its first token, twenty times with kill -9, and freezes, ten times with SIGSTOP: who is asked instead."""

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, sleep

from benchmarks.figures import Figure, at_most, percentile
from tests.processes import RealNode, real_nodes

KILLS = 20
FREEZES = 10
WARM_UP = 10  # So that it is known how long these workers usually take.
THINKING_S = 0.4
THINKING = f"echo:first_ms={THINKING_S * 1000:.0f}"
FREEZE_GOAL_S = 1.5
TEXT = "Answer, whoever is left."


@dataclass(frozen=True, slots=True)
class Change:
    """Seconds from the end of one worker until another was asked, had accepted, and had answered."""

    victim: RealNode
    asked_s: float
    accepted_s: float
    answered_s: float


def measure(folder: Path) -> list[Figure]:
    killed, frozen = [], []
    with real_nodes(folder) as start:
        asker = start.start("asker")
        workers = [start.start(f"worker-{n}", models=(THINKING,), join=asker.addresses[:1]) for n in range(2)]
        for number in range(KILLS):
            asker.wait_for("chat", 2)
            change = _strike(asker, workers, signal.SIGKILL)
            killed.append(change)
            workers.remove(change.victim)
            workers.append(start.start(f"next-{number}", models=(THINKING,), join=asker.addresses[:1]))
        asker.wait_for("chat", 2)
        usual = [_ask(asker) for _ in range(WARM_UP)]
        for _ in range(FREEZES):
            change = _strike(asker, workers, signal.SIGSTOP)
            frozen.append(change)
            sleep(1)
            change.victim.kill(signal.SIGCONT)
            asker.wait_until(lambda: len(asker.control("POST", "route", {"text": TEXT})["candidates"]) == 2)
    goal_s = max(FREEZE_GOAL_S, 2 * percentile(usual, 0.95))
    accepted_s, asked_s = max(change.accepted_s for change in killed), max(change.asked_s for change in frozen)
    thinks = f"  answered, of which the new worker thinks {THINKING_S:g} s"
    return [
        at_most(f"kill -9 before the first token: another accepts, slowest of {KILLS}", accepted_s, 0.3, "s", 3),
        Figure("  another is asked, median / slowest", _told([change.asked_s for change in killed])),
        Figure(thinks, _told([change.answered_s for change in killed])),
        at_most(f"SIGSTOP before the first token: another is asked, slowest of {FREEZES}", asked_s, goal_s, "s", 2),
        Figure(thinks, _told([change.answered_s for change in frozen])),
        Figure("  p95 of an answer that nothing happens to", f"{percentile(usual, 0.95):.2f} s"),
    ]


def _ask(asker: RealNode) -> float:
    began = perf_counter()
    text, end = asker.ask(TEXT)
    assert (text, end["code"]) == (TEXT, ""), end
    return perf_counter() - began


def _strike(asker: RealNode, workers: Sequence[RealNode], how: signal.Signals) -> Change:
    """Ask, and end or freeze the worker while it thinks."""
    victim, struck_at, routed_at, text = None, 0.0, [], ""
    for event, data in asker.stream(TEXT):
        if event == "route":
            routed_at.append(perf_counter())
            if victim is None:
                chosen = next(found["name"] for found in data["candidates"] if found["chosen"])
                victim = next(worker for worker in workers if worker.name == chosen)
                sleep(0.1)  # It has accepted by now, and is thinking.
                struck_at = perf_counter()
                victim.kill(how)
        elif event == "text":
            text += data["text"]
        elif event == "end":
            answered_s = perf_counter() - struck_at
            assert victim is not None and (text, data["code"]) == (TEXT, ""), data
            assert data["name"] != victim.name, "it had answered before it was struck"
            answered = data["attempts"][-1]
            return Change(victim, routed_at[1] - struck_at, routed_at[1] + answered["accepted_s"] - struck_at, answered_s)
    raise AssertionError("the stream ended without an end")


def _told(samples: Sequence[float]) -> str:
    return f"{percentile(samples, 0.5):.3f} / {max(samples):.3f} s"
