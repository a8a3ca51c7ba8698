"""Mends for the yamux muxer of py-libp2p 0.8.1, in the manner of `mends`."""

import logging
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any

import libp2p.stream_muxer.yamux.yamux as yamux
import trio
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.swarm_connection import SwarmConn
from libp2p.network.stream.net_stream import NetStream
from libp2p.stream_muxer.yamux.yamux import Yamux, YamuxStream

# A peer that was stopped or unplugged is dropped within their sum, under the ten seconds that we promise.
ALIVE_INTERVAL_S = 3.0
ALIVE_TIMEOUT_S = 4.0
ALIVE_SLICES = 4  # The timeout is counted in slices: a pause of our own process costs one slice and not the peer.
WINDOW_SLACK_BYTES = 64 * 1024  # One frame of other people's libraries, if they count a little differently.
UNREAD_BYTES_MAX = 8 * 1024 * 1024  # On one connection. Twice what a relay may hold of sixteen circuits that stand still.
FEW_STREAMS = 16  # Whose windows are less than that in any case.
STALL_S = 60.0  # For a reader that has paused with a full window.
STALL_POLL_S = (0.005, 0.1)  # Shortest and longest wait between looks at a closed window.

log = logging.getLogger(__name__)


def abort(muxed: Any) -> None:
    """Close the socket under a muxed connection without writing anything, or let go of its circuit; never blocks."""
    ground = ground_of(muxed)
    if isinstance(ground, TrioTCPStream):
        assert isinstance(ground.stream, trio.SocketStream)
        ground.stream.socket.close()
    else:
        ground.abort()  # A stream through a relay: see `circuits`.


def ground_of(muxed: Any) -> Any:
    """What a muxed connection is built on: a TrioTCPStream, or a CircuitStream."""
    return muxed.secured_conn.conn.read_writer.read_write_closer.stream


def frames_are_written_whole() -> None:
    """Shield the write of one frame: a cancelled writer leaves half a frame or a skipped Noise nonce, and every stream
    of the connection dies. Seen: 42 to 49 of 200 cancelled calls broke the connection, none of 300 with this."""

    async def write_frame(self: Yamux, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        async with self._write_lock:
            with trio.CancelScope(shield=True):
                await self.secured_conn.write(data)

    Yamux._write_frame = write_frame


def opening_can_be_cancelled() -> None:
    """Leave nothing of a stream whose opening is cancelled: stock keeps it, and one of the connection's 256 places for
    open streams, until the connection ends. Lookups give a server two seconds, and cancel."""

    async def open_stream(self: Yamux) -> YamuxStream:
        await self.stream_backlog_semaphore.acquire()
        stream = None
        try:
            async with self.streams_lock:
                if self.event_shutting_down.is_set():
                    raise yamux.MuxedStreamError("the connection is shutting down")
                stream = YamuxStream(self.next_stream_id, self, True)
                self.next_stream_id += 2
                stream._owns_backlog_slot = True
                self.streams[stream.stream_id] = stream
                self.stream_buffers[stream.stream_id] = bytearray()
                self.stream_events[stream.stream_id] = trio.Event()
            kind, flags = yamux.TYPE_WINDOW_UPDATE, yamux.FLAG_SYN
            await self._write_frame(struct.pack(yamux.YAMUX_HEADER_FORMAT, 0, kind, flags, stream.stream_id, 0))
        except BaseException as error:
            if stream is None:
                self.stream_backlog_semaphore.release()
            else:
                with trio.CancelScope(shield=True):
                    await self._finalize_stream(stream, fully_closed=True)
            if isinstance(error, Exception):
                raise yamux.MuxedStreamError(f"the stream was not opened: {error}") from error
            raise
        return stream

    async def new_stream(self: SwarmConn) -> NetStream:
        muxed = await self.muxed_conn.open_stream()
        with trio.CancelScope(shield=True):  # Nothing waits in there for anybody.
            stream = await self._add_stream(muxed)
        return stream

    Yamux.open_stream, SwarmConn.new_stream = open_stream, new_stream


def dead_peers_are_noticed() -> None:
    """Turn yamux's ping, a mere measurement whose timeout is ignored, into a keepalive that cuts dead connections.
    Seen: a stopped peer went unnoticed for 80 s, and writes to it blocked for ever."""

    async def keep_alive(self: Yamux) -> None:
        while not self.event_shutting_down.is_set():
            with trio.move_on_after(ALIVE_INTERVAL_S):
                await self.event_shutting_down.wait()
                return
            if not await pong(self):
                log.info("%s gave no sign of life for %g s", self.peer_id, ALIVE_INTERVAL_S + ALIVE_TIMEOUT_S)
                self.was_silent = True
                abort(self)
                return

    async def pong(self: Yamux) -> bool:
        self._ping_id = (self._ping_id + 1) & 0xFFFFFFFF
        self._ping_event = trio.Event()
        self._ping_sent_time = trio.current_time()
        assert self._nursery is not None
        # In a task of its own: the write itself may block for ever on a frozen peer.
        self._nursery.start_soon(ping, self, self._ping_id)
        for _ in range(ALIVE_SLICES):
            with trio.move_on_after(ALIVE_TIMEOUT_S / ALIVE_SLICES):
                await self._ping_event.wait()
                return True
        return self.event_shutting_down.is_set()

    async def ping(self: Yamux, number: int) -> None:
        header = struct.pack(yamux.YAMUX_HEADER_FORMAT, 0, yamux.TYPE_PING, yamux.FLAG_SYN, 0, number)
        try:
            await self._write_frame(header)
        except Exception as error:  # The connection is going down; its reader tells everybody.
            log.debug("ping failed: %r", error)

    Yamux.was_silent = False
    Yamux._measure_rtt_loop = keep_alive


def sockets_notice_dead_hosts() -> None:
    """Let the kernel give up on data that nobody acknowledges: stock sets no option, so a connection to a host that
    lost its power lives on for fifteen minutes even while something is being sent."""
    initialise = TrioTCPStream.__init__

    def with_timeout(self: TrioTCPStream, stream: trio.SocketStream) -> None:
        initialise(self, stream)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if sys.platform == "linux":
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 10_000)

    TrioTCPStream.__init__ = with_timeout


def windows_are_enforced() -> None:
    """Cut a peer that sends more than its window: stock logs a warning and keeps the bytes. Seen: 131 MB pushed into
    one stream that nobody read. The windows of all streams that a peer may open are more than he needs together."""

    def get_window(self: YamuxStream) -> int:
        return int(self.__dict__.get("recv_window", 0))

    def set_window(self: YamuxStream, window: int) -> None:
        self.__dict__["recv_window"] = window
        # The library sets a negative window back to zero after its warning, so the overrun is added up here.
        overrun = self.__dict__["overrun"] = self.__dict__.get("overrun", 0) - min(0, window)
        if overrun > WINDOW_SLACK_BYTES or unread_bytes(self.conn.stream_buffers) > UNREAD_BYTES_MAX:
            cut(self.conn)

    def unread_bytes(buffers: dict[int, bytearray]) -> int:
        return sum(map(len, buffers.values())) if len(buffers) > FEW_STREAMS else 0

    def cut(conn: Yamux) -> None:
        if not conn.event_shutting_down.is_set():
            log.info("%s sends more than it may", conn.peer_id)
            conn.event_shutting_down.set()
            abort(conn)

    YamuxStream.recv_window = property(get_window, set_window)


def frames_fit_their_window() -> None:
    """Cut a peer that announces a frame larger than any window: stock reads up to 16 MB into memory, for up to a minute,
    before it looks at the window, or whether there is such a stream at all."""
    yamux.MAX_WINDOW_SIZE = yamux.DEFAULT_WINDOW_SIZE


def window_updates_are_rare() -> None:
    """Announce a window once half of it is used, as go-yamux does, and keep it as it is: stock sends a frame, an
    encryption and a system call for every read, and lets the window of each stream grow to 16 MB."""

    async def update(self: YamuxStream, *, bytes_read: int = 0) -> None:
        async with self.window_lock:
            buffered = len(self.conn.stream_buffers.get(self.stream_id, b""))
            missing = self.target_recv_window - (self.recv_window + buffered)
            if missing < self.target_recv_window // 2:
                return
            increment = self._grow_to_delta(buffered)
        await self.send_window_update(increment, skip_lock=True)

    YamuxStream._auto_tune_and_send_window_update = update


def slow_readers_are_waited_for() -> None:
    """Let a write wait for a closed window: stock resets the stream when its reader pauses for five seconds."""

    async def write(self: YamuxStream, data: bytes) -> None:
        sent = 0
        while sent < len(data):
            size = await wait_for_window(self, len(data) - sent)
            header = struct.pack(yamux.YAMUX_HEADER_FORMAT, 0, yamux.TYPE_DATA, 0, self.stream_id, size)
            await self.conn._write_frame(header + data[sent : sent + size])
            sent += size

    async def wait_for_window(self: YamuxStream, wanted: int) -> int:
        deadline = trio.current_time() + STALL_S
        pause, longest = STALL_POLL_S
        while True:
            if self.send_closed or self.closed:
                raise yamux.MuxedStreamError("the stream is closed")
            size = min(self.send_window, yamux.MAX_MESSAGE_SIZE - yamux.HEADER_SIZE, wanted)
            if size > 0:
                self.send_window -= size
                return size
            if trio.current_time() > deadline:
                raise yamux.MuxedStreamError(f"the peer has not read for {STALL_S:g} s")
            await trio.sleep(pause)
            pause = min(2 * pause, longest)

    YamuxStream.write = write


def resets_wake_readers() -> None:
    """Wake whoever reads a stream that a sibling task resets: stock forgets the stream and leaves its reader asleep
    until the whole connection ends. Seen: every link that was given up kept its task."""
    reset = YamuxStream.reset

    async def reset_and_wake(self: YamuxStream) -> None:
        event = self.conn.stream_events.get(self.stream_id)
        await reset(self)
        if event is not None:
            event.set()

    YamuxStream.reset = reset_and_wake


def ended_streams_leave_nothing() -> None:
    """Keep no event for a stream that has ended: stock's readers put a fresh one back after the stream was forgotten,
    one for each stream that ends under a reader, for as long as the connection lives. And what was not read of a stream
    that is reset goes with it: stock keeps that for up to 90 s, in which as many streams may come as like."""
    initialise, reset = Yamux.__init__, YamuxStream.reset

    def with_guarded_events(self: Yamux, *args: Any, **options: Any) -> None:
        initialise(self, *args, **options)
        self.stream_events = _EventsOfStreams(self.streams)

    async def reset_and_forget(self: YamuxStream) -> None:
        await reset(self)
        async with self.conn.streams_lock:
            self.conn.stream_buffers.get(self.stream_id, bytearray()).clear()
            self.conn._finalize_stream_locked(self, fully_closed=True)

    Yamux.__init__, YamuxStream.reset = with_guarded_events, reset_and_forget


async def ended(stream: YamuxStream) -> None:
    """Wait until a stream that nobody reads any more is closed both ways. Several may wait."""
    events = stream.conn.stream_events
    while stream.stream_id in stream.conn.streams and not stream.closed:
        if events[stream.stream_id].is_set():
            events[stream.stream_id] = trio.Event()
        await events[stream.stream_id].wait()


class _EventsOfStreams(dict[int, trio.Event]):
    """Takes events only for streams that exist."""

    def __init__(self, streams: dict[int, YamuxStream]) -> None:
        super().__init__()
        self._streams = streams

    def __setitem__(self, stream_id: int, event: trio.Event) -> None:
        if stream_id in self._streams:
            super().__setitem__(stream_id, event)


MENDS: tuple[Callable[[], None], ...] = (
    frames_are_written_whole,
    opening_can_be_cancelled,
    dead_peers_are_noticed,
    sockets_notice_dead_hosts,
    windows_are_enforced,
    frames_fit_their_window,
    window_updates_are_rare,
    slow_readers_are_waited_for,
    resets_wake_readers,
    ended_streams_leave_nothing,
)
