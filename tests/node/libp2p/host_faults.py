"""Faults of py-libp2p's host, each as a scenario named after its mend in `node.libp2p.mends`."""

from typing import Any

import trio
from libp2p.host.ping import ID as PING
from libp2p.identity.identify.identify import ID as IDENTIFY
from multiaddr import Multiaddr

from node.libp2p import mends
from node.libp2p.connections import alive
from node.libp2p.host import network_of
from tests.node.libp2p.muxer_faults import read_to_the_end
from tests.node.libp2p.scenarios import ECHO, SOON_S, dialled, listening, pair, scenario, soon
from tests.node.libp2p.strangers import free_port, opened


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


@scenario("streams stay half open")
async def half_open_streams_are_let_go() -> None:
    async def wait(stream: Any) -> None:
        await trio.sleep_forever()

    patience_s, mends.LINGER_S = mends.LINGER_S, 0.3
    async with pair() as both:
        muxed = both.outgoing.muxed_conn
        both.bob.set_stream_handler(ECHO, wait)
        for _ in range(5):
            await (await opened(both.alice, both.outgoing, [ECHO])).close()
        await soon(lambda: not muxed.streams, "streams stay half open")
        muxed = both.incoming.muxed_conn
        for _ in range(20):
            stream = await opened(both.alice, both.outgoing, [IDENTIFY])
            await read_to_the_end(stream)
            await stream.write(bytes(1_000))  # Which nobody will read.
        await soon(lambda: not muxed.streams and not muxed.stream_buffers, "streams stay half open")
        mends.LINGER_S = float("inf")
        for _ in range(mends.INBOUND_STREAMS_MAX + 5):  # None that is closed both ways takes a place.
            stream = await opened(both.alice, both.outgoing, [IDENTIFY])
            await stream.close()
    mends.LINGER_S = patience_s


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
