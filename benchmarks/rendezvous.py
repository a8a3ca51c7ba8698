"""Of 60 real nodes that joined through one bootstrap peer, one has a rare skill: who finds it, also after 30 % were killed.

A node that joins hears of everybody by gossip, as long as the swarm is as small as this. What the DHT does alone is measured with
seekers that have a transport and no member: they hear no gossip, and find the worker by its records or not at all.
"""

import os
import time
from pathlib import Path
from random import Random
from time import perf_counter

import trio

from benchmarks.figures import Figure, at_most, percentile
from node.libp2p.transport import Libp2pTransport
from node.transport import TransportEvent
from protocol.genesis import swarm_id
from protocol.identity import NodeId, node_from_text
from swarm.effects import Dial
from swarm.events import ContactsFound, NeighbourUp
from swarm.values import Contact, Subject
from tests.processes import RealNode, Starter, real_nodes

NODES = 60
ASKERS = 5
SEEKERS = 10
KILLED = round(0.3 * NODES)
BATCH = 6  # Nodes that start at the same time; more would only wait for each other.
SKILL, RARE = "x-rare", "echo:skills=x-rare,model=hermit"
SETTLE_S = 45.0  # The records of all regions are written by then, and the first idle connections closed.
SEARCH_S = 3.0  # A task waits so long for somebody able.
GIVE_UP_S = 10.0


def measure(folder: Path) -> list[Figure]:
    dice = Random(60)
    with real_nodes(folder) as start:
        bootstrap = start.start("bootstrap")
        hermit_at = dice.randrange(NODES // 2)
        others, hermit = _crowd(start, bootstrap, hermit_at)
        time.sleep(SETTLE_S)
        figures = _round(start, bootstrap, hermit, "before")
        for victim in dice.sample(others, KILLED):
            victim.kill()
        figures += _round(start, bootstrap, hermit, f"after {KILLED} were killed")
        refused = sum(bootstrap.control("GET", "status")["refused"].values())
    return [*figures, Figure("what the bootstrap peer refused of others", str(refused))]


def _crowd(start: Starter, bootstrap: RealNode, hermit_at: int) -> tuple[list[RealNode], RealNode]:
    """Everybody but the askers of the first round; the one with the skill is among them."""
    nodes: list[RealNode] = []
    for first in range(0, NODES - 1 - ASKERS, BATCH):
        numbers = range(first, min(first + BATCH, NODES - 1 - ASKERS))
        begun = [
            start.begin(f"node-{number}", models=(RARE,) if number == hermit_at else (), join=bootstrap.addresses[:1])
            for number in numbers
        ]
        nodes += [node.wait_ready() for node in begun]
    return [node for number, node in enumerate(nodes) if number != hermit_at], nodes[hermit_at]


def _round(start: Starter, bootstrap: RealNode, hermit: RealNode, when: str) -> list[Figure]:
    asked = []
    for number in range(ASKERS):
        asker = start.start(f"asker-{when[:2]}-{number}", join=bootstrap.addresses[:1])
        asked.append(_first_text_s(asker))
    sought = trio.run(_seek_all, bootstrap.addresses[0], node_from_text(hermit.addresses[0].rsplit("/", 1)[1]))
    return [*_figures(f"{when}: asked, just joined", asked), *_figures(f"{when}: sought by the DHT alone", sought)]


def _figures(name: str, waits: list[float | None]) -> list[Figure]:
    found = [wait for wait in waits if wait is not None]
    share = Figure(f"{name}: found", f"{len(found)} of {len(waits)}", "all", len(found) == len(waits))
    if not found:
        return [share]
    return [
        share,
        Figure(f"{name}: p50", f"{percentile(found, 0.5):.2f} s"),
        at_most(f"{name}: slowest", max(found), SEARCH_S, "s", 2),
    ]


def _first_text_s(asker: RealNode) -> float | None:
    began = perf_counter()
    for event, data in asker.stream("Is anybody there?", skill=SKILL):
        if event == "text":
            return perf_counter() - began
        if event == "end":
            print(f"  {asker.name}: {data['reason']}")
    return None


async def _seek_all(bootstrap: str, hermit: NodeId) -> list[float | None]:
    return [await _seek(bootstrap, hermit) for _ in range(SEEKERS)]


async def _seek(bootstrap: str, hermit: NodeId) -> float | None:
    """From the link with the bootstrap peer to the link with the worker."""
    seed, listen = os.urandom(32), ["/ip4/127.0.0.1/tcp/0"]
    transport = Libp2pTransport(seed, swarm_id("public"), "seeker", "starlings/bench", listen, [], False, time.time, Random())
    joined, met = trio.Event(), trio.Event()

    def post(event: TransportEvent) -> None:
        match event:
            case NeighbourUp(node) if node == hermit:
                met.set()
            case NeighbourUp():
                joined.set()
            case ContactsFound(_, _, contacts):
                for contact in contacts:
                    if contact.node == hermit:
                        transport.dial(Dial(contact))

    wait_s = None
    async with trio.open_nursery() as nursery:
        await nursery.start(transport.run, post)
        transport.dial(Dial(Contact(None, (bootstrap,))))
        with trio.move_on_after(GIVE_UP_S):
            await joined.wait()
            began = perf_counter()
            transport.find_providers(Subject(SKILL))
            await met.wait()
            wait_s = perf_counter() - began
        nursery.cancel_scope.cancel()
    return wait_s
