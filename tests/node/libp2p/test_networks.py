"""A machine that is carried from one network to another: what was found out in the old one begins anew; leases are given back."""

import sys
from types import ModuleType
from typing import Any

import pytest
import trio
import trio.testing
from multiaddr import Multiaddr

from node.libp2p import router, transport
from node.libp2p.router import RouterPort
from node.libp2p.transport import Libp2pTransport
from node.transport_bench import ALICE, running
from swarm.events import AddressesChanged
from tests.node.libp2p.strangers import LoopbackBench

NETWORKS = [[f"/ip4/{host}/tcp/4976"] for host in ("127.0.0.1", "192.168.1.7", "10.0.0.7")]


class Travelling(LoopbackBench):
    """Makes nodes that ask routers, too."""

    def transport(self, seed: bytes, swarm: bytes, name: str, listen: str | None = None) -> Libp2pTransport:
        made = super().transport(seed, swarm, name, listen)
        made._upnp = True
        return made


class Noted:
    """Stands in for what runs in one network; notes where it was begun and that it ended."""

    def __init__(self, notes: list[str], where: str) -> None:
        self.state = "searching"
        self._notes, self._where = notes, where

    async def run(self) -> None:
        self._notes.append(self._where)
        try:
            await trio.sleep_forever()
        finally:
            self._notes.append("end")


async def test_discovery_and_the_router_follow_into_other_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    at, ports, announced = 0, list[str](), list[str]()
    monkeypatch.setattr(transport, "NETWORKS_S", 0.02)
    monkeypatch.setattr(transport.addresses, "reachable", lambda _: [Multiaddr(text) for text in NETWORKS[at]])
    monkeypatch.setattr(transport, "RouterPort", lambda places, _: Noted(ports, places[0][0]))
    monkeypatch.setattr("node.libp2p.mdns.Mdns", lambda _, __, addresses, ___: Noted(announced, addresses[0].split("/")[2]))
    async with running(Travelling(mdns=True), ALICE) as alice:
        for at in (1, 2):
            [address] = (await alice.next(AddressesChanged)).addresses
            assert address.startswith(NETWORKS[at][0])
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert ports == announced == ["127.0.0.1", "end", "192.168.1.7", "end", "10.0.0.7"]


async def test_a_lease_that_was_not_renewed_is_given_back_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router, "RENEW_S", 0.01)
    asked, given_back = 0, list[int]()

    class Router:
        lanaddr = "192.168.1.7"

        def discover(self) -> int:
            nonlocal asked
            asked += 1
            return asked == 1

        def selectigd(self) -> None: ...

        def addportmapping(self, *_: Any) -> None: ...

        def deleteportmapping(self, port: int, _: str) -> None:
            given_back.append(port)

    library = ModuleType("miniupnpc")
    library.UPnP = Router  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "miniupnpc", library)
    port = RouterPort([("192.168.1.7", 4976)], lambda: None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(port.run)
        while asked < 3:
            await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert given_back == [4976]
