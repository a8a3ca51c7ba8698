"""What the scenarios of py-libp2p's faults are made of: their registry, and two hosts with one connection."""

import node.libp2p  # noqa: F401  It imports libp2p as the node does, so it comes first.

# isort: split

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio.testing
from libp2p.host.basic_host import BasicHost
from libp2p.host.ping import ID as PING
from multiaddr import Multiaddr

from node.libp2p.connections import alive, close_all
from node.libp2p.dialling import Target, dial_one
from node.libp2p.host import HUSHED, build_host, network_of
from tests.node.libp2p.strangers import opened

SOON_S = 4.0  # A mended library needs milliseconds.
ECHO = "/test/echo/1"
FAST = ("slow_readers_are_waited_for",)  # The library waits for seconds there.

Scenario = Callable[[], Awaitable[None]]
SCENARIOS: dict[str, Scenario] = {}
FAULTS: dict[str, str] = {}


def scenario(fault: str) -> Callable[[Scenario], Scenario]:
    """Enter a scenario under its own name, which is its mend's. `fault` is part of what is said when it shows."""

    def enter(run: Scenario) -> Scenario:
        SCENARIOS[run.__name__] = run
        FAULTS[run.__name__] = fault
        return run

    return enter


def run(name: str) -> None:
    """Run one scenario, on a clock ten times as fast if it is one of FAST."""
    clock = trio.testing.MockClock(rate=10.0 if name in FAST else 1.0)
    with HUSHED:
        trio.run(SCENARIOS[name], clock=clock)


class Pair:
    """Alice has dialled Bob. Both ends of their one connection are at hand."""

    def __init__(self, alice: BasicHost, bob: BasicHost, outgoing: Any, incoming: Any) -> None:
        self.alice, self.bob, self.outgoing, self.incoming = alice, bob, outgoing, incoming

    async def ping(self) -> None:
        """Bob answers over this very connection."""
        stream = await opened(self.alice, self.outgoing, [PING])
        await stream.write(bytes(32))
        assert await stream.read(32) == bytes(32)
        await stream.reset()


@asynccontextmanager
async def listening(seed: bytes = b"b" * 32) -> AsyncIterator[BasicHost]:
    addresses: list[Multiaddr] = []
    host = build_host(seed, lambda: addresses)
    async with host.run([Multiaddr("/ip4/127.0.0.1/tcp/0")]):
        addresses += host.get_transport_addrs()
        try:
            yield host
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(2):
                await close_all(network_of(host))
                await host.close()


@asynccontextmanager
async def pair() -> AsyncIterator[Pair]:
    async with listening(b"a" * 32) as alice, listening(b"b" * 32) as bob:
        outgoing = await dialled(alice, bob)
        while not alive(network_of(bob), alice.get_id()):
            await trio.sleep(0.01)
        yield Pair(alice, bob, outgoing, alive(network_of(bob), alice.get_id())[0])


async def dialled(alice: BasicHost, bob: BasicHost) -> Any:
    address = bob.get_transport_addrs()[0]
    return await dial_one(network_of(alice), Target(str(address), address), bob.get_id())


async def soon(done: Callable[[], bool], what: str) -> None:
    """Raises AssertionError if it does not come true soon."""
    with trio.move_on_after(SOON_S):
        while not done():
            await trio.sleep(0.01)
    assert done(), what
