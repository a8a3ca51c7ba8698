"""Workers with a real model are killed (kill -9) in the middle of their answers; another goes on, and the text is compared."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from time import perf_counter

from benchmarks.figures import Figure, at_most, percentile
from tests.processes import RealNode, real_nodes

KILLS = int(os.environ.get("KILLS", "200"))
MODEL = "smollm2-135m"
TOKENS = 64
PROMPTS = (
    "Why is the sky blue?",
    "Write a short story about a bird that is afraid of heights.",
    "Explain how bread is made, step by step.",
    "List ten facts about the ocean.",
    "Escreva um poema sobre o mar. 🐦",
)


@dataclass(slots=True)
class Seen:
    """What the user saw of one answer."""

    text: str = ""
    gap_s: float = 0.0
    resumed: bool = False
    failed: str = ""
    workers: list[str] = field(default_factory=list)


def measure(folder: Path) -> list[Figure]:
    dice = Random(5)
    with real_nodes(folder) as start:
        asker = start.start("asker")
        options = {"models": (MODEL,), "join": asker.addresses[:1], "offer.threads": 1}
        workers = [start.start(f"worker-{number}", **options) for number in range(3)]
        asker.wait_for("chat", 3)
        whole = {prompt: _answer(asker, prompt) for prompt in PROMPTS}
        seen: list[tuple[str, Seen]] = []
        for number in range(KILLS):
            asker.wait_for("chat", 2)
            prompt = PROMPTS[number % len(PROMPTS)]
            one = _answer(asker, prompt, workers, kill_after=dice.randint(1, 12))
            seen.append((prompt, one))
            for dead in [worker for worker in workers if worker.process.poll() is not None]:
                workers.remove(dead)
                workers.append(start.begin(f"next-{number}", **options))
    cut = [(prompt, one) for prompt, one in seen if one.resumed]
    gaps = [one.gap_s for _, one in cut]
    broken = sum(bool(one.failed) for _, one in seen)
    differing = sum(one.text != whole[prompt].text for prompt, one in cut)
    prefill_s = percentile([one.gap_s for one in whole.values()], 1.0)
    return [
        Figure("answers whose worker was killed while it spoke", f"{len(cut)} of {len(seen)}"),
        Figure("  broken streams", str(broken), "0", broken == 0),
        Figure("  texts that differ from the uninterrupted one", str(differing), "0", differing == 0),
        Figure("  gap, p50 / p95", f"{percentile(gaps, 0.5):.2f} / {percentile(gaps, 0.95):.2f} s"),
        at_most("  gap, longest", max(gaps), 1 + prefill_s, "s", 2),
        Figure("  request to first text of a fresh answer, longest", f"{prefill_s:.2f} s"),
    ]


def _answer(asker: RealNode, prompt: str, workers: list[RealNode] | None = None, kill_after: int = 0) -> Seen:
    """Ask, and kill whoever speaks after so many pieces. `gap_s` is the time to the next text after that."""
    seen, at, pieces = Seen(), perf_counter(), 0
    for event, data in asker.stream(prompt, tokens_max=TOKENS, temperature=0.0):
        if event == "route":
            seen.workers.append(next(found["name"] for found in data["candidates"] if found["chosen"]))
        elif event == "text":
            pieces += 1
            seen.text += data["text"]
            if (pieces == 1 and not kill_after) or pieces == kill_after + 1:
                seen.gap_s = perf_counter() - at
            if pieces == kill_after and workers is not None:
                next(worker for worker in workers if worker.name == seen.workers[-1]).kill()
                at = perf_counter()
        elif event == "end":
            seen.failed = data["code"]
            seen.resumed = len(seen.workers) > 1
    return seen
