"""Faults of py-libp2p's DHT and peer book, each as a scenario named after its mend in `node.libp2p.dht_mends`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import base58
import multiaddr.codecs.cid as cid
import trio
import varint
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.identity.identify.identify import ID as IDENTIFY
from libp2p.identity.identify.pb.identify_pb2 import Identify
from libp2p.kad_dht.kad_dht import DHTMode, KadDHT
from libp2p.kad_dht.pb.kademlia_pb2 import Message as KadMessage
from libp2p.kad_dht.provider_store import ProviderStore
from libp2p.network.stream.exceptions import StreamEOF, StreamReset
from libp2p.peer.envelope import ENVELOPE_DOMAIN, PEER_RECORD_CODEC, Envelope, make_unsigned
from libp2p.peer.id import ID
from libp2p.peer.pb.peer_record_pb2 import PeerRecord as PeerRecordMessage
from libp2p.peer.peerinfo import PeerInfo
from libp2p.peer.peerstore import PeerStore
from libp2p.protocol_muxer.exceptions import MultiselectClientError
from multiaddr import Multiaddr

from node.libp2p import dht_mends
from protocol.limits import ADDRESSES_MAX
from tests.node.libp2p.muxer_faults import read_to_the_end
from tests.node.libp2p.scenarios import SOON_S, Pair, dialled, listening, pair, scenario
from tests.node.libp2p.strangers import opened, stranger_host


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
            await read_to_the_end(stream)


@scenario("bytes were turned into text")
async def strangers_names_are_short() -> None:
    longest = 0

    def measured(value: bytes) -> bytes:
        nonlocal longest
        longest = max(longest, len(value))
        return encode(value[:100])

    def parsed(value: bytes) -> None:
        nonlocal longest
        longest = max(longest, len(value))
        raise ValueError

    async with dht_pair() as both:
        encode, base58.b58encode = base58.b58encode, measured
        parse, cid.cid.from_bytes = cid.cid.from_bytes, parsed
        try:
            message = KadMessage(type=KadMessage.ADD_PROVIDER, key=b"k" * 32, senderRecord=_record(b"a" * 32))
            message.providerPeers.add().id = bytes(1_000)
            await _ask(both, message)
        finally:
            base58.b58encode, cid.cid.from_bytes = encode, parse
        assert longest < 300, f"{longest} bytes were turned into text"


def _record(seed: bytes) -> bytes:
    """What a peer says of itself under its signature, with one address that goes on and on."""
    keys = create_new_key_pair(seed)
    address = b"\xa5\x03\xe9\x07z" + b"2" * 1_000  # /p2p/, and the text of a number.
    told = PeerRecordMessage(peer_id=ID.from_pubkey(keys.public_key).to_bytes(), seq=2**62)
    told.addresses.add().multiaddr = address
    payload = told.SerializeToString()
    unsigned = make_unsigned(ENVELOPE_DOMAIN, PEER_RECORD_CODEC, payload)
    return Envelope(keys.public_key, PEER_RECORD_CODEC, payload, keys.private_key.sign(unsigned)).marshal_envelope()


async def _ask(both: Pair, message: KadMessage) -> None:
    """Put a question to Bob's DHT, and wait until he has answered or cut it off."""
    stream = await opened(both.alice, both.outgoing, [dht_mends.KAD])
    body = message.SerializeToString()
    await stream.write(varint.encode(len(body)) + body)
    with trio.fail_after(SOON_S), suppress(StreamEOF, StreamReset):
        await stream.read(1_000)
    await stream.reset()


@scenario("the DHT is deaf")
async def silent_askers_give_way() -> None:
    async with dht_pair() as both, stranger_host(b"s" * 32) as honest:
        for _ in range(dht_mends.INBOUND_MAX + 3):
            with suppress(MultiselectClientError):
                await opened(both.alice, both.outgoing, [dht_mends.KAD])
        answer = b""
        with trio.move_on_after(SOON_S), suppress(Exception):
            stream = await opened(honest, await dialled(honest, both.bob), [dht_mends.KAD])
            for _ in range(dht_mends.INBOUND_MAX):  # More of the silent ones only take each other's place.
                await opened(both.alice, both.outgoing, [dht_mends.KAD])
            await stream.write(b"\x02\x08\x05")  # PING
            answer = await stream.read(100)
        assert answer, "the DHT is deaf"
    patience_s, dht_mends.INBOUND_S = dht_mends.INBOUND_S, 0.3
    try:
        async with dht_pair() as both:
            with trio.fail_after(SOON_S):
                await read_to_the_end(await opened(both.alice, both.outgoing, [dht_mends.KAD]))
    finally:
        dht_mends.INBOUND_S = patience_s


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
        assert len(held[0].addrs) <= ADDRESSES_MAX
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


@scenario("addresses of one peer")
async def peers_have_few_addresses() -> None:
    book = PeerStore()
    peer = _peer(1)
    addresses = [Multiaddr(f"/ip4/192.0.2.7/tcp/{port}") for port in range(1, 1_000)]
    book.add_addrs(peer, addresses[:500], 600)
    for address in addresses:
        book.add_addr(peer, address, 600)
    assert book.addrs(peer)[0] == addresses[0]
    assert len(book.addrs(peer)) <= ADDRESSES_MAX, f"{len(book.addrs(peer))} addresses of one peer"


@scenario("protocols are remembered")
async def introductions_are_small() -> None:
    async with listening(b"a" * 32) as alice, listening() as bob:
        told = trio.Event()

        async def boast(stream: Any) -> None:
            body = Identify(protocols=[f"/boast/{number}" for number in range(20_000)]).SerializeToString()
            told.set()
            await stream.write(varint.encode(len(body)) + body)
            await stream.close()

        bob.set_stream_handler(IDENTIFY, boast)
        await dialled(alice, bob)
        with trio.fail_after(SOON_S):
            await told.wait()
        await trio.sleep(1.0)
        remembered = (
            alice.get_peerstore().get_protocols(bob.get_id()) if alice.get_peerstore().has_peer(bob.get_id()) else []
        )
        assert len(remembered) < 1_000, f"{len(remembered)} protocols are remembered"


def _peer(number: int) -> ID:
    return ID.from_pubkey(create_new_key_pair(number.to_bytes(32, "big")).public_key)
