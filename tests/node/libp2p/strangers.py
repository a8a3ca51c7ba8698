"""Nodes on loopback for the tests, and strangers who speak libp2p to them without being nodes."""

import socket
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import count
from random import Random
from typing import Any

import trio
from libp2p.host.basic_host import BasicHost
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator

from node.libp2p import addresses
from node.libp2p.connections import close_all
from node.libp2p.dialling import Target, dial_one
from node.libp2p.host import build_host, network_of
from node.libp2p.pipes import StreamPipe
from node.libp2p.transport import WIRE, Libp2pTransport
from node.links import Pipe

_seeds = count(1)


def free_port() -> int:
    """A port that nothing listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def node_on_loopback(
    seed: bytes, swarm: bytes, name: str = "", listen: str | None = None, *, mdns: bool = False, carried_max: int = 0
) -> Libp2pTransport:
    """A node that is not running yet."""
    place = listen or "/ip4/127.0.0.1/tcp/0"
    dice = Random(next(_seeds))
    return Libp2pTransport(seed, swarm, name, "starlings/test", [place], [], mdns, time.time, dice, carried_max)


@asynccontextmanager
async def stranger_host(seed: bytes) -> AsyncIterator[BasicHost]:
    """A libp2p host that listens nowhere and offers nothing of ours."""
    host = build_host(seed, lambda: [])
    async with host.run([]):
        try:
            yield host
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(2):
                await close_all(network_of(host))
                await host.close()


async def connected(host: BasicHost, address: str) -> Any:
    """A connection from a stranger to a node."""
    place, peer = addresses.split(address)
    return await dial_one(network_of(host), Target(address, place), peer)


async def opened(host: BasicHost, connection: Any, protocols: Sequence[str]) -> Any:
    """A stream on that connection, given up properly if it comes to nothing."""
    stream = await connection.new_stream()
    try:
        await host.multiselect_client.select_one_of(protocols, MultiselectCommunicator(stream), 5)
    except BaseException:
        await stream.reset()
        raise
    return stream


class LoopbackBench:
    """What the transport contract needs, over real sockets."""

    def __init__(self, *, mdns: bool = False) -> None:
        self._mdns = mdns

    def transport(self, seed: bytes, swarm: bytes, name: str, listen: str | None = None) -> Libp2pTransport:
        return node_on_loopback(seed, swarm, name, listen, mdns=self._mdns)

    def nowhere(self) -> str:
        return f"/ip4/127.0.0.1/tcp/{free_port()}"

    def clock(self) -> float:
        return time.time()

    @asynccontextmanager
    async def stranger(self, seed: bytes, address: str) -> AsyncIterator[Pipe]:
        async with stranger_host(seed) as host, trio.open_nursery() as nursery:
            connection = await connected(host, address)
            yield StreamPipe(await opened(host, connection, [WIRE]), nursery)
            nursery.cancel_scope.cancel()
