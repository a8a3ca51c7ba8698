"""Mends for the Kad-DHT of py-libp2p 0.8.1 and its peer book, in the manner of `mends`."""

from collections.abc import Callable, Sequence
from typing import Any

import libp2p.host.basic_host as basic_host
import libp2p.kad_dht.common as common
import libp2p.kad_dht.kad_dht as kad_dht
import libp2p.kad_dht.peer_routing as peer_routing
import libp2p.kad_dht.provider_store as provider_store
import libp2p.kad_dht.value_store as value_store
import trio
from libp2p.custom_types import TProtocol
from libp2p.kad_dht.kad_dht import KadDHT
from libp2p.kad_dht.provider_store import ProviderStore
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from libp2p.peer.peerstore import PeerStore
from multiaddr import Multiaddr

from node.libp2p.turns import Turns
from protocol.limits import ADDRESSES_MAX

KAD = TProtocol("/starlings/kad/1")
RECORD_S = 30 * 60  # Three missed renewals; a node that left is forgotten within half an hour.
KEYS_MAX = 4_096  # Skills of this and other swarms that this node keeps records for: about 4 MB if all are full.
PROVIDERS_PER_KEY_MAX = 20  # The library's own bound (Kademlia's k).
MESSAGE_BYTES_MAX = 64 * 1024  # Forty peers with a signed record and eight addresses each take half of it.
INTRODUCTION_BYTES_MAX = 8 * 1024  # Ours takes 700 bytes, that of a large public node about 4 KiB.
INBOUND_MAX = 12  # Streams of questions at once, as in the library; each takes some milliseconds of everybody.
INBOUND_S = 30.0  # For one of them.

_MODULES = (common, kad_dht, peer_routing, provider_store, value_store)


def protocol_is_our_own() -> None:
    """Name the protocol /starlings/kad/1. `KadDHT(protocol_prefix=…)` is ignored, so every node would join the public
    IPFS network. Each module has its own copy of the constant."""
    for module in _MODULES:
        module.PROTOCOL_ID = KAD


def messages_are_small() -> None:
    """Refuse messages over 64 KiB: stock reads up to 4 MiB from any stranger, twelve at a time."""
    for module in _MODULES:
        module.MAX_DHT_MESSAGE_SIZE = MESSAGE_BYTES_MAX


def provider_records_stay_fresh() -> None:
    """Let records expire after half an hour and let the newest replace the oldest: stock keeps the first twenty of a
    key for 48 hours, so the dead shut the living out, and it keeps any number of keys with any number of addresses."""
    provider_store.PROVIDER_RECORD_EXPIRATION_INTERVAL = RECORD_S
    add = ProviderStore.add_provider

    def add_provider(self: ProviderStore, key: bytes, provider: PeerInfo) -> None:
        records = self.providers.get(key)
        if records is None and len(self.providers) >= KEYS_MAX:
            _drop_oldest(self.providers, lambda held: max((r.timestamp for r in held.values()), default=0.0))
        elif records is not None and len(records) >= PROVIDERS_PER_KEY_MAX and str(provider.peer_id) not in records:
            _drop_oldest(records, lambda record: record.timestamp)
        add(self, key, PeerInfo(provider.peer_id, provider.addrs[:ADDRESSES_MAX]))

    ProviderStore.add_provider = add_provider


def _drop_oldest(table: dict[Any, Any], age: Callable[[Any], float]) -> None:
    del table[min(table, key=lambda key: age(table[key]))]


def silent_askers_give_way() -> None:
    """Cut the oldest stream of whoever has most of them when another comes: stock refuses every new one while twelve are
    open, and waits for ever, so twelve silent streams make a DHT server deaf."""

    async def handle(self: KadDHT, stream: Any) -> None:
        turns: Turns = self.__dict__.setdefault("turns", Turns(INBOUND_MAX))
        with turns.taken(str(stream.muxed_conn.peer_id)), trio.move_on_after(INBOUND_S):
            await self._do_handle_stream(stream)
            return
        await stream.reset()

    KadDHT.handle_stream = handle


def own_keys_are_never_evicted() -> None:
    """Keep our own entry when the peer book is full: stock evicts entries without addresses first, and that is our own,
    so a node that has met enough strangers loses its private key and can sign nothing any more."""
    enforce = PeerStore._enforce_peer_limit

    def without_our_own(self: PeerStore) -> None:
        own = {peer: data for peer, data in self.peer_data_map.items() if data.privkey is not None}
        for peer in own:
            del self.peer_data_map[peer]
        enforce(self)
        self.peer_data_map.update(own)

    PeerStore._enforce_peer_limit = without_our_own


def peers_have_few_addresses() -> None:
    """Remember eight addresses of a peer: stock takes a thousand from each stranger and compares each with each, which
    costs 30 ms in which the node does nothing else, and as many again whenever he comes back."""
    add = PeerStore.add_addrs

    def add_addresses(self: PeerStore, peer_id: ID, addresses: Sequence[Multiaddr], ttl: int = 0) -> None:
        known = self.peer_data_map.get(peer_id)
        room = ADDRESSES_MAX - (0 if known is None else len(known.addrs))
        add(self, peer_id, list(addresses)[: max(0, room)], ttl)

    PeerStore.add_addrs = add_addresses


def introductions_are_small() -> None:
    """Read at most 8 KiB of what a peer says of itself by identify: stock reads and remembers a megabyte of each, and
    what is longer than that in another way."""
    read = basic_host.read_length_prefixed_protobuf

    async def read_small(stream: Any, use_varint_format: bool = True) -> bytes:
        try:
            return await read(stream, use_varint_format, INTRODUCTION_BYTES_MAX)
        except Exception:  # Anything raised here makes the library read on without a bound.
            return b""

    basic_host.read_length_prefixed_protobuf = read_small


MENDS: tuple[Callable[[], None], ...] = (
    protocol_is_our_own,
    messages_are_small,
    provider_records_stay_fresh,
    silent_askers_give_way,
    own_keys_are_never_evicted,
    peers_have_few_addresses,
    introductions_are_small,
)
