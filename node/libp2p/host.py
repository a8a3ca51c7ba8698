"""Builds the libp2p host with every choice made explicitly: TCP, Noise and yamux, nothing else, all of it bounded."""

import logging
from collections.abc import Callable, Sequence
from typing import Final, cast

from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_new_x25519_key_pair
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.identity.identify_push.identify_push import ID_PUSH
from libp2p.network.config import ConnectionConfig, RetryConfig
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStore
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE_ID
from libp2p.security.noise.transport import Transport as Noise
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX_ID
from libp2p.stream_muxer.yamux.yamux import Yamux
from libp2p.transport.tcp.tcp import TCP
from libp2p.transport.upgrader import TransportUpgrader
from multiaddr import Multiaddr

from node.libp2p import mends
from protocol.identity import NodeId, node_from_text, node_text
from swarm.finding.places import dialable

CONNECTIONS_MAX = 128  # A dozen links, the DHT's lookups, and strangers who have not said what they want: about 10 MB.
HANDSHAKE_S = 8  # A stranger that has not finished by then is cut; our own diallers give up sooner.
ADDRESSES_READ_MAX = 16  # Of one peer at once; half as many are remembered.
PEERS_REMEMBERED_MAX = 512  # Addresses and keys in the library's book; ours is the roster.


def build_host(identity_seed: bytes, announced: Callable[[], list[Multiaddr]]) -> BasicHost:
    """A host that is not running yet. `announced` tells the addresses that others may dial."""
    mends.apply()
    keys = create_new_key_pair(identity_seed)
    noise = Noise(keys, noise_privkey=create_new_x25519_key_pair().private_key)
    peerstore = Book(announced, max_records=PEERS_REMEMBERED_MAX, max_peers=PEERS_REMEMBERED_MAX)
    peer_id = ID.from_pubkey(keys.public_key)
    peerstore.add_key_pair(peer_id, keys)
    swarm = Swarm(
        peer_id,
        peerstore,
        # Left to itself the library also accepts plaintext.
        TransportUpgrader({TProtocol(NOISE_ID): noise}, {TProtocol(YAMUX_ID): Yamux}, HANDSHAKE_S),
        [TCP()],
        retry_config=RetryConfig(max_retries=0),
        connection_config=ConnectionConfig(
            max_connections=CONNECTIONS_MAX,
            min_connections=0,
            low_watermark=0,  # With the next two: the library never dials on its own.
            high_watermark=CONNECTIONS_MAX,
            auto_connect_interval=24 * 3600.0,
            inbound_upgrade_timeout=HANDSHAKE_S,
            outbound_upgrade_timeout=HANDSHAKE_S,
            inbound_stream_protocol_negotiation_timeout=HANDSHAKE_S,
            outbound_stream_protocol_negotiation_timeout=HANDSHAKE_S,
        ),
    )
    # No resource manager: it leaks what it counts, and the bounds above and in `connections` do the work.
    host = BasicHost(
        swarm,
        negotiate_timeout=HANDSHAKE_S,
        addrs_factory=lambda _: announced(),
        disable_identify_address_discovery=True,
    )
    host.remove_stream_handler(ID_PUSH)  # Nobody needs to rewrite our book unasked.
    return host


# At import the library takes its logger out of the program's logging; whoever configures that should still decide.
logging.getLogger("libp2p").propagate = True


class Book(PeerStore):
    """The library's book of addresses, which strangers write into: servers of the DHT name peers, and everybody names itself.

    Nobody can write an address into it that would send this node into its own machine or network; names are resolved first
    when they are dialled.
    """

    def __init__(self, announced: Callable[[], list[Multiaddr]], **bounds: int) -> None:
        super().__init__(**bounds)
        self._announced = announced
        self.refused = 0

    @property
    def near(self) -> tuple[str, ...] | None:
        """Where this node is, if it listens anywhere; see `dialling.Target`."""
        # A host that announces nothing listens nowhere: a client that dials what its user has chosen.
        return tuple(str(address) for address in self._announced()) or None

    def add_addrs(self, peer_id: ID, addrs: Sequence[Multiaddr], ttl: int = 0) -> None:
        near, told = self.near, list(addrs)[:ADDRESSES_READ_MAX]
        kept = [address for address in told if near is None or dialable((str(address),), near)]
        self.refused += len(told) - len(kept)
        if kept or not told:
            super().add_addrs(peer_id, kept, ttl)


class _Hush:
    """Keeps the library from logging while a host runs: any stranger can make it warn, with a traceback, at will."""

    def __init__(self) -> None:
        self._running = 0
        self._level = logging.NOTSET

    def __enter__(self) -> None:
        logger = logging.getLogger("libp2p")
        if not self._running:
            self._level = logger.level
            logger.setLevel(logging.CRITICAL)
        self._running += 1

    def __exit__(self, *_: object) -> None:
        self._running -= 1
        if not self._running:
            logging.getLogger("libp2p").setLevel(self._level)


HUSHED: Final = _Hush()


def network_of(host: BasicHost) -> Swarm:
    """The host's network, by its true type."""
    return cast(Swarm, host.get_network())


def peer_of(node: NodeId) -> ID:
    """The libp2p peer id of a node."""
    return ID.from_base58(node_text(node))


def node_of(peer: ID) -> NodeId:
    """The node behind a libp2p peer id. Raises ValueError for keys other than Ed25519."""
    return node_from_text(str(peer))
