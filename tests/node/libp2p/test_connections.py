"""Connections that nobody uses are closed, and strangers cannot crowd neighbours out."""

import pytest
import trio
import trio.testing

from node.libp2p import connections
from node.libp2p.addresses import host_and_port, split
from node.libp2p.connections import alive
from node.libp2p.host import CONNECTIONS_MAX, network_of
from node.libp2p.turns import Turns
from node.transport_bench import ALICE, BOB, Watched, running
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


async def test_a_neighbour_with_many_connections_is_a_stranger_with_most_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "STRANGERS_MAX", 1)
    bench = LoopbackBench()
    async with running(bench, ALICE) as alice, running(bench, BOB) as bob, stranger_host(b"s" * 32) as host:
        alice.dial(bob)
        await bob.next(NeighbourUp)
        more = alice.transport._host  # type: ignore[attr-defined]
        for _ in range(connections.PER_PEER_MAX - 1):
            await connected(more, bob.addresses[0])
        await connected(host, bob.addresses[0])
        await _soon(bob, connections.NEEDED_MAX + 1)
        assert not bob.all(NeighbourDown)


async def test_connections_that_say_nothing_keep_nobody_out() -> None:
    async with running(LoopbackBench(), BOB) as bob, stranger_host(b"s" * 32) as host, trio.open_nursery() as nursery:
        place, port = host_and_port(split(bob.addresses[0])[0])

        async def hold(stream: trio.SocketStream) -> None:
            async with stream:
                await trio.sleep_forever()

        for _ in range(CONNECTIONS_MAX + 5):
            nursery.start_soon(hold, await trio.open_tcp_stream(place, port))
        await connected(host, bob.addresses[0])
        await _soon(bob, 1)
        nursery.cancel_scope.cancel()


async def test_who_has_most_under_way_gives_way() -> None:
    turns, ended = Turns(4), []

    async def take(name: str, host: str) -> None:
        with turns.taken(connections.household(host)):
            await trio.sleep_forever()
        ended.append(name)

    hosts = ("192.0.2.2", "2001:db8::1", "2001:db8::2", "fe80::1%eth0", "2001:db8::3", "")
    async with trio.open_nursery() as nursery:
        for name, host in zip("abcdef", hosts, strict=True):
            nursery.start_soon(take, name, host)
            await trio.testing.wait_all_tasks_blocked()
        assert ended == ["b", "c"]
        nursery.cancel_scope.cancel()
