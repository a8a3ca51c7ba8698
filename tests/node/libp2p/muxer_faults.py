"""Faults of py-libp2p's muxer, each as a scenario named after its mend in `node.libp2p.muxer_mends`."""

import socket
import struct
import sys
from contextlib import suppress
from typing import Any

import libp2p.stream_muxer.yamux.yamux as yamux
import trio
import trio.testing
from libp2p.host.ping import ID as PING
from libp2p.network.stream.exceptions import StreamReset

from node.libp2p import muxer_mends
from tests.node.libp2p.scenarios import ECHO, SOON_S, pair, scenario, soon
from tests.node.libp2p.strangers import opened


@scenario("the connection is ruined")
async def frames_are_written_whole() -> None:
    async with pair() as both:
        socket_stream = both.outgoing.muxed_conn.secured_conn.conn.read_writer.read_write_closer.stream
        write = socket_stream.write

        this_task = trio.lowlevel.current_task()

        async def write_in_halves(data: bytes) -> None:
            await write(data[: len(data) // 2])
            if trio.lowlevel.current_task() is this_task:  # And not identify's or the keepalive's.
                scope.cancel()
            await trio.sleep(0.05)
            await write(data[len(data) // 2 :])

        stream = await opened(both.alice, both.outgoing, [PING])
        socket_stream.write = write_in_halves
        with trio.CancelScope() as scope:
            await stream.write(bytes(32))
        socket_stream.write = write
        answered = False
        with trio.move_on_after(SOON_S), suppress(Exception):
            await both.ping()
            answered = True
        assert answered, "the connection is ruined"


@scenario("the stream is still there")
async def opening_can_be_cancelled() -> None:
    async with pair() as both:
        muxed = both.outgoing.muxed_conn
        async with trio.open_nursery() as nursery, muxed._write_lock:  # Somebody writes, slowly.
            nursery.start_soon(both.outgoing.new_stream)
            await trio.testing.wait_all_tasks_blocked(0.05)
            nursery.cancel_scope.cancel()
        await both.ping()
        await soon(lambda: not muxed.streams and not muxed.stream_buffers, "the stream is still there")
        assert muxed.stream_backlog_semaphore.value == 256


@scenario("still believed alive")
async def dead_peers_are_noticed() -> None:
    muxer_mends.ALIVE_INTERVAL_S, muxer_mends.ALIVE_TIMEOUT_S = 0.3, 0.4
    async with pair() as both:
        # Bob's kernel still takes what comes, as that of a stopped process does; his process does not, nor does it hang up.
        both.incoming.muxed_conn.secured_conn.read = _never
        abort, muxer_mends.abort = muxer_mends.abort, lambda muxed: None if muxed is both.incoming.muxed_conn else abort(muxed)
        try:
            await soon(lambda: both.outgoing.is_closed, "the frozen peer is still believed alive")
        finally:
            muxer_mends.abort = abort
        assert both.outgoing.muxed_conn.was_silent


async def _never(count: int) -> bytes:
    await trio.sleep_forever()
    return b""


@scenario("assert stream.getsockopt")
async def sockets_notice_dead_hosts() -> None:
    async with pair() as both:
        for connection in (both.outgoing, both.incoming):
            stream = connection.muxed_conn.secured_conn.conn.read_writer.read_write_closer.stream.stream
            assert stream.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            if sys.platform == "linux":
                assert stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)


@scenario("more than the window was taken")
async def windows_are_enforced() -> None:
    async with pair() as both:
        both.bob.set_stream_handler(ECHO, _read_nothing)
        stream = await opened(both.alice, both.outgoing, [ECHO])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_overrun, both.outgoing.muxed_conn, stream.muxed_stream.stream_id)
            await soon(lambda: both.outgoing.is_closed, "more than the window was taken")
            nursery.cancel_scope.cancel()
    async with pair() as both:
        both.bob.set_stream_handler(ECHO, _read_nothing)
        with suppress(Exception):
            for _ in range(muxer_mends.UNREAD_BYTES_MAX // yamux.DEFAULT_WINDOW_SIZE + 4):
                await (await opened(both.alice, both.outgoing, [ECHO])).write(bytes(yamux.DEFAULT_WINDOW_SIZE - 100))
        await soon(lambda: both.outgoing.is_closed, "more than all windows together was taken")


async def _overrun(muxed: Any, stream_id: int) -> None:
    size = 60_000
    header = struct.pack(yamux.YAMUX_HEADER_FORMAT, 0, yamux.TYPE_DATA, 0, stream_id, size)
    with suppress(Exception):  # The peer cuts the connection; that is what it should do.
        for _ in range((2 * yamux.DEFAULT_WINDOW_SIZE + 2 * muxer_mends.WINDOW_SLACK_BYTES) // size):
            await muxed.secured_conn.write(header + bytes(size))


@scenario("sixteen megabytes are waited for")
async def frames_fit_their_window() -> None:
    async with pair() as both:
        header = struct.pack(yamux.YAMUX_HEADER_FORMAT, 0, yamux.TYPE_DATA, 0, 9_999, 16 * 1024 * 1024)
        await both.outgoing.muxed_conn.secured_conn.write(header)
        await soon(lambda: both.incoming.is_closed, "sixteen megabytes are waited for")


async def _reset_unread(stream: Any) -> None:
    while not stream.muxed_conn.stream_buffers[stream.muxed_stream.stream_id]:
        await trio.sleep(0.01)
    await stream.reset()


async def _read_nothing(stream: Any) -> None:
    await trio.sleep_forever()


@scenario("window updates for 600 kB")
async def window_updates_are_rare() -> None:
    updates = 0
    received = 0

    async def read_all(stream: Any) -> None:
        nonlocal received
        while True:
            received += len(await stream.read(4096))

    async with pair() as both:
        both.bob.set_stream_handler(ECHO, read_all)
        write_frame = both.incoming.muxed_conn._write_frame

        async def count_updates(data: bytes) -> None:
            nonlocal updates
            kind, flags = data[1], int.from_bytes(data[2:4], "big")
            updates += kind == yamux.TYPE_WINDOW_UPDATE and not flags
            await write_frame(data)

        stream = await opened(both.alice, both.outgoing, [ECHO])
        both.incoming.muxed_conn._write_frame = count_updates
        for _ in range(600):
            await stream.write(bytes(1_000))
        await soon(lambda: received == 600_000, "not everything arrives")
        assert updates <= 10, f"{updates} window updates for 600 kB"
        assert both.incoming.get_streams()[0].muxed_stream.target_recv_window <= 2**18, "the window has grown"


@scenario("the write has failed")
async def slow_readers_are_waited_for() -> None:
    received = 0

    async def read_late(stream: Any) -> None:
        nonlocal received
        await trio.sleep(7)
        while received < 400_000:
            received += len(await stream.read(65_536))

    async with pair() as both:
        both.bob.set_stream_handler(ECHO, read_late)
        stream = await opened(both.alice, both.outgoing, [ECHO])
        try:
            await stream.write(bytes(400_000))
        except StreamReset as error:
            raise AssertionError("the write has failed") from error
        await soon(lambda: received == 400_000, "not everything arrives")


@scenario("the reader sleeps on")
async def resets_wake_readers() -> None:
    async with pair() as both:
        both.bob.set_stream_handler(ECHO, _read_nothing)
        stream = await opened(both.alice, both.outgoing, [ECHO])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_to_the_end, stream)
            await trio.testing.wait_all_tasks_blocked(0.05)
            with trio.fail_after(SOON_S):
                await stream.reset()
            with trio.move_on_after(SOON_S):
                while nursery.child_tasks:
                    await trio.sleep(0.01)
            asleep = bool(nursery.child_tasks)
            nursery.cancel_scope.cancel()
        assert not asleep, "the reader sleeps on"


async def read_to_the_end(stream: Any) -> None:
    try:
        while await stream.read(1000):
            pass
    except Exception:  # However it ends.
        return


@scenario("events of")
async def ended_streams_leave_nothing() -> None:
    async with pair() as both:
        both.bob.set_stream_handler(ECHO, _reset_unread)
        muxed = both.incoming.muxed_conn
        for _ in range(20):
            await (await opened(both.alice, both.outgoing, [ECHO])).write(bytes(1_000))
        await soon(lambda: not any(muxed.stream_buffers.values()), "buffers stay, and events of them")
        both.bob.set_stream_handler(ECHO, read_to_the_end)
        for _ in range(20):
            stream = await opened(both.alice, both.outgoing, [ECHO])
            await trio.sleep(0.02)
            await stream.reset()
        await soon(lambda: len(muxed.streams) <= 1, "streams stay")
        assert len(muxed.stream_events) <= 1, f"{len(muxed.stream_events)} events of {len(muxed.streams)} streams"
