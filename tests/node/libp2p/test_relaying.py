"""Links through a relay: how they come about, what they carry, what becomes of them when a direct way or no way is left."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from libp2p.abc import INetStream

from node.libp2p import relaying
from node.libp2p.circuits import HOP, Limit, messages, read_message, write_message
from node.libp2p.host import network_of
from node.libp2p.transport import WIRE
from node.transport_bench import Watched, running
from protocol.identity import node_text
from protocol.messages import AdvertPull, Goodbye, Ping
from swarm.effects import Dial
from swarm.events import CarriedChanged, DialFailed, DialledBack, NeighbourDown, NeighbourUp, Received, RelayChanged
from swarm.values import Contact
from tests.node.libp2p.strangers import LoopbackBench, connected, node_on_loopback, opened, stranger_host

RELAY, HIDDEN, ASKER = b"r" * 32, b"h" * 32, b"a" * 32


class RelayBench(LoopbackBench):
    """Nodes that carry for others."""

    def __init__(self, carried_max: int = 4) -> None:
        super().__init__()
        self._carried_max = carried_max

    def transport(self, seed: bytes, swarm: bytes, name: str, listen: str | None = None):  # type: ignore[no-untyped-def]
        return node_on_loopback(seed, swarm, name, listen, carried_max=self._carried_max)


@asynccontextmanager
async def carried(carried_max: int = 4) -> AsyncIterator[tuple[Watched, Watched, Watched, tuple[str, ...]]]:
    """A relay, a node that it carries for, another node, and the addresses that lead through the relay."""
    async with (
        running(RelayBench(carried_max), RELAY, name="relay") as relay,
        running(LoopbackBench(), HIDDEN, name="hidden") as hidden,
        running(LoopbackBench(), ASKER, name="asker") as asker,
    ):
        hidden.dial(relay)
        await hidden.next(NeighbourUp)
        await relay.next(NeighbourUp)
        hidden.transport.use_relays((relay.node,))
        changed = await hidden.next(RelayChanged)
        assert changed.node == relay.node
        yield relay, hidden, asker, changed.addresses


async def linked_through(asker: Watched, hidden: Watched, circuits: tuple[str, ...]) -> None:
    asker.transport.dial(Dial(Contact(hidden.node, circuits)))
    await asker.next(NeighbourUp)
    await hidden.next(NeighbourUp)


async def test_a_relay_carries_a_link_both_ways() -> None:
    """[RCH-3] And knows nothing of it: the two ends are no neighbours of the relay for it."""
    async with carried() as (relay, hidden, asker, circuits):
        assert (await relay.next(CarriedChanged)).nodes == (hidden.node,)
        assert circuits == (f"{relay.addresses[0]}/p2p-circuit/p2p/{node_text(hidden.node)}",)
        asker.transport.dial(Dial(Contact(hidden.node, circuits)))
        up = await asker.next(NeighbourUp)
        assert (up.node, up.dialled, up.relay, up.seen) == (hidden.node, circuits[0], relay.node, "")
        up = await hidden.next(NeighbourUp)
        assert (up.node, up.dialled, up.relay) == (asker.node, "", relay.node)
        for n in range(300):
            asker.transport.send(hidden.node, Ping(n))
            hidden.transport.send(asker.node, AdvertPull("x" * 40, n % 256))
        assert [(await hidden.next(Received)).message for _ in range(300)] == [Ping(n) for n in range(300)]
        assert [(await asker.next(Received)).message for _ in range(300)][-1] == AdvertPull("x" * 40, 299 % 256)
        assert not asker.transport._is_neighbour(relay.node)  # type: ignore[attr-defined]


async def test_a_direct_way_takes_the_place_of_a_carried_one() -> None:
    """[RCH-5]"""
    async with carried() as (_, hidden, asker, circuits):
        await linked_through(asker, hidden, circuits)
        hidden.transport.dial(Dial(Contact(asker.node, asker.addresses), upgrade=True))
        for one, other in ((hidden, asker), (asker, hidden)):
            await one.next(NeighbourDown)
            up = await one.next(NeighbourUp)
            assert (up.node, up.relay) == (other.node, None)
        asker.transport.send(hidden.node, Ping(7))
        assert (await hidden.next(Received)).message == Ping(7)
        assert not any(isinstance(received.message, Goodbye) for received in hidden.all(Received)), "nobody has a twin"


async def test_both_ends_may_find_a_direct_way_at_once() -> None:
    async with carried() as (_, hidden, asker, circuits):
        await linked_through(asker, hidden, circuits)
        hidden.transport.dial(Dial(Contact(asker.node, asker.addresses), upgrade=True))
        asker.transport.dial(Dial(Contact(hidden.node, hidden.addresses), upgrade=True))
        for one in (hidden, asker):
            while (await one.next(NeighbourUp)).relay is not None:
                pass
        for n in range(10):
            asker.transport.send(hidden.node, Ping(n))
            assert (await hidden.next(Received)).message == Ping(n)
            hidden.transport.send(asker.node, Ping(n))
            assert (await asker.next(Received)).message == Ping(n)


async def test_an_upgrade_that_is_not_greeted_leaves_the_link_alone() -> None:
    given_up = trio.Event()

    async def say_nothing(stream: INetStream) -> None:
        await stream.read(1)
        await stream.reset()
        given_up.set()

    async with carried() as (_, hidden, asker, circuits):
        await linked_through(asker, hidden, circuits)
        asker.transport._host.set_stream_handler(WIRE, say_nothing)  # type: ignore[attr-defined]
        hidden.transport.dial(Dial(Contact(asker.node, asker.addresses), upgrade=True))
        await given_up.wait()
        hidden.transport.send(asker.node, Ping(7))
        assert (await asker.next(Received)).message == Ping(7)
        assert not hidden.all(NeighbourDown)


async def test_an_upgrade_that_fails_leaves_the_link_alone() -> None:
    async with carried() as (_, hidden, asker, circuits):
        await linked_through(asker, hidden, circuits)
        for addresses in ((LoopbackBench().nowhere(),), circuits):
            asker.transport.dial(Dial(Contact(hidden.node, addresses), upgrade=True))
        asker.transport.dial(Dial(Contact(None, (LoopbackBench().nowhere(),))))
        await asker.next(DialFailed)  # By now the others have failed, too.
        asker.transport.send(hidden.node, Ping(7))
        assert (await hidden.next(Received)).message == Ping(7)
        assert not asker.all(NeighbourDown) and len(asker.all(DialFailed)) == 1


async def test_a_direct_address_is_tried_before_a_circuit() -> None:
    async with carried() as (_, hidden, asker, circuits):
        asker.transport.dial(Dial(Contact(hidden.node, (*circuits, *hidden.addresses))))
        assert (await asker.next(NeighbourUp)).relay is None


async def test_the_end_of_the_relay_ends_what_it_carried() -> None:
    async with carried() as (relay, hidden, asker, circuits):
        await linked_through(asker, hidden, circuits)
        relay.transport.disconnect(hidden.node, "test")
        for one in (hidden, asker):
            down = await one.next(NeighbourDown)
            while down.node == relay.node:
                down = await one.next(NeighbourDown)
        assert (await relay.next(CarriedChanged)).nodes == (hidden.node,)
        assert (await relay.next(CarriedChanged)).nodes == ()


async def test_nobody_is_led_to_who_has_not_asked_for_it() -> None:
    async with carried() as (relay, hidden, asker, circuits):
        other = f"{relay.addresses[0]}/p2p-circuit/p2p/{node_text(asker.node)}"
        async with running(LoopbackBench(), b"z" * 32) as stranger:
            stranger.transport.dial(Dial(Contact(asker.node, (other,))))
            failed = await stranger.next(DialFailed)
            assert "no reservation" in failed.cause
            hidden.transport.use_relays(())
            stranger.transport.dial(Dial(Contact(hidden.node, circuits)))
            assert "does not lead there" in (await stranger.next(DialFailed)).cause


async def test_a_full_relay_refuses() -> None:
    async with carried(1) as (relay, _, asker, _):
        asker.dial(relay)
        await asker.next(NeighbourUp)
        asker.transport.use_relays((relay.node,))
        assert (await asker.next(RelayChanged)).addresses == ()


async def test_strangers_get_no_reservation_and_garbage_ends_one_stream() -> None:
    """[RCH-4]"""
    pb = messages()
    async with carried() as (relay, hidden, asker, circuits), stranger_host(b"s" * 32) as host:
        connection = await connected(host, relay.addresses[0])
        stream = await opened(host, connection, [HOP])
        await write_message(stream, pb.HopMessage(type=pb.HopMessage.RESERVE))
        assert (await read_message(stream, pb.HopMessage)).status == pb.PERMISSION_DENIED
        for garbage in (b"\xff" * 64, b"\x05\xff\xff\xff\xff\xff", b"\x02\x08\x07", b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01"):
            stream = await opened(host, connection, [HOP])
            await stream.write(garbage)
            await stream.close()
        await linked_through(asker, hidden, circuits)


async def test_a_circuit_ends_at_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relaying, "LIMIT", Limit(3600, 200_000))
    async with carried() as (_, hidden, asker, circuits):
        await linked_through(asker, hidden, circuits)
        for n in range(20_000):
            asker.transport.send(hidden.node, Ping(n))
            if n % 100 == 0:
                await trio.lowlevel.checkpoint()
        await asker.next(NeighbourDown)
        await hidden.next(NeighbourDown)


async def test_circuits_from_one_peer_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    pb = messages()
    monkeypatch.setattr(relaying, "CIRCUITS_FROM_MAX", 2)
    async with carried() as (relay, hidden, _, _), stranger_host(b"s" * 32) as host:
        connection = await connected(host, relay.addresses[0])
        statuses = []
        target = pb.PeerId(id=network_peer(hidden))
        for _ in range(3):
            stream = await opened(host, connection, [HOP])
            await write_message(stream, pb.HopMessage(type=pb.HopMessage.CONNECT, peer=target))
            statuses.append((await read_message(stream, pb.HopMessage)).status)
        assert statuses == [pb.OK, pb.OK, pb.RESOURCE_LIMIT_EXCEEDED]


def network_peer(watched: Watched) -> bytes:
    return bytes(network_of(watched.transport._host).get_peer_id().to_bytes())  # type: ignore[attr-defined]


async def test_who_is_dialled_back_proves_itself() -> None:
    """[RCH-1]"""
    async with running(LoopbackBench(), HIDDEN) as hidden, running(LoopbackBench(), ASKER) as asker:
        place = hidden.addresses[0].partition("/p2p/")[0]
        nowhere = LoopbackBench().nowhere()
        asker.transport.dial_back(hidden.node, (nowhere, place, "garbage"))
        assert await asker.next(DialledBack) == DialledBack(hidden.node, (place,))
        asker.transport.dial_back(Watched(hidden.transport, asker.node).node, (place,))
        assert (await asker.next(DialledBack)).reached == ()
        assert not hidden.all(NeighbourUp)

