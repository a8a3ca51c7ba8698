"""Connections that nobody uses are closed, and strangers cannot crowd neighbours out."""

import pytest
import trio

from node.libp2p import connections
from node.libp2p.connections import alive
from node.libp2p.host import network_of
from node.transport_contract import ALICE, BOB, Watched, running
from swarm.events import NeighbourDown, NeighbourUp
from tests.node.libp2p.strangers import LoopbackBench, connected, stranger_host


def _connections(node: Watched) -> int:
    return len(alive(network_of(node.transport._host)))  # type: ignore[attr-defined]


async def _soon(node: Watched, count: int) -> None:
    with trio.fail_after(20):
        while _connections(node) != count:
            await trio.sleep(0.02)


async def test_unused_connections_are_closed_and_links_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "SWEEP_S", 0.05)
    monkeypatch.setattr(connections, "IDLE_S", 0.3)
    bench = LoopbackBench()
    async with running(bench, ALICE) as alice, running(bench, BOB) as bob, stranger_host(b"s" * 32) as host:
        alice.dial(bob)
        await bob.next(NeighbourUp)
        await connected(host, bob.addresses[0])
        await _soon(bob, 2)
        await _soon(bob, 1)
        await trio.sleep(0.5)
        assert not bob.all(NeighbourDown)


async def test_strangers_do_not_crowd_neighbours_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "STRANGERS_MAX", 3)
    bench = LoopbackBench()
    async with running(bench, ALICE) as alice, running(bench, BOB) as bob, trio.open_nursery() as nursery:
        alice.dial(bob)
        await bob.next(NeighbourUp)

        async def stay(number: int, *, task_status: trio.TaskStatus[None]) -> None:
            async with stranger_host(bytes((number,)) * 32) as host:
                await connected(host, bob.addresses[0])
                task_status.started()
                await trio.sleep_forever()

        for number in range(8):
            await nursery.start(stay, number)
        await _soon(bob, 4)
        assert not bob.all(NeighbourDown)
        nursery.cancel_scope.cancel()


async def test_one_peer_cannot_hold_many_connections() -> None:
    async with running(LoopbackBench(), BOB) as bob, stranger_host(b"s" * 32) as host:
        for _ in range(connections.PER_PEER_MAX + 4):
            await connected(host, bob.addresses[0])
        await _soon(bob, connections.PER_PEER_MAX)
