"""The memory transport passes the contract of every transport, under virtual time; so its users may trust it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count
from random import Random

import pytest
import trio
import trio.testing

from node.links import Pipe
from node.memory_transport import MemoryNetwork, MemoryTransport
from node.transport import Transport
from node.transport_bench import Bench
from node.transport_contract import CHECKS
from protocol.identity import Identity


class MemoryBench:
    """Nodes on one switchboard, whose clock is the virtual one of trio."""

    def __init__(self) -> None:
        self._network = MemoryNetwork()
        self._places = count(1)

    def transport(self, seed: bytes, swarm: bytes, name: str, listen: str | None = None) -> Transport:
        place = listen or self.nowhere()
        return MemoryTransport(self._network, seed, swarm, name, place, self.clock, Random(next(self._places)))

    def nowhere(self) -> str:
        return f"/memory/{next(self._places)}"

    def clock(self) -> float:
        return 1_700_000_000 + trio.current_time()

    @asynccontextmanager
    async def stranger(self, seed: bytes, address: str) -> AsyncIterator[Pipe]:
        pipe = self._network.call(address, Identity(seed).node, None)
        yield pipe
        pipe.abort()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
async def test_memory_transport_keeps_the_contract(
    check: Callable[[Bench], Awaitable[None]], autojump_clock: trio.testing.MockClock
) -> None:
    await check(MemoryBench())
