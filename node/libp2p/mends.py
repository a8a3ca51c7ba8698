"""Mends for faults of py-libp2p 0.8.1 that this project meets, each with its reason; applied before any host is made.

They replace methods at run time, so they fit one version only and refuse any other. Each has a test in
`tests/node/libp2p/test_mends.py` that fails without it. The muxer's are in `muxer_mends`, the DHT's in `dht_mends`.
"""

import logging
from collections.abc import Awaitable, Callable, Collection
from importlib.metadata import version
from typing import Any

import libp2p.transport.tcp.tcp as tcp
import trio
from libp2p.network.auto_connector import AutoConnector
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.connection.swarm_connection import SwarmConn
from libp2p.network.exceptions import SwarmDialAllFailedError, SwarmException
from libp2p.network.stream.net_stream import NetStream
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStoreError

from node.libp2p import dht_mends, muxer_mends
from node.libp2p.dialling import DialError, Target, dial_any

LIBP2P_VERSION = "0.8.1"
INBOUND_STREAMS_MAX = 64  # At once on one connection: a link, identify, ping, and lookups with room to spare.
CLOSE_S = 3.0  # For a stream's last frame while its task is being cancelled.

log = logging.getLogger(__name__)

_applied = False


def apply(without: Collection[str] = ()) -> None:
    """Apply every mend once, except those whose names a test leaves out. Raises RuntimeError for another libp2p."""
    global _applied
    found = version("libp2p")
    if found != LIBP2P_VERSION:
        raise RuntimeError(
            f"libp2p {found} is installed, but this program mends {LIBP2P_VERSION} and no other. "
            f"Install it with: pip install libp2p=={LIBP2P_VERSION}"
        )
    if _applied:
        return
    _applied = True
    for mend in MENDS:
        if mend.__name__ not in without:
            mend()


def every_address_is_dialled() -> None:
    """Replace `Swarm.dial_peer`, which waits 250 ms for a failure after each success, dials one address per kind of
    transport, and then refuses the peer for 60 s. Seen: every connect took 251 ms; [dead, good] failed; a restarted
    peer stayed unreachable for a minute."""

    async def dial_peer(self: Swarm, peer_id: ID) -> list[Any]:
        alive = [connection for connection in self.get_connections(peer_id) if not connection.is_closed]
        if alive:
            return alive
        try:
            addresses = list(self.peerstore.addrs(peer_id))
        except PeerStoreError as error:
            raise SwarmException(f"no address of {peer_id} is known") from error
        try:
            near = getattr(self.peerstore, "near", None)  # Of `host.Book`, into which strangers write.
            connection, _ = await dial_any(self, [Target(str(each), each, near=near) for each in addresses], peer_id)
        except DialError as error:
            raise SwarmDialAllFailedError(str(error), peer_id=peer_id, num_addrs_tried=len(addresses)) from error
        return [connection]

    Swarm.dial_peer = dial_peer


def inbound_slots_come_back() -> None:
    """Replace the handler of inbound connections, which holds its slot until the whole host stops. Seen: deaf after
    exactly `max_connections` inbound connections in a lifetime, and one task leaked for each."""

    async def handle(self: Swarm, stream: Any, listen_address: Any, failure_event: Any) -> None:
        try:
            muxed = await self.upgrade_inbound_raw_conn(RawConnection(stream, False), listen_address)
            for connection in self.get_connections(muxed.peer_id):
                if connection.muxed_conn is muxed:
                    await connection.event_closed.wait()
        except Exception as error:  # Whatever a stranger sends before the handshake ends here.
            log.debug("inbound connection failed: %r", error)
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(1):
                await stream.close()

    Swarm._do_handle_inbound_connection = handle


def handler_errors_end_one_stream() -> None:
    """Guard stream handlers: any exception in one ends `host.run()` and with it the process. Seen: three ways for a
    stranger to kill a node after a mere handshake, among them multistream text that is not UTF-8 and protobuf
    garbage."""
    handle = SwarmConn._handle_muxed_stream

    async def guarded(self: SwarmConn, stream: Any) -> None:
        try:
            await handle(self, stream)
        except Exception as error:
            log.debug("stream of %s failed: %r", self.muxed_conn.peer_id, error)
            with trio.move_on_after(CLOSE_S):
                await stream.reset()

    SwarmConn._handle_muxed_stream = guarded


def inbound_streams_are_bounded() -> None:
    """Bound the streams that a peer may hold open: stock accepts any number, with buffers and a task for each. Seen:
    5,000 silent streams on one connection cost 47 MB, and every few seconds as many may come."""
    handle = SwarmConn._handle_muxed_stream
    counts: dict[int, int] = {}

    async def counted(self: SwarmConn, stream: Any) -> None:
        key = id(self)
        if counts.get(key, 0) >= INBOUND_STREAMS_MAX:
            with trio.move_on_after(CLOSE_S):
                await stream.reset()
            return
        counts[key] = counts.get(key, 0) + 1
        try:
            await handle(self, stream)
        finally:
            counts[key] -= 1
            if not counts[key]:
                del counts[key]

    SwarmConn._handle_muxed_stream = counted


def streams_close_when_cancelled() -> None:
    """Shield `NetStream.close` and `reset`: in a cancelled task they do nothing, so the muxed stream leaks. The DHT
    cancels its own lookups. Seen: 220 leaked streams in four minutes on one node."""

    def shielded(close: Callable[[NetStream], Awaitable[None]]) -> Callable[[NetStream], Awaitable[None]]:
        async def closed(self: NetStream) -> None:
            with trio.CancelScope(shield=True), trio.move_on_after(CLOSE_S):
                await close(self)

        return closed

    NetStream.close = shielded(NetStream.close)
    NetStream.reset = shielded(NetStream.reset)


def ports_are_exclusive() -> None:
    """Listen without SO_REUSEPORT, which lets a second node of the same user take the same port unnoticed; the kernel
    then deals the connections out between the two. Seen: two hosts listened on one port."""

    def set_flags(sock: Any) -> None:
        sock.setsockopt(tcp.stdlib_socket.SOL_SOCKET, tcp.stdlib_socket.SO_REUSEADDR, 1)
        if sock.family == tcp.stdlib_socket.AF_INET6:
            # Or `::` would take the port of `0.0.0.0` too.
            sock.setsockopt(tcp.stdlib_socket.IPPROTO_IPV6, tcp.stdlib_socket.IPV6_V6ONLY, 1)

    tcp._set_reuse_flags = set_flags


def nobody_is_dialled_unasked() -> None:
    """Silence the auto-connector: with every watermark at zero it still dials each known peer until 64 connections are
    open."""

    async def do_nothing(self: AutoConnector, *_: object) -> None: ...

    def note_nothing(self: AutoConnector, peer_id: ID) -> None: ...

    AutoConnector.maybe_connect = AutoConnector.run_background_task = do_nothing
    AutoConnector.record_disconnect = note_nothing


MENDS: tuple[Callable[[], None], ...] = (
    every_address_is_dialled,
    inbound_slots_come_back,
    handler_errors_end_one_stream,
    inbound_streams_are_bounded,
    streams_close_when_cancelled,
    ports_are_exclusive,
    nobody_is_dialled_unasked,
    *muxer_mends.MENDS,
    *dht_mends.MENDS,
)
