"""Keeps the host's connections few: links stay, the unused are closed, and strangers cannot crowd neighbours out."""

from collections import Counter
from collections.abc import Callable
from ipaddress import IPv6Network
from typing import Any

import trio
from libp2p.abc import INotifee
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStoreError

from node.libp2p.muxer_mends import abort

SWEEP_S = 10.0
IDLE_S = 30.0  # A connection without any stream: the DHT asks several questions in a row, then none for minutes.
STRANGERS_MAX = 48  # Connections that no neighbour needs. With two each for 32 neighbours, sixteen are left for our dials.
NEEDED_MAX = 2  # By one neighbour: two nodes that dial each other at once.
PER_PEER_MAX = 4  # A third and fourth while dead ones linger; those count as strangers'.
HANDSHAKES_MAX = 64  # Of inbound connections that have not proved yet who they are, for HANDSHAKE_S at most.


def alive(swarm: Swarm, peer: ID | None = None) -> list[Any]:
    """The open connections, all or those with one peer. The library lists closed ones for some time too."""
    return [connection for connection in swarm.get_connections(peer) if not connection.is_closed]


async def wait_closed(swarm: Swarm, muxed: Any) -> None:
    """Wait until the connection over a muxed one is closed, if it is there at all."""
    for connection in alive(swarm, muxed.peer_id):
        if connection.muxed_conn is muxed:
            await connection.event_closed.wait()


def household(host: str) -> str:
    """What an IP address may be counted by: whoever has one of IPv6 has as many as he likes that share its first half."""
    return str(IPv6Network((host.partition("%")[0], 64), strict=False)) if ":" in host else host


class Connections(INotifee):
    """Registered with the swarm as its notifee; `run` sweeps."""

    def __init__(self, swarm: Swarm, is_neighbour: Callable[[ID], bool]) -> None:
        self._swarm, self._is_neighbour = swarm, is_neighbour
        self._idle_since: dict[Any, float] = {}
        self._nursery: trio.Nursery | None = None
        swarm.register_notifee(self)

    async def run(self) -> None:
        """Close what has been idle for IDLE_S, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            while True:
                self._sweep(trio.current_time())
                await trio.sleep(SWEEP_S)

    def _sweep(self, now: float) -> None:
        idle = {each: self._idle_since.get(each, now) for each in alive(self._swarm) if not each.get_streams()}
        self._idle_since = idle
        for connection, since in idle.items():
            if now - since >= IDLE_S:
                self._close(connection)

    def _close(self, connection: Any) -> None:
        if self._nursery is not None:
            self._nursery.start_soon(_close_quietly, connection)

    async def connected(self, network: Any, connection: Any) -> None:
        peer = connection.muxed_conn.peer_id
        if len(alive(self._swarm, peer)) > PER_PEER_MAX:
            self._close(connection)
            return
        strangers = self._strangers()
        for crowding in strangers[: max(0, len(strangers) - STRANGERS_MAX)]:
            self._close(crowding)

    def _strangers(self) -> list[Any]:
        """The connections that no neighbour needs, oldest peers first. A neighbour needs its busiest, NEEDED_MAX of them."""
        connections = alive(self._swarm)
        used: Counter[ID] = Counter()
        needed = set()
        for each in sorted(connections, key=lambda each: len(each.get_streams()), reverse=True):
            peer = each.muxed_conn.peer_id
            used[peer] += 1
            if used[peer] <= NEEDED_MAX and self._is_neighbour(peer):
                needed.add(each)
        return [each for each in connections if each not in needed]

    async def disconnected(self, network: Any, connection: Any) -> None:
        """Forget what the book says of a stranger. Neighbours' addresses stay for the DHT, within the book's own
        bound."""
        peer = connection.muxed_conn.peer_id
        self._idle_since.pop(connection, None)
        if not alive(self._swarm, peer) and not self._book_has_addresses(peer):
            try:
                self._swarm.peerstore.clear_peerdata(peer)
            except PeerStoreError:
                pass  # It was not in the book.

    def _book_has_addresses(self, peer: ID) -> bool:
        try:
            return bool(self._swarm.peerstore.addrs(peer))
        except PeerStoreError:
            return False

    async def opened_stream(self, network: Any, stream: Any) -> None: ...

    async def closed_stream(self, network: Any, stream: Any) -> None: ...

    async def listen(self, network: Any, address: Any) -> None: ...

    async def listen_close(self, network: Any, address: Any) -> None: ...


async def close_all(swarm: Swarm) -> None:
    """Close every connection at once, and cut those that were being closed by somebody who may not come to it.

    The library's own way takes a fifth of a second for each, one after the other, and forgets the latter.
    """
    connections = swarm.get_connections()
    try:
        async with trio.open_nursery() as nursery:
            for connection in connections:
                nursery.start_soon(_close_quietly, connection)
    finally:
        for connection in connections:
            abort(connection.muxed_conn)


async def _close_quietly(connection: Any) -> None:
    """The keepalive ends a close that a frozen peer holds up."""
    try:
        await connection.close()
    except Exception:  # It is going away; how it failed to say goodbye matters to nobody.
        pass
