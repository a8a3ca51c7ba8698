"""Sixty nodes at work, and thirty of a hundred killed: what was accepted comes to one end, with the right words."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from random import Random
from threading import Event, Thread
from time import monotonic, sleep
from typing import Any

from benchmarks.figures import Figure, percentile
from benchmarks.flocks import everybody_knows_everybody, start_flock
from tests.processes import ControlError, RealNode, Starter, real_nodes

ASKERS = 12
WORKERS = 48
KILLED = 18
WORKER = "echo:first_ms=300,delay_ms=60"  # Twelve words: a second.
CALM_S = 5.0
KILLING_S = 20.0
AFTER_S = 10.0  # Load goes on until the swarm has got over it.
AT_ONCE = 2  # Users of each asker who wait for their answers,
DETACHED = 8  # and tasks of each that nobody waits for, over the whole time.
KEPT = 60  # Such tasks of the asker that is killed, a moment before: about as many as a node runs at once.
DEADLINE_S = 60.0
ENDED_S = 60.0
WORDS = "they turn and fold like smoke over the reed bed at dusk"


@dataclass(slots=True)
class Asked:
    """One task as the user who waits for it sees it. It is accepted once anything of its stream has come."""

    text: str
    said: str = ""
    accepted: bool = False
    ends: int = 0
    code: str = ""
    trouble: str = ""
    first_s: float = 0.0
    gap_s: float = 0.0
    whole_s: float = 0.0
    workers: int = 0


@dataclass(slots=True)
class Left:
    """One task that was handed over: who took it, and its id."""

    asker: str
    task: str
    text: str


@dataclass(slots=True)
class Load:
    """All that was asked. The lists only grow, so the threads need no lock."""

    over: Event = field(default_factory=Event)
    asked: list[Asked] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)
    not_taken: list[str] = field(default_factory=list)


def measure(folder: Path) -> list[Figure]:
    dice, load = Random(11), Load()
    with real_nodes(folder) as start:
        # Those through whom all others come are askers, so that any worker can be spared.
        nodes = start_flock(start, [()] * ASKERS + [(WORKER,)] * WORKERS)
        everybody_knows_everybody(nodes)
        askers, workers = nodes[:ASKERS], nodes[ASKERS:]
        phoenix = askers.pop()  # It takes only what nobody waits for: streams end with their node.
        threads = [Thread(target=_ask, args=(asker, f"{asker.name}/{n}", load)) for asker in askers for n in range(AT_ONCE)]
        threads += [Thread(target=_hand_over, args=(asker, load)) for asker in askers]
        for thread in threads:
            thread.start()
        sleep(CALM_S)
        began, open_at_death = monotonic(), 0
        for number, victim in enumerate(dice.sample(workers, KILLED)):
            sleep(max(0.0, began + KILLING_S * number / KILLED - monotonic()))
            victim.kill()
            if number == KILLED // 2:
                phoenix, open_at_death = _kill_and_start_again(start, phoenix, askers, load)
        sleep(AFTER_S)
        load.over.set()
        for thread in threads:
            thread.join()
        journals = {node.name: _ended(node) for node in [*askers, phoenix]}
        texts = {left.task: _text(node, left.task) for node in [*askers, phoenix] for left in load.left if left.asker == node.name}
    return [*_streamed(load), *_handed_over(load, journals, texts, open_at_death)]


# --- Load -------------------------------------------------------------------------------------------------------------


def _ask(asker: RealNode, name: str, load: Load) -> None:
    """A user with one question after the other; no two are alike."""
    number = 0
    while not load.over.is_set():
        number += 1
        load.asked.append(one := Asked(f"{name}/{number} {WORDS}"))
        began = monotonic()
        try:
            _read(asker, one)
        except (ControlError, OSError, HTTPException) as error:
            one.trouble = f"{error!r}"
            load.over.wait(0.5)
        one.whole_s = monotonic() - began


def _read(asker: RealNode, one: Asked) -> None:
    at = began = monotonic()
    for event, data in asker.stream(one.text, deadline_s=DEADLINE_S):
        one.accepted = True
        if event == "route":
            one.workers += 1
        elif event == "text":
            now = monotonic()
            if one.said:
                one.gap_s = max(one.gap_s, now - at)
            else:
                one.first_s = now - began
            at = now
            one.said += data["text"]
        elif event == "end":
            one.ends += 1
            one.code = data["code"]


def _hand_over(asker: RealNode, load: Load) -> None:
    for number in range(DETACHED):
        _leave(asker, f"{asker.name}/left/{number} {WORDS}", load)
        if load.over.wait(KILLING_S / DETACHED):
            return


def _leave(asker: RealNode, text: str, load: Load) -> None:
    try:
        taken = asker.control("POST", "tasks", {"text": text})
    except (ControlError, OSError, HTTPException) as error:
        load.not_taken.append(f"{error!r}")
    else:
        load.left.append(Left(asker.name, taken["task"], text))


def _kill_and_start_again(start: Starter, node: RealNode, others: Sequence[RealNode], load: Load) -> tuple[RealNode, int]:
    """The same home again, and how many tasks were open there a moment before."""
    for number in range(KEPT):
        _leave(node, f"{node.name}/kept/{number} {WORDS}", load)
    still_open = sum(task["state"] == "open" for task in node.control("GET", "tasks?count=1000")["tasks"])
    node.kill()
    node.process.wait()
    return start.start(node.name, join=tuple(other.addresses[0] for other in others[:2])), still_open


# --- What became of it ------------------------------------------------------------------------------------------------


def _ended(node: RealNode) -> list[dict[str, Any]]:
    """The journal of a node, once everything there has ended, or after ENDED_S."""
    until = monotonic() + ENDED_S
    while True:
        tasks: list[dict[str, Any]] = node.control("GET", "tasks?count=10000")["tasks"]
        if all(task["state"] != "open" for task in tasks) or monotonic() > until:
            return tasks
        sleep(0.2)


def _text(node: RealNode, task: str) -> str:
    text: str = node.control("GET", f"tasks/{task}")["text"]
    return text


def _streamed(load: Load) -> list[Figure]:
    accepted = [one for one in load.asked if one.accepted]
    right = [one for one in accepted if (one.said, one.code, one.ends) == (one.text, "", 1)]
    failed = [one for one in accepted if one.code or one.ends == 0]
    lost = [one for one in failed if one.ends == 0]
    wrong = [one for one in accepted if not one.code and one.ends and one.said != one.text]
    twice = [one for one in accepted if one.ends > 1 or len(one.said) > len(one.text)]
    moved = [one for one in right if one.workers > 1]
    whole = [one.whole_s for one in right]
    return [
        Figure(f"tasks streamed by {ASKERS - 1} nodes while {KILLED} of {WORKERS} workers die", str(len(load.asked))),
        Figure("  not accepted", str(len(load.asked) - len(accepted))),
        Figure("  accepted, and answered with the right words", f"{len(right)} of {len(accepted)}"),
        _none("  accepted and lost: no end came", len(lost)),
        _none("  accepted and failed, with an error", len(failed) - len(lost), _codes(failed)),
        _none("  text that differs", len(wrong)),
        _none("  delivered twice", len(twice)),
        Figure("  needed more than one worker", str(len(moved))),
        Figure("  whole answer, p50 / p99", _p50_p99(whole)),
        Figure("  to the first word, p50 / p99", _p50_p99([one.first_s for one in right])),
        Figure("  longest silence within an answer", f"{max((one.gap_s for one in right), default=0.0):.2f} s"),
    ]


def _handed_over(
    load: Load, journals: dict[str, list[dict[str, Any]]], texts: dict[str, str], open_at_death: int
) -> list[Figure]:
    rows = Counter(task["task"] for tasks in journals.values() for task in tasks)
    states = {task["task"]: task for tasks in journals.values() for task in tasks}
    done = [left for left in load.left if left.task in states and states[left.task]["state"] == "done"]
    lost = [left for left in load.left if left.task not in states or states[left.task]["state"] == "open"]
    wrong = [left for left in done if texts[left.task] != left.text]
    questions = Counter(task["begins"] for tasks in journals.values() for task in tasks)
    twice = [count for count in [*rows.values(), *questions.values()] if count > 1]
    return [
        Figure("tasks handed over (--detach)", str(len(load.left)), "", None),
        Figure("  open at a node that was killed and came back", str(open_at_death)),
        Figure("  not taken", str(len(load.not_taken))),
        Figure("  done", f"{len(done)} of {len(load.left)}"),
        _none("  lost: unknown, or never ended", len(lost)),
        _none("  failed, with an error", len(load.left) - len(done) - len(lost)),
        _none("  text that differs", len(wrong)),
        _none("tasks that are in a journal twice", len(twice)),
    ]


def _none(name: str, count: int, more: str = "") -> Figure:
    return Figure(name, f"{count}{more}", "0", count == 0)


def _codes(failed: Sequence[Asked]) -> str:
    codes = Counter(one.code or "no end" for one in failed)
    return "".join(f" {code}" for code in codes)


def _p50_p99(samples: Sequence[float]) -> str:
    return f"{percentile(samples, 0.5):.2f} / {percentile(samples, 0.99):.2f} s"
