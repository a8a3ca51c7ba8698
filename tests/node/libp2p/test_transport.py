"""The libp2p transport passes the contract of every transport, over real sockets on loopback."""

from collections.abc import Awaitable, Callable

import pytest

from node.transport_bench import Bench
from node.transport_contract import CHECKS
from tests.node.libp2p.strangers import LoopbackBench


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
async def test_libp2p_transport_keeps_the_contract(check: Callable[[Bench], Awaitable[None]]) -> None:
    await check(LoopbackBench())
