"""Two ends that meet, as SPEC.md asks: who greets first, and which of several links stays."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import pytest
import trio
import trio.testing

from node.links import Pipe
from node.memory_transport import MemoryNetwork, MemoryTransport
from protocol.framing import FrameReader
from protocol.identity import Identity, NodeId
from protocol.link import Link
from protocol.messages import Goodbye, Hello, Ping
from swarm.effects import Dial
from swarm.events import NeighbourDown, NeighbourUp, Received
from swarm.values import Contact
from tests.strategies import EVE, NOW_S, SWARM


class Party:
    """A node on a switchboard of memory, and what its transport has posted."""

    def __init__(self, network: MemoryNetwork, identity: Identity, seed: bytes) -> None:
        self.identity, self.address = identity, f"/memory/{identity.node.hex()[:4]}"
        self.transport = MemoryTransport(network, seed, SWARM, "", self.address, clock, Random(7))
        self.events: list[object] = []

    def dial(self, other: "Party") -> None:
        self.transport.dial(Dial(Contact(other.identity.node, (other.address,))))

    def ups(self) -> list[NeighbourUp]:
        return [event for event in self.events if isinstance(event, NeighbourUp)]


def clock() -> float:
    return NOW_S + trio.current_time()


@asynccontextmanager
async def parties(*seeds: int) -> AsyncIterator[tuple[MemoryNetwork, list[Party]]]:
    network = MemoryNetwork()
    async with trio.open_nursery() as nursery:
        there = [Party(network, Identity(bytes([seed]) * 32), bytes([seed]) * 32) for seed in seeds]
        for party in there:
            await nursery.start(party.transport.run, party.events.append)
        yield network, there
        nursery.cancel_scope.cancel()


async def read_for(pipe: Pipe, seconds: float) -> bytes:
    """What comes within a (virtual) time; None of the tests below waits for real."""
    data = b""
    with trio.move_on_after(seconds):
        while chunk := await pipe.read():
            data += chunk
    return data


def greeting(stranger: Identity, peer: NodeId, seed: int = 0) -> tuple[Link, bytes]:
    link = Link(stranger, peer, SWARM, Random(seed))
    return link, link.hello("stranger", "test", (), clock())


async def test_who_was_dialled_waits_for_the_diallers_hello(autojump_clock: trio.testing.MockClock) -> None:
    """[LNK-9] Then it answers with its own."""
    async with parties(1) as (network, (ada,)):
        pipe = network.call(ada.address, EVE.node, None)
        assert await read_for(pipe, 1.0) == b""
        link, hello = greeting(EVE, ada.identity.node)
        await pipe.write(hello)
        (answer,) = link.receive(await pipe.read(), clock())
        assert isinstance(answer, Hello)


async def test_a_refused_frame_closes_the_link(autojump_clock: trio.testing.MockClock) -> None:
    """[LNK-7] What came before it counts, what comes after it does not."""
    async with parties(1) as (network, (ada,)):
        pipe = network.call(ada.address, EVE.node, None)
        link, hello = greeting(EVE, ada.identity.node)
        await pipe.write(hello)
        link.receive(await pipe.read(), clock())
        await pipe.write(link.send(Ping(1), clock()))
        await trio.testing.wait_all_tasks_blocked()
        await pipe.write(b"\x00\x00\x00\x00\x07" + link.send(Ping(2), clock()))
        await read_for(pipe, 5.0)
        received = [event.message for event in ada.events if isinstance(event, Received)]
        assert received == [Ping(1)]
        assert isinstance(ada.events[-1], NeighbourDown)


async def test_no_hello_goes_out_on_a_second_stream(autojump_clock: trio.testing.MockClock) -> None:
    """[LNK-10] Ada dials Bob, whose link with her is up; the switchboard sees the call, and no byte on it."""
    async with parties(1, 2) as (network, (ada, bob)):
        ada.dial(bob)
        await trio.testing.wait_all_tasks_blocked()
        heard: list[bytes] = []

        async def listen(pipe: Pipe) -> None:
            heard.append(await read_for(pipe, 3.0))

        async with trio.open_nursery() as nursery:
            network.listen("/memory/second", bob.identity.node, lambda pipe: nursery.start_soon(listen, pipe))
            ada.transport.dial(Dial(Contact(None, ("/memory/second",))))
            await trio.testing.wait_all_tasks_blocked()
        assert heard == [b""]
        assert len(ada.ups()) == len(bob.ups()) == 1


@pytest.mark.parametrize(("one", "two"), [(1, 2), (2, 1), (3, 9), (9, 3)])
async def test_of_two_crossing_dials_the_smaller_nodes_stays(
    one: int, two: int, autojump_clock: trio.testing.MockClock
) -> None:
    """[LNK-11] [LNK-10] Both ends keep the same one."""
    async with parties(one, two) as (_, (first, second)):
        first.dial(second)
        second.dial(first)
        await trio.sleep(10)
        smaller, larger = sorted((first, second), key=lambda party: party.identity.node)
        assert [bool(up.dialled) for up in smaller.ups()] == [True]
        assert [bool(up.dialled) for up in larger.ups()] == [False]
        assert not [event for party in (first, second) for event in party.events if isinstance(event, NeighbourDown)]
        smaller.transport.send(larger.identity.node, Ping(1))
        await trio.testing.wait_all_tasks_blocked()
        assert larger.events[-1] == Received(smaller.identity.node, Ping(1))


async def test_whoever_is_replaced_and_still_there_is_told(autojump_clock: trio.testing.MockClock) -> None:
    """[LNK-12] Another node has its key."""
    async with parties(1) as (network, (ada,)):
        first = network.call(ada.address, EVE.node, None)
        link, hello = greeting(EVE, ada.identity.node, 0)
        await first.write(hello)
        link.receive(await first.read(), clock())
        second = network.call(ada.address, EVE.node, None)
        _, hello = greeting(EVE, ada.identity.node, 1)
        await second.write(hello)
        data = await read_for(first, 4.0)
        assert [message for message in link.receive(data, clock()) if isinstance(message, Goodbye)] == [
            Goodbye(False, "this identity has opened another link", True)
        ]


async def test_a_new_hello_of_a_neighbour_replaces_its_link(autojump_clock: trio.testing.MockClock) -> None:
    """[LNK-11] Whoever says Hello has no link with us, so the old one is dead."""
    async with parties(1) as (network, (ada,)):
        for seed in range(2):
            pipe = network.call(ada.address, EVE.node, None)
            link, hello = greeting(EVE, ada.identity.node, seed)
            await pipe.write(hello)
            data = await read_for(pipe, 4.0)
            assert [type(message) for message in link.receive(data, clock())] == [Hello]
            assert len(FrameReader().feed(data)) == 1
        kinds = [type(event) for event in ada.events]
        assert kinds == [NeighbourUp, NeighbourDown, NeighbourUp]
