"""Servers of the DHT that answer garbage, lie, or hang: counted by reason, bounded, and the true provider is found all the same."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest
import trio
import varint
from libp2p.kad_dht.pb.kademlia_pb2 import Message
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from node.libp2p import lookup
from node.libp2p.dht_mends import KAD
from node.libp2p.host import PEERS_REMEMBERED_MAX, Book, node_of, peer_of
from node.libp2p.lookup import (
    ASKED_MAX,
    GARBAGE,
    NOT_A_NODE,
    NOT_AN_ADDRESS,
    SERVER_SILENT,
    TOO_MANY_ADDRESSES,
    Dials,
    Lookup,
)
from node.transport_bench import Watched
from protocol.identity import Identity
from protocol.limits import ADDRESSES_MAX
from swarm.finding.regions import REGIONS
from tests.node.libp2p.scenarios import listening
from tests.node.libp2p.test_rendezvous import RARE, dht, found, found_at_last, meeting

pytestmark = pytest.mark.usefixtures("hurried")

DICE = Random(7)
PUBLIC = Multiaddr("/ip4/5.5.5.5/tcp/1")
Peers = list[tuple[bytes, list[bytes]]]


def somebody(number: int) -> bytes:
    return peer_of(Identity(number.to_bytes(32, "big")).node).to_bytes()


def answer(providers: Peers, closer: Peers = [], kind: Any = Message.MessageType.GET_PROVIDERS) -> bytes:  # noqa: B006
    message = Message(type=kind)
    for named, peers in ((message.providerPeers, providers), (message.closerPeers, closer)):
        for identity, addresses in peers:
            peer = named.add()
            peer.id = identity
            peer.addrs.extend(addresses)
    return framed(message.SerializeToString())


def framed(body: bytes) -> bytes:
    return varint.encode(len(body)) + body


MANY = [Multiaddr(f"/ip4/5.5.5.5/tcp/{port}").to_bytes() for port in range(1, 1_001)]
PRIVATE = [Multiaddr(f"/ip4/{host}/tcp/80").to_bytes() for host in ("192.168.1.1", "10.0.0.1", "169.254.169.254", "172.16.0.1")]

ANSWERS: dict[str, tuple[bytes, str]] = {
    "noise": (framed(DICE.randbytes(500)), GARBAGE),
    "endless length": (b"\xff" * 30, GARBAGE),
    "more than is read": (varint.encode(4_000_000) + bytes(100_000), GARBAGE),
    "another kind": (answer([(somebody(1), [PUBLIC.to_bytes()])], kind=Message.MessageType.FIND_NODE), GARBAGE),
    "half an answer": (framed(answer([(somebody(1), MANY[:5])]))[:40], SERVER_SILENT),
    "nothing": (b"", SERVER_SILENT),
    "names that are none": (answer([(DICE.randbytes(40), MANY[:1])] * 500, [(b"", [])] * 500), NOT_A_NODE),
    "names without end": (answer([(bytes(30_000), MANY[:1])], [(bytes(30_000), [])]), NOT_A_NODE),
    "an address without end": (answer([(somebody(1), [b"\xa5\x03\xe0\xd4\x03z" + b"2" * 59_999])]), NOT_AN_ADDRESS),
    "addresses that are none": (answer([(somebody(1), [DICE.randbytes(30)] * 5)] * 20), NOT_AN_ADDRESS),
    "a thousand addresses": (answer([(somebody(1), MANY)]), TOO_MANY_ADDRESSES),
    "private addresses": (answer([], [(somebody(number), PRIVATE) for number in range(20)]), "dht: private address"),
}


@asynccontextmanager
async def liar(seeker: Watched, seed: bytes, reply: bytes | Callable[[], bytes]) -> AsyncIterator[ID]:
    """A server that the seeker knows and that answers every question with this, and then hangs."""
    async with listening(seed) as host:

        async def serve(stream: Any) -> None:
            await stream.read(1)
            await stream.write(reply if isinstance(reply, bytes) else reply())
            await trio.sleep_forever()

        host.set_stream_handler(KAD, serve)
        addresses = tuple(str(address) for address in host.get_transport_addrs())
        await dht(seeker).met(node_of(host.get_id()), addresses)
        yield host.get_id()


@pytest.mark.parametrize("name", ANSWERS)
async def test_what_a_server_may_answer_is_counted_and_hides_nobody(name: str) -> None:
    """[DHT-8]"""
    reply, reason = ANSWERS[name]
    async with meeting((RARE,)) as (_, seeker, [worker]), liar(seeker, b"l" * 32, reply):
        contacts = await found_at_last(seeker, RARE, worker.node)
        assert worker.node in [contact.node for contact in contacts[:2]]
        assert all(len(contact.addresses) <= ADDRESSES_MAX for contact in contacts)
        while reason not in seeker.transport.counts.offences:
            await found_at_last(seeker, RARE, worker.node)
        others = [why for why in seeker.transport.counts.offences if why not in (reason, SERVER_SILENT)]
        assert not others, "and nothing else is held against anybody"


async def test_servers_that_hang_do_not_hold_up_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """[DHT-8] Even if each of them is waited for without end: there are fewer of them than are asked at once."""
    monkeypatch.setattr(lookup, "SERVER_S", float("inf"))
    async with meeting((RARE,)) as (_, seeker, [worker]), liar(seeker, b"l" * 32, b""), liar(seeker, b"m" * 32, b""):
        assert await found_at_last(seeker, RARE, worker.node)


async def test_a_server_cannot_lead_a_lookup_on_for_ever() -> None:
    """[DHT-8] However many nearer ones it names, who are all itself."""
    asked = 0

    def more() -> bytes:
        nonlocal asked
        asked += 1
        return answer([], [(somebody(1_000 * asked + number), [PUBLIC.to_bytes()]) for number in range(50)])

    async with meeting((RARE,)) as (_, seeker, _):
        rendezvous = dht(seeker)
        host = rendezvous._host
        looking = Lookup(host, _Answering(more), rendezvous._dht.routing_table, b"k" * 32, rendezvous._refuse)  # type: ignore[arg-type]
        await looking.run()
        assert 0 < asked <= ASKED_MAX
        assert len(host.get_peerstore().peer_ids()) <= PEERS_REMEMBERED_MAX + 1, "and its own"


class _Answering(Dials):
    """Every server is the same one."""

    def __init__(self, reply: Callable[[], bytes]) -> None:
        self._reply = reply

    async def connect(self, server: ID) -> Any:
        return self

    async def new_stream(self) -> Any:
        await trio.lowlevel.checkpoint()
        return _Canned(self._reply)


class _Canned:
    """A stream that agrees to every protocol and then gives one answer."""

    def __init__(self, reply: Callable[[], bytes]) -> None:
        self._out = b"".join(_line(text) for text in (b"/multistream/1.0.0", KAD.encode()))
        self._reply = reply
        self._writes = 0
        self.muxed_conn = None

    async def write(self, data: bytes) -> None:
        if b"kad" not in data and b"multistream" not in data:
            self._out += self._reply()

    async def read(self, count: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        out, self._out = self._out[:count], self._out[count:]
        return out

    async def close(self) -> None: ...

    async def reset(self) -> None: ...


def _line(text: bytes) -> bytes:
    return varint.encode(len(text) + 1) + text + b"\n"


def test_nobody_writes_an_address_into_the_book_that_leads_into_our_own_network() -> None:
    """[DHT-8]"""
    own = [Multiaddr("/ip4/8.8.8.8/tcp/4976")]
    book, peer = Book(lambda: own), ID(somebody(1))
    book.add_addrs(peer, [*map(Multiaddr, PRIVATE), Multiaddr("/ip4/127.0.0.1/tcp/1"), PUBLIC], 600)
    assert book.addrs(peer) == [PUBLIC]
    assert book.refused == 5
    book.add_addrs(ID(somebody(2)), [Multiaddr(PRIVATE[0])] * 1_000, 600)
    assert ID(somebody(2)) not in book.peer_ids()
    own[:] = [Multiaddr("/ip4/192.168.1.7/tcp/4976")]
    book.add_addrs(peer, [Multiaddr(PRIVATE[0])], 600)
    assert Multiaddr(PRIVATE[0]) in book.addrs(peer), "a neighbour in the same network"


async def test_a_server_that_was_too_busy_is_asked_once_more() -> None:
    """The library's own server cuts every question off beyond the twelfth at a time."""
    reply = answer([(somebody(1), [PUBLIC.to_bytes()])])
    cut: list[Any] = []

    async with meeting() as (_, seeker, _), listening(b"l" * 32) as busy:

        async def serve(stream: Any) -> None:
            await stream.read(1)
            if len(cut) < REGIONS:
                cut.append(stream)
                await stream.reset()
            else:
                await stream.write(reply)

        busy.set_stream_handler(KAD, serve)
        addresses = tuple(str(address) for address in busy.get_transport_addrs())
        await dht(seeker).met(node_of(busy.get_id()), addresses)
        [contact] = await found(seeker, RARE)
        assert contact.node == node_of(ID(somebody(1)))
        assert len(cut) == REGIONS
