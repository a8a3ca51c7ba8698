"""Fifty nodes on one machine: how fast all hear what has changed, and what it costs them while nothing does."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from random import Random
from threading import Thread
from time import monotonic, sleep
from typing import Any

import psutil

from benchmarks.figures import Figure, at_most, percentile
from benchmarks.flocks import everybody_knows_everybody, gone_after, start_flock
from tests.processes import RealNode, real_nodes

NODES = 50
CHANGES = 30
LOADS = 8
LEAVES = 4
KILLS = 4
HEARD_S = 1.5  # After that everybody has heard of a change, or is asked again.
GONE_S = 0.4  # The same for those that go; a look at all takes a quarter of a second by itself.
PATIENCE_S = 20.0
SETTLE_S = 25.0  # Renewals follow whatever was told last within 24 s; before, fewer come than in the long run.
IDLE_S = 60.0
BUSY = "echo:model=busy,slots=1,first_ms=2500"
SENT = re.compile(r'^swarm_link_sent_bytes_total\{message="(\w+)"\} (\d+)', re.MULTILINE)
GOSSIP = ("AdvertPush", "AdvertPull", "AdvertDigest", "AdvertWant", "Rumours")


def measure(folder: Path) -> list[Figure]:
    dice = Random(7)
    with real_nodes(folder) as start:
        # A few have one slot, which can be taken; their load is told when it is. The others get models of many slots.
        models = [(BUSY,) if number < LOADS else () for number in range(NODES)]
        nodes = start_flock(start, models)
        met_s = everybody_knows_everybody(nodes)
        offers = _offers(nodes, nodes[LOADS:], dice)
        loads = _loads(nodes)
        idle = _idle(nodes)
        left = [_gone(nodes, RealNode.stop, dice) for _ in range(LEAVES)]
        killed = [_gone(nodes, _kill, dice) for _ in range(KILLS)]
    return [
        Figure(f"{NODES} nodes know each other, after the last was ready", f"{met_s:.1f} s"),
        at_most(f"a new model is seen by all, p95 of {len(offers)}", percentile(offers, 0.95), 1, "s", 2),
        Figure("  median / slowest", f"{percentile(offers, 0.5):.2f} / {max(offers):.2f} s"),
        at_most(f"a node has no room left: seen by all, p95 of {len(loads)}", percentile(loads, 0.95), 1, "s", 2),
        Figure("  median / slowest", f"{percentile(loads, 0.5):.2f} / {max(loads):.2f} s"),
        at_most(f"a node leaves: forgotten by all, slowest of {LEAVES}", max(left), 1, "s", 2),
        at_most(f"kill -9: forgotten by all, slowest of {KILLS}", max(killed), 10, "s", 2),
        *idle,
    ]


# --- What changes -----------------------------------------------------------------------------------------------------


def _offers(nodes: Sequence[RealNode], changing: Sequence[RealNode], dice: Random) -> list[float]:
    """One node after the other gets one more model."""
    delays = []
    for number, node in enumerate(islice(cycle(dice.sample(changing, len(changing))), CHANGES)):
        model = f"change-{number}"
        node.control("POST", "models", {"ref": f"echo:model={model}"})
        delays.append(_heard_by_all(node, nodes, partial(_serves, model)))
    return delays


def _serves(model: str, peer: dict[str, Any]) -> bool:
    return model in peer["models"]


def _loads(nodes: Sequence[RealNode]) -> list[float]:
    """One node after the other gets as much work as it can do at once."""
    delays = []
    for number, node in enumerate(nodes[:LOADS]):
        asker = nodes[(number + LOADS) % len(nodes)]
        asked = Thread(target=asker.ask, args=("Hm.",), kwargs={"peer": node.name, "model": "busy"})
        began = monotonic()
        asked.start()
        delays.append(_heard_by_all(node, nodes, lambda peer: peer["busy"] > 0, began))
        asked.join()
    return delays


def _heard_by_all(
    node: RealNode, nodes: Sequence[RealNode], is_it: Callable[[dict[str, Any]], bool], began: float | None = None
) -> float:
    """How long after `began`, or after the node itself said so, the last of the others heard of it.

    Each of them says how long ago that was, so nobody is asked while the news is under way.
    """
    until = monotonic() + PATIENCE_S
    sleep(HEARD_S)
    began = _heard_at(node, node, is_it, until) if began is None else began
    return max(_heard_at(other, node, is_it, until) - began for other in nodes if other is not node)


def _heard_at(observer: RealNode, node: RealNode, is_it: Callable[[dict[str, Any]], bool], until: float) -> float:
    while True:
        before = monotonic()
        peer = next((peer for peer in observer.control("GET", "peers")["peers"] if peer["name"] == node.name), None)
        at = (before + monotonic()) / 2
        if peer is not None and is_it(peer):
            return float(at - peer["told_s"])
        if at > until:
            return until
        sleep(0.1)


# --- Who goes ---------------------------------------------------------------------------------------------------------


def _kill(node: RealNode) -> None:
    node.kill()


def _gone(nodes: list[RealNode], how: Callable[[RealNode], object], dice: Random) -> float:
    """How long it takes until nobody shows the node any more. It is looked for one by one, so this is an upper bound."""
    node = nodes.pop(dice.randrange(3, len(nodes)))
    began = monotonic()
    Thread(target=how, args=(node,)).start()
    sleep(GONE_S)
    return max(gone_after(began, node, nodes, PATIENCE_S).values())


# --- Nothing ----------------------------------------------------------------------------------------------------------


def _idle(nodes: Sequence[RealNode]) -> list[Figure]:
    sleep(SETTLE_S)
    processes = [psutil.Process(node.process.pid) for node in nodes]
    before, spent_s = [_sent(node) for node in nodes], _spent_s(processes)
    sleep(IDLE_S)
    after, spent_s = [_sent(node) for node in nodes], _spent_s(processes) - spent_s
    seconds = after[0][0] - before[0][0]
    told = [new - old for (_, new), (_, old) in zip(after, before, strict=True)]
    gossip = [sum(each[kind] for kind in GOSSIP) / seconds / 1000 for each in told]
    whole = [each.total() / seconds / 1000 for each in told]
    kinds = sum(told, Counter[str]())
    return [
        at_most("idle gossip sent by a node, mean", sum(gossip) / len(gossip), 2, "KB/s", 2),
        Figure("  the most by one node", f"{max(gossip):.2f} KB/s"),
        Figure("  with pings and all, mean / most", f"{sum(whole) / len(whole):.2f} / {max(whole):.2f} KB/s"),
        *(
            Figure(f"  {kind}, mean", f"{count / seconds / len(nodes):.0f} B/s")
            for kind, count in kinds.most_common()
        ),
        Figure("idle processor time of a node, share of one core, mean", f"{100 * spent_s / seconds / len(nodes):.2f} %"),
    ]


def _spent_s(processes: Sequence[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def _sent(node: RealNode) -> tuple[float, Counter[str]]:
    """When it is, and what the node has put on its links so far, by message."""
    return monotonic(), Counter({kind: int(count) for kind, count in SENT.findall(node.metrics())})
