"""The faults of py-libp2p 0.8.1 that are mended, each as a scenario named after its mend: quiet with it, not without.

`python -m tests.node.libp2p.faults MEND…` runs scenarios with every mend but their own; status FAULTY: fault seen.
"""

import node.libp2p  # noqa: F401  It imports libp2p as the node does, so it comes first.

# isort: split

import json
import os
import signal
import socket
import struct
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, TextIO

import libp2p.stream_muxer.yamux.yamux as yamux
import trio
import trio.testing
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.host.basic_host import BasicHost
from libp2p.host.ping import ID as PING
from libp2p.kad_dht.kad_dht import DHTMode, KadDHT
from libp2p.kad_dht.provider_store import ProviderStore
from libp2p.network.stream.exceptions import StreamReset
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from libp2p.peer.peerstore import PeerStore
from multiaddr import Multiaddr

from node.libp2p import dht_mends, mends, muxer_mends
from node.libp2p.connections import close_all
from node.libp2p.dialling import Target, dial_one
from node.libp2p.host import HUSHED, alive, build_host, network_of
from tests.node.libp2p.strangers import free_port, opened

FAULTY = 3
SOON_S = 4.0  # A mended library needs milliseconds.
CHILDREN_MAX = 4  # At once; they mostly wait.
ECHO = "/test/echo/1"

Scenario = Callable[[], Awaitable[None]]
SCENARIOS: dict[str, Scenario] = {}
FAULTS: dict[str, str] = {}


def scenario(fault: str) -> Callable[[Scenario], Scenario]:
    """Enter a scenario under its own name, which is its mend's. `fault` is part of what is said when it shows."""

    def enter(run: Scenario) -> Scenario:
        SCENARIOS[run.__name__] = run
        FAULTS[run.__name__] = fault
        return run

    return enter


def main() -> None:
    """Run the named scenarios, each in a child of its own that lacks its mend; print what each child said as JSON."""
    names = sys.argv[1:]
    for at in range(0, len(names), CHILDREN_MAX):
        some = names[at : at + CHILDREN_MAX]
        for name, (child, reading) in zip(some, [_child(name) for name in some], strict=True):
            with os.fdopen(reading) as pipe:
                said = pipe.read()
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            print(json.dumps({"mend": name, "status": status, "said": said}))


def _child(name: str) -> tuple[int, int]:
    """Fork, for the library takes long to import; no loop runs in the parent. Gives the child and what it says."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        with os.fdopen(writing, "w") as said:
            status = _without(name, said)
        os._exit(status)
    os.close(writing)
    return child, reading


def _without(name: str, said: TextIO) -> int:
    signal.alarm(60)
    mends.apply(without=(name,))
    try:
        run(name)
    except Exception as error:  # Whatever a host dies of is what the test wants to see.
        for leaf in _leaves(error):
            said.write(f"{leaf!r}\n")
            traceback.print_tb(leaf.__traceback__, limit=-3, file=said)
        return FAULTY
    return 0


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for part in error.exceptions for leaf in _leaves(part)]
    return [error]


def run(name: str) -> None:
    """Run one scenario on a clock ten times as fast, for the library waits for seconds in many places."""
    clock = trio.testing.MockClock(rate=10.0 if name in FAST else 1.0)
    with HUSHED:
        trio.run(SCENARIOS[name], clock=clock)


# --- Two hosts and one connection -------------------------------------------------------------------------------------


class Pair:
    """Alice has dialled Bob. Both ends of their one connection are at hand."""

    def __init__(self, alice: BasicHost, bob: BasicHost, outgoing: Any, incoming: Any) -> None:
        self.alice, self.bob, self.outgoing, self.incoming = alice, bob, outgoing, incoming

    async def ping(self) -> None:
        """Bob answers over this very connection."""
        stream = await opened(self.alice, self.outgoing, [PING])
        await stream.write(bytes(32))
        assert await stream.read(32) == bytes(32)
        await stream.reset()


@asynccontextmanager
async def listening(seed: bytes = b"b" * 32) -> AsyncIterator[BasicHost]:
    addresses: list[Multiaddr] = []
    host = build_host(seed, lambda: addresses)
    async with host.run([Multiaddr("/ip4/127.0.0.1/tcp/0")]):
        addresses += host.get_transport_addrs()
        try:
            yield host
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(2):
                await close_all(network_of(host))
                await host.close()


@asynccontextmanager
async def pair() -> AsyncIterator[Pair]:
    async with listening(b"a" * 32) as alice, listening(b"b" * 32) as bob:
        outgoing = await dialled(alice, bob)
        while not alive(network_of(bob), alice.get_id()):
            await trio.sleep(0.01)
        yield Pair(alice, bob, outgoing, alive(network_of(bob), alice.get_id())[0])


async def dialled(alice: BasicHost, bob: BasicHost) -> Any:
    address = bob.get_transport_addrs()[0]
    return await dial_one(network_of(alice), Target(str(address), address), bob.get_id())


async def soon(done: Callable[[], bool], what: str) -> None:
    """Raises AssertionError if it does not come true soon."""
    with trio.move_on_after(SOON_S):
        while not done():
            await trio.sleep(0.01)
    assert done(), what


# --- Host -------------------------------------------------------------------------------------------------------------


@scenario("no addresses established")
async def every_address_is_dialled() -> None:
    async with listening(b"a" * 32) as alice, listening() as bob:
        addresses = [Multiaddr(f"/ip4/127.0.0.1/tcp/{free_port()}"), *bob.get_transport_addrs()]
        alice.get_peerstore().add_addrs(bob.get_id(), addresses, 600)
        await network_of(alice).dial_peer(bob.get_id())


@scenario("no libp2p handshake")
async def inbound_slots_come_back() -> None:
    async with listening(b"a" * 32) as alice, listening() as bob:
        network_of(bob)._inbound_limiter.total_tokens = 2
        for _ in range(4):
            connection = await dialled(alice, bob)
            await connection.close()
            await soon(lambda: not alive(network_of(bob)), "the connection stays open")
            await trio.sleep(0.3)
        assert network_of(bob)._inbound_limiter.borrowed_tokens < 2, "slots are not given back"


@scenario("boom")
async def handler_errors_end_one_stream() -> None:
    async def explode(stream: Any) -> None:
        raise RuntimeError("boom")

    async with pair() as both:
        both.bob.set_stream_handler("/test/boom/1", explode)
        await opened(both.alice, both.outgoing, ["/test/boom/1"])
        garbage = await both.outgoing.new_stream()
        await garbage.write(b"\x13/multistream/1.0.0\n\x03\xff\xfe\n")
        await trio.sleep(0.3)
        await both.ping()


@scenario("every stream is accepted")
async def inbound_streams_are_bounded() -> None:
    async with pair() as both:
        streams = []
        with trio.fail_after(SOON_S):
            for _ in range(150):
                streams.append(await both.outgoing.muxed_conn.open_stream())
        await soon(lambda: sum(stream.reset_received for stream in streams) >= 80, "every stream is accepted")
        assert len(both.incoming.get_streams()) <= mends.INBOUND_STREAMS_MAX


@scenario("the muxed stream is still open")
async def streams_close_when_cancelled() -> None:
    async with pair() as both:
        stream = await opened(both.alice, both.outgoing, [PING])
        with trio.CancelScope() as scope:
            scope.cancel()
            await stream.reset()
        assert stream.muxed_stream.closed, "the muxed stream is still open"


@scenario("two hosts listen on one port")
async def ports_are_exclusive() -> None:
    async with listening() as bob, listening(b"a" * 32) as alice:
        assert not await network_of(alice).listen(*bob.get_transport_addrs()), "two hosts listen on one port"


@scenario("a peer was dialled")
async def nobody_is_dialled_unasked() -> None:
    async with listening(b"a" * 32) as alice, listening() as bob:
        alice.get_peerstore().add_addrs(bob.get_id(), bob.get_transport_addrs(), 600)
        await network_of(alice).auto_connector.maybe_connect()
        await trio.sleep(0.3)
        assert not alive(network_of(alice)), "a peer was dialled"


# --- Muxer ------------------------------------------------------------------------------------------------------------


@scenario("the connection is ruined")
async def frames_are_written_whole() -> None:
    async with pair() as both:
        socket_stream = both.outgoing.muxed_conn.secured_conn.conn.read_writer.read_write_closer.stream
        write = socket_stream.write

        async def write_in_halves(data: bytes) -> None:
            await write(data[: len(data) // 2])
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


@scenario("still believed alive")
async def dead_peers_are_noticed() -> None:
    muxer_mends.ALIVE_INTERVAL_S, muxer_mends.ALIVE_TIMEOUT_S = 0.3, 0.4
    async with pair() as both:
        # Bob's kernel still takes what comes, as that of a stopped process does; his process does not.
        both.incoming.muxed_conn.secured_conn.read = _never
        await soon(lambda: both.outgoing.is_closed, "the frozen peer is still believed alive")
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


@scenario("beyond the window were taken")
async def windows_are_enforced() -> None:
    async with pair() as both:
        both.bob.set_stream_handler(ECHO, _read_nothing)
        stream = await opened(both.alice, both.outgoing, [ECHO])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_overrun, both.outgoing.muxed_conn, stream.muxed_stream.stream_id)
            await soon(lambda: both.outgoing.is_closed, "three megabytes beyond the window were taken")
            nursery.cancel_scope.cancel()


async def _overrun(muxed: Any, stream_id: int) -> None:
    size = 60_000
    header = struct.pack(yamux.YAMUX_HEADER_FORMAT, 0, yamux.TYPE_DATA, 0, stream_id, size)
    with suppress(Exception):  # The peer cuts the connection; that is what it should do.
        for _ in range(3 * muxer_mends.WINDOW_SLACK_BYTES // size):
            await muxed.secured_conn.write(header + bytes(size))


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
            nursery.start_soon(_read_to_the_end, stream)
            await trio.testing.wait_all_tasks_blocked(0.05)
            with trio.fail_after(SOON_S):
                await stream.reset()
            with trio.move_on_after(SOON_S):
                while nursery.child_tasks:
                    await trio.sleep(0.01)
            asleep = bool(nursery.child_tasks)
            nursery.cancel_scope.cancel()
        assert not asleep, "the reader sleeps on"


async def _read_to_the_end(stream: Any) -> None:
    try:
        while await stream.read(1000):
            pass
    except Exception:  # However it ends.
        return


@scenario("events of")
async def ended_streams_leave_nothing() -> None:
    async with pair() as both:
        both.bob.set_stream_handler(ECHO, _read_to_the_end)
        muxed = both.incoming.muxed_conn
        for _ in range(20):
            stream = await opened(both.alice, both.outgoing, [ECHO])
            await trio.sleep(0.02)
            await stream.reset()
        await soon(lambda: len(muxed.streams) <= 1, "streams stay")
        assert len(muxed.stream_events) <= 1, f"{len(muxed.stream_events)} events of {len(muxed.streams)} streams"


# --- DHT and book -----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def dht_pair() -> AsyncIterator[Pair]:
    async with pair() as both:
        KadDHT(both.bob, DHTMode.SERVER)
        yield both


@scenario("/ipfs/kad/1.0.0")
async def protocol_is_our_own() -> None:
    async with dht_pair() as both:
        offered = set(both.bob.get_mux().get_protocols())
        assert dht_mends.KAD in offered and "/ipfs/kad/1.0.0" not in offered, offered


@scenario("TooSlowError")
async def messages_are_small() -> None:
    async with dht_pair() as both:
        stream = await opened(both.alice, both.outgoing, [dht_mends.KAD])
        await stream.write(b"\xff\xff\x7f" + bytes(100))  # Two megabytes are announced.
        with trio.fail_after(SOON_S):
            await _read_to_the_end(stream)


@scenario("the DHT is deaf")
async def slow_askers_are_cut() -> None:
    dht_mends.INBOUND_S = 0.5
    async with dht_pair() as both:
        for _ in range(12):
            await opened(both.alice, both.outgoing, [dht_mends.KAD])
        await trio.sleep(1.5)
        answer = b""
        with trio.move_on_after(SOON_S), suppress(Exception):
            stream = await opened(both.alice, both.outgoing, [dht_mends.KAD])
            await stream.write(b"\x02\x08\x05")  # PING
            answer = await stream.read(100)
        assert answer, "the DHT is deaf"


@scenario("the newest provider was turned away")
async def provider_records_stay_fresh() -> None:
    async with listening() as bob:
        store = ProviderStore(bob)
        providers = [_peer(number) for number in range(25)]
        for provider in providers:
            store.add_provider(b"key", PeerInfo(provider, [Multiaddr("/ip4/127.0.0.1/tcp/1")] * 100))
        held = store.get_providers(b"key")
        assert providers[-1] in {each.peer_id for each in held}, "the newest provider was turned away"
        assert len(held) <= dht_mends.PROVIDERS_PER_KEY_MAX
        assert len(held[0].addrs) <= dht_mends.PROVIDER_ADDRESSES_MAX
        dht_mends.KEYS_MAX = 10
        for number in range(20):
            store.add_provider(b"key %d" % number, PeerInfo(providers[0], [Multiaddr("/ip4/127.0.0.1/tcp/1")]))
        assert len(store.providers) <= dht_mends.KEYS_MAX
        assert store.get_providers(b"key 19")


@scenario("peer ID not found")
async def own_keys_are_never_evicted() -> None:
    keys = create_new_key_pair(b"o" * 32)
    own = ID.from_pubkey(keys.public_key)
    book = PeerStore(max_peers=10)
    book.add_key_pair(own, keys)
    for number in range(30):
        book.add_addrs(_peer(number), [Multiaddr("/ip4/127.0.0.1/tcp/1")], 600)
    assert book.privkey(own) == keys.private_key
    assert len(book.peer_ids()) <= 12


def _peer(number: int) -> ID:
    return ID.from_pubkey(create_new_key_pair(number.to_bytes(32, "big")).public_key)


FAST = {"slow_readers_are_waited_for", "slow_askers_are_cut"}

if __name__ == "__main__":
    main()
