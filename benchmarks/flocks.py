"""Many real nodes on one machine, for measurements: started a few at a time, and asked who sees whom."""

from collections.abc import Sequence
from time import monotonic, sleep
from typing import Any

from tests.processes import RealNode, Starter

DOORS = 3  # The first nodes, through which all others come.
AT_ONCE = 4  # Starts under way: each is half a second of processor time.
PATIENCE_S = 60.0


def start_flock(start: Starter, models: Sequence[tuple[str, ...]], **settings: Any) -> list[RealNode]:
    """One node for each entry of `models`; every one joins through two of the first three."""
    nodes: list[RealNode] = []
    for number, offered in enumerate(models):
        join = tuple(nodes[(number + way) % DOORS].addresses[0] for way in range(2)) if number >= DOORS else ()
        join = join or tuple(node.addresses[0] for node in nodes)
        nodes.append(start.begin(f"node-{number}", models=offered, join=join, **settings))
        if number < DOORS:
            nodes[number].wait_ready()
        elif number >= DOORS + AT_ONCE:
            nodes[number - AT_ONCE].wait_ready()
    for node in nodes[max(DOORS, len(nodes) - AT_ONCE) :]:
        node.wait_ready()
    return nodes


def everybody_knows_everybody(nodes: Sequence[RealNode]) -> float:
    """Wait until each node shows all. How long that took."""
    began = monotonic()
    for node in nodes:
        while len(node.control("GET", "peers")["peers"]) < len(nodes):
            assert monotonic() - began < PATIENCE_S, f"{node.name} does not get to know all"
            sleep(0.1)
    return monotonic() - began


def shown(observer: RealNode) -> set[str]:
    """The names of all that a node knows, its own among them."""
    return {peer["name"] for peer in observer.control("GET", "peers")["peers"]}


def sees(observer: RealNode, node: RealNode) -> bool:
    return node.name in shown(observer)


def gone_after(began: float, node: RealNode, observers: Sequence[RealNode], patience_s: float) -> dict[str, float]:
    """How long after `began` each observer shows the node no more, by name. Whoever still does is asked again, in turn."""
    waiting, found = list(observers), dict[str, float]()
    while waiting and monotonic() - began < patience_s:
        for observer in list(waiting):
            if not sees(observer, node):
                found[observer.name] = monotonic() - began
                waiting.remove(observer)
    return found | {observer.name: patience_s for observer in waiting}
