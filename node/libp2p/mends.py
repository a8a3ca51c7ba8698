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
from libp2p.stream_muxer.yamux.yamux import YamuxStream
from multiaddr import Multiaddr

from node.libp2p import dht_mends, muxer_mends
from node.libp2p.connections import HANDSHAKES_MAX, alive, household, wait_closed
from node.libp2p.dialling import DialError, Target, dial_any
from node.libp2p.turns import Turns
from protocol.limits import ADDRESS_BYTES_MAX

LIBP2P_VERSION = "0.8.1"
INBOUND_STREAMS_MAX = 64  # At once on one connection: a link, identify, ping, and lookups with room to spare.
LINGER_S = 5.0  # For a peer to close its side of a stream that we have done with.
CLOSE_S = 3.0  # For a stream's last frame while its task is being cancelled.
PEER_ID_BYTES_MAX = 128  # Those of nodes have 38, the longest hashes in use 68.

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
        if there := alive(self, peer_id):
            return there
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
    """Replace the handling of inbound connections. Stock takes one of its slots before the handshake, and holds it until
    the whole host stops. Seen: deaf after exactly `max_connections` inbound connections in a lifetime, and one task
    leaked for each. Even if they came back, sixteen connections a second that say nothing would take all of them."""

    async def handle(self: Swarm, stream: Any, listen_address: Any) -> None:
        handshakes: Turns = self.__dict__.setdefault("handshakes", Turns(HANDSHAKES_MAX))
        muxed = None
        try:
            with handshakes.taken(household((stream.get_remote_address() or ("",))[0])):
                muxed = await self.upgrade_inbound_raw_conn(RawConnection(stream, False), listen_address)
            if muxed is not None:
                await wait_closed(self, muxed)
        except Exception as error:  # Whatever a stranger sends before the handshake ends here.
            log.debug("inbound connection failed: %r", error)
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(1):
                await stream.close()

    Swarm._handle_inbound_connection = handle


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


def half_open_streams_are_let_go() -> None:
    """Reset a stream that was closed here and that the peer does not close: stock forgets it, but its muxer keeps it for
    as long as the connection lives, with whatever the peer goes on to send. Most handlers close their side and leave it
    at that, as do those who ask. What a peer has opened counts among what he may (`inbound_streams_are_bounded`) until
    it has ended, also if its handler did not even close it."""
    handle, close = SwarmConn._handle_muxed_stream, NetStream.close

    async def let_go(stream: YamuxStream) -> None:
        try:
            with trio.move_on_after(LINGER_S):
                await muxer_mends.ended(stream)
            with trio.move_on_after(CLOSE_S):
                await stream.reset()
        except Exception as error:
            log.debug("a stream of %s was not let go: %r", stream.conn.peer_id, error)

    async def handle_to_the_end(self: SwarmConn, stream: YamuxStream) -> None:
        await handle(self, stream)
        await let_go(stream)

    async def close_and_let_go(self: NetStream) -> None:
        await close(self)
        stream = self.muxed_stream
        if not stream.closed and not stream.conn.event_shutting_down.is_set():
            stream.conn._nursery.start_soon(let_go, stream)

    SwarmConn._handle_muxed_stream, NetStream.close = handle_to_the_end, close_and_let_go


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


def strangers_names_are_short() -> None:
    """Refuse long peer ids and addresses when they are read: both are turned into text wherever somebody looks at them,
    by base58, whose time is the square of the length. Seen: one DHT message of 60 KB with a long id stopped everything
    for 3.4 s, and with a long address for 177 s; identify's 8 KB suffice for some seconds."""
    id_from, address_from = ID.__init__, Multiaddr.__init__

    def short_id(self: ID, peer_id_bytes: bytes) -> None:
        if len(peer_id_bytes) > PEER_ID_BYTES_MAX:
            raise ValueError(f"a peer id of {len(peer_id_bytes)} bytes")
        id_from(self, peer_id_bytes)

    def short_address(self: Multiaddr, addr: str | bytes | Multiaddr, **options: Any) -> None:
        if isinstance(addr, bytes) and len(addr) > ADDRESS_BYTES_MAX:
            raise ValueError(f"an address of {len(addr)} bytes")
        address_from(self, addr, **options)

    ID.__init__, Multiaddr.__init__ = short_id, short_address


MENDS: tuple[Callable[[], None], ...] = (
    every_address_is_dialled,
    inbound_slots_come_back,
    handler_errors_end_one_stream,
    half_open_streams_are_let_go,
    inbound_streams_are_bounded,
    streams_close_when_cancelled,
    ports_are_exclusive,
    nobody_is_dialled_unasked,
    strangers_names_are_short,
    *muxer_mends.MENDS,
    *dht_mends.MENDS,
)
