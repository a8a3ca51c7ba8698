"""A real node under a corpus of hostile input at every layer: it lives, answers others in between, and its memory stays flat."""

import os
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from random import Random
from typing import Any

import libp2p.stream_muxer.yamux.yamux as yamux
import pytest
import trio
from libp2p.exceptions import BaseLibp2pError
from libp2p.host.ping import ID as PING
from libp2p.identity.identify.identify import ID as IDENTIFY
from libp2p.kad_dht.pb.kademlia_pb2 import Message as KadMessage
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE

from node.libp2p.addresses import host_and_port, split
from node.libp2p.dht_mends import KAD
from node.libp2p.dialling import DialError
from node.libp2p.pipes import StreamPipe
from node.libp2p.transport import WIRE
from node.links import PipeBroken
from node.transport_bench import OTHER_SWARM, SWARM
from protocol import codec, envelope, framing
from protocol.envelope import Header
from protocol.framing import Form
from protocol.identity import Identity, NodeId, node_from_text
from protocol.link import Link
from protocol.messages import Goodbye, Hello, Ping, Pong
from tests.node.libp2p.solo import Solo, solo
from tests.node.libp2p.strangers import connected, opened, stranger_host

MALLORY, GRACE = Identity(b"m" * 32), b"g" * 32
ATTACK_S = 5.0  # For one attack, most of which end when the node cuts them.
PROBE_S = 30.0
GROWTH_BYTES_MAX = 24_000_000


@pytest.fixture
def victim() -> Iterator[Solo]:
    with solo(b"v" * 32) as one:
        yield one


def _varint(number: int) -> bytes:
    out = b""
    while number >= 128:
        out += bytes((number % 128 | 128,))
        number //= 128
    return out + bytes((number,))


def _line(text: bytes) -> bytes:
    return _varint(len(text) + 1) + text + b"\n"


# --- What is sent -----------------------------------------------------------------------------------------------------

DICE = Random(5)
HELLO = _line(b"/multistream/1.0.0")

ON_THE_SOCKET = {
    "nothing": b"",
    "one byte": b"\0",
    "noise": DICE.randbytes(4_000),
    "much noise": DICE.randbytes(200_000),
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00" + DICE.randbytes(512),
    "endless length": b"\xff" * 100,
    "huge length": _varint(2**31) + b"x" * 1_000,
    "not utf-8": HELLO + _line(b"\xff\xfe\xfd"),
    "plaintext please": HELLO + _line(b"/plaintext/2.0.0") + b"\0" * 100,
    "unknown security": HELLO + _line(b"/secio/1.0.0") + _line(b"/tls/1.0.0"),
    "garbage handshake": HELLO + _line(NOISE.encode()) + struct.pack(">H", 200) + DICE.randbytes(200),
    "endless handshake": HELLO + _line(NOISE.encode()) + struct.pack(">H", 65_535) + DICE.randbytes(65_535) * 2,
    "empty handshake": HELLO + _line(NOISE.encode()) + b"\0\0" * 50,
}


def _frame(kind: int, flags: int, stream: int, length: int, body: bytes = b"", version: int = 0) -> bytes:
    return struct.pack(yamux.YAMUX_HEADER_FORMAT, version, kind, flags, stream, length) + body


SYN, ACK, FIN, RST = yamux.FLAG_SYN, yamux.FLAG_ACK, yamux.FLAG_FIN, yamux.FLAG_RST
DATA, WINDOW, BEEP, AWAY = yamux.TYPE_DATA, yamux.TYPE_WINDOW_UPDATE, yamux.TYPE_PING, yamux.TYPE_GO_AWAY

IN_THE_MUXER = {
    "noise": DICE.randbytes(3_000),
    "unknown version and kind": _frame(9, 0xFFFF, 7, 3, b"abc", version=7) * 20,
    "two gigabytes announced": _frame(DATA, SYN, 101, 2**31, b"x" * 1_000),
    "data for nobody": _frame(DATA, 0, 9_999, 1_000, b"x" * 1_000) * 20,
    "syn twice": _frame(WINDOW, SYN, 101, 0) * 2,
    "syn with our parity": b"".join(_frame(WINDOW, SYN, 2 * n, 0) for n in range(1, 50)),
    "syn and reset": b"".join(_frame(WINDOW, SYN | RST, 2 * n + 101, 0) for n in range(300)),
    "syn, ack, fin and reset": _frame(DATA, SYN | ACK | FIN | RST, 101, 3, b"abc") * 10,
    "window beyond all bounds": _frame(WINDOW, SYN, 101, 2**32 - 1) + _frame(WINDOW, 0, 101, 2**32 - 1) * 10,
    "twenty thousand pings": _frame(BEEP, SYN, 0, 1) * 20_000,
    "pongs unasked": _frame(BEEP, ACK, 0, 77) * 1_000,
    "a thousand silent streams": b"".join(_frame(WINDOW, SYN, 2 * n + 101, 0) for n in range(1_000)),
    "away": _frame(AWAY, 0, 0, 2) * 3,
}

IN_A_STREAM = {
    "nothing": b"",
    "noise": DICE.randbytes(2_000),
    "not utf-8": HELLO + _line(b"\xff\xfe\xfd\xfc"),
    "endless line": b"\xff" * 64,
    "huge line": HELLO + _varint(2**40) + b"x" * 2_000,
    "no newline": HELLO + b"\x05abcde",
    "empty protocol": HELLO + _line(b""),
    "list": HELLO + _line(b"ls"),
    "a thousand protocols": HELLO + b"".join(_line(b"/x/%d" % n) for n in range(1_000)),
}


def _kad(**fields: object) -> bytes:
    body = KadMessage(**fields).SerializeToString()
    return _varint(len(body)) + body


def _kad_with_providers(identity: bytes, address: bytes, count: int) -> bytes:
    message = KadMessage(type=KadMessage.ADD_PROVIDER, key=b"k" * 32)
    for _ in range(count):
        peer = message.providerPeers.add()
        peer.id = identity
        peer.addrs.extend([address] * 5)
    body = message.SerializeToString()
    return _varint(len(body)) + body


TO_A_SERVICE: list[tuple[str, str, bytes]] = [
    ("identify unasked bytes", IDENTIFY, DICE.randbytes(10_000)),
    ("short ping", PING, b"x"),
    ("long ping", PING, DICE.randbytes(100_000)),
    ("dht garbage", KAD, _varint(500) + DICE.randbytes(500)),
    ("dht endless length", KAD, b"\xff" * 30),
    ("dht huge", KAD, _varint(4_000_000) + bytes(500_000)),
    ("dht empty", KAD, _varint(0) * 50),
    ("dht unknown kind", KAD, b"\x02\x08\x63"),
    ("dht no key", KAD, b"".join(_kad(type=kind) for kind in range(6))),
    ("dht long key", KAD, b"".join(_kad(type=kind, key=b"k" * 60_000) for kind in range(6))),
    ("dht forged record", KAD, _kad(type=KadMessage.FIND_NODE, key=b"k" * 32, senderRecord=DICE.randbytes(300))),
    ("dht bad providers", KAD, _kad_with_providers(DICE.randbytes(40), DICE.randbytes(30), 500)),
    (
        "dht values",
        KAD,
        _kad(type=KadMessage.PUT_VALUE, key=b"/x/y", record={"key": b"/x/y", "value": bytes(90_000)}) * 20,
    ),
]


def _bare(body: bytes) -> bytes:
    return framing.frame(Form.BARE, body)


def _hello(
    victim: NodeId, *, signer: Identity = MALLORY, swarm: bytes = SWARM, age_s: float = 0.0, body: bytes | None = None
) -> bytes:
    header = Header(
        swarm, signer.node, victim, os.urandom(envelope.NONCE_BYTES), round((time.time() - age_s) * 1000), 30_000
    )
    text = body if body is not None else codec.encode(Hello(b"t" * 8, "mallory", "test", ()))
    return framing.frame(Form.SEALED, envelope.seal(signer, header, text))


def _tampered(frame: bytes) -> bytes:
    return frame[:-1] + bytes((frame[-1] ^ 1,))


ON_THE_WIRE: dict[str, Callable[[NodeId], bytes]] = {
    "nothing": lambda _: b"",
    "noise": lambda _: DICE.randbytes(5_000),
    "oversized frame": lambda _: b"\x7f\xff\xff\xff\1" + bytes(300_000),
    "unknown form": lambda _: b"\0\0\0\1\x77x",
    "empty frames": lambda _: b"\0\0\0\0\2" * 100,
    "before hello": lambda _: _bare(codec.encode(Ping(1))),
    "nested lists": lambda _: _bare(b"\x91" * 90_000),
    "a map of maps": lambda _: _bare(b"\x81\xa1k" * 20_000),
    "a huge list announced": lambda _: _bare(b"\xdd\xff\xff\xff\xff"),
    "a huge string announced": lambda _: _bare(b"\xdb\xff\xff\xff\xffabc"),
    "not utf-8": lambda victim: _hello(victim, body=b"\x95\x01\xc4\x08tttttttt\xa2\xff\xfe\xa1t\x90"),
    "forged signature": lambda victim: _tampered(_hello(victim)),
    "sealed by another": lambda victim: _hello(victim, signer=Identity(b"o" * 32)),
    "for somebody else": lambda victim: _hello(Identity(b"o" * 32).node),
    "stale": lambda victim: _hello(victim, age_s=10_000),
    "from the future": lambda victim: _hello(victim, age_s=-10_000),
    "another swarm": lambda victim: _hello(victim, swarm=OTHER_SWARM),
    "hello twice": lambda victim: _hello(victim) + _hello(victim),
    "goodbye first": lambda victim: _hello(victim, body=codec.encode(Goodbye(True, "bye"))),
    "hello without envelope": lambda _: _bare(codec.encode(Hello(b"t" * 8, "mallory", "test", ()))),
}


# --- Who sends it -----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _attack() -> AsyncIterator[None]:
    """The node may cut an attacker off in whatever way; nor need it do so while he only holds his line."""
    with trio.move_on_after(ATTACK_S), suppress(BaseLibp2pError, DialError, OSError, trio.BrokenResourceError):
        yield


async def _rest(read: Callable[[], Any]) -> None:
    """Read what comes until it ends, for a moment."""
    with trio.move_on_after(0.05):
        while await read():
            pass


async def test_garbage_on_the_socket(victim: Solo) -> None:
    host, port = host_and_port(split(victim.addresses[0])[0])
    async with _probed(victim):
        for bad in ON_THE_SOCKET.values():
            for _ in range(3):
                async with _attack(), await trio.open_tcp_stream(host, port) as stream:
                    await stream.send_all(bad)
                    await _rest(stream.receive_some)


async def test_garbage_in_the_muxer(victim: Solo) -> None:
    async with _probed(victim), stranger_host(b"m" * 32) as host:
        for bad in IN_THE_MUXER.values():
            async with _attack():
                connection = await connected(host, victim.addresses[0])
                for at in range(0, len(bad), 60_000):
                    await connection.muxed_conn.secured_conn.write(bad[at : at + 60_000])
                await trio.sleep(0.05)
                await connection.close()


async def test_garbage_in_streams_and_services(victim: Solo) -> None:
    async with _probed(victim), stranger_host(b"m" * 32) as host:
        connection = await connected(host, victim.addresses[0])
        for bad in IN_A_STREAM.values():
            async with _attack():
                stream = await connection.new_stream()
                await stream.write(bad)
                await _rest(stream.read)
                await stream.reset()
        for _, service, bad in TO_A_SERVICE:
            async with _attack():
                stream = await opened(host, connection, [service])
                await stream.write(bad)
                await _rest(stream.read)
                await stream.reset()
        assert not connection.is_closed, "mere garbage in one stream costs the others nothing"


async def test_garbage_and_forgeries_on_the_wire(victim: Solo) -> None:
    node = node_from_text(victim.addresses[0].rsplit("/", 1)[1])
    async with _probed(victim), stranger_host(b"m" * 32) as host:
        for bad in ON_THE_WIRE.values():
            async with _attack():
                stream = await opened(host, await connected(host, victim.addresses[0]), [WIRE])
                await stream.write(bad(node))
                await _rest(stream.read)
                await stream.reset()


@asynccontextmanager
async def _probed(victim: Solo) -> AsyncIterator[None]:
    """The node serves an honest stranger before and after, and takes no lasting memory for what happens in between."""
    await _probe(victim)
    before = victim.rss_bytes()
    yield
    await _probe(victim)
    assert victim.process.poll() is None
    assert victim.rss_bytes() - before < GROWTH_BYTES_MAX


async def _probe(victim: Solo) -> None:
    node = node_from_text(victim.addresses[0].rsplit("/", 1)[1])
    with trio.fail_after(PROBE_S):
        async with stranger_host(GRACE) as host, trio.open_nursery() as nursery:
            connection = await connected(host, victim.addresses[0])
            pipe = StreamPipe(await opened(host, connection, [WIRE]), nursery)
            link = Link(Identity(GRACE), node, SWARM, Random())
            await pipe.write(link.hello("grace", "test", (), time.time()))
            received = await _messages(pipe, link)
            assert isinstance(received[0], Hello)
            await pipe.write(link.send(Ping(9), time.time()))
            while Pong(9) not in received:
                received = await _messages(pipe, link)
            nursery.cancel_scope.cancel()


async def _messages(pipe: StreamPipe, link: Link) -> list[object]:
    received: list[object] = []
    while not received:
        chunk = await pipe.read()
        if not chunk:
            raise PipeBroken("the node has ended an honest link")
        received += link.receive(chunk, time.time())
    return received
