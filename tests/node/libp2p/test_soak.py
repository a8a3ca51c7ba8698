"""Long runs: thousands of strangers one after the other, and an idle hour in a minute's sample. Memory and time stay flat."""

import time

import pytest
import trio

from node.libp2p.transport import WIRE
from tests.node.libp2p.solo import Solo, solo
from tests.node.libp2p.strangers import connected, opened, stranger_host

pytestmark = pytest.mark.slow

CONNECTIONS = 5_000
AT_ONCE = 4
WARM_UP = 500  # By then caches and arenas have their size.
GROWTH_BYTES_MAX = 8_000_000
IDLE_S = 60.0
IDLE_RSS_BYTES_MAX = 120_000_000
IDLE_CPU_MAX = 0.01


async def test_five_thousand_strangers_leave_nothing_behind() -> None:
    with solo(b"v" * 32, patience_s=3_600) as victim:
        await _visit(victim, range(WARM_UP))
        before = victim.rss_bytes()
        started = time.monotonic()
        await _visit(victim, range(WARM_UP, CONNECTIONS))
        print(f"{CONNECTIONS - WARM_UP} visits in {time.monotonic() - started:.0f} s")
        await trio.sleep(2)
        growth = victim.rss_bytes() - before
        print(f"memory: {before / 1e6:.1f} MB before, {growth / 1e6:+.1f} MB since")
        assert victim.process.poll() is None
        assert growth < GROWTH_BYTES_MAX
        await _visit(victim, range(CONNECTIONS, CONNECTIONS + 1))


async def _visit(victim: Solo, numbers: range) -> None:
    """Each number is a stranger of its own; every tenth opens a wire and says nothing on it."""
    limit = trio.CapacityLimiter(AT_ONCE)

    async def visit(number: int) -> None:
        async with limit, stranger_host(number.to_bytes(32, "big")) as host:
            connection = await connected(host, victim.addresses[0])
            if number % 10 == 0:
                await opened(host, connection, [WIRE])

    async with trio.open_nursery() as nursery:
        for number in numbers:
            nursery.start_soon(visit, number)


async def test_idle_node_is_small_and_quiet() -> None:
    with solo(b"v" * 32, patience_s=600) as victim, solo(b"w" * 32, victim.addresses[0], patience_s=600):
        victim.next("NeighbourUp")
        await trio.sleep(10)
        before = victim.cpu_s()
        await trio.sleep(IDLE_S)
        share = (victim.cpu_s() - before) / IDLE_S
        print(f"idle with one neighbour: {victim.rss_bytes() / 1e6:.1f} MB, {100 * share:.2f} % of a core")
        assert victim.rss_bytes() < IDLE_RSS_BYTES_MAX
        assert share < IDLE_CPU_MAX
