"""One question to the DHT, who provides a key, put to the servers nearest to it, each for itself and none for long.

The library's own lookup first walks to the key, waits ten seconds for every silent server, and takes the first twenty names
that it is told: a few liars or frozen machines near a key are the end of it. Here silent servers cost a place among several for
two seconds, answers are kept by server, and what is garbage in them is counted and left out.
"""

from collections.abc import Callable
from typing import Any

import trio
from libp2p.exceptions import ParseError
from libp2p.host.basic_host import BasicHost
from libp2p.io.exceptions import MessageTooLarge
from libp2p.kad_dht.pb.kademlia_pb2 import Message
from libp2p.kad_dht.routing_table import RoutingTable
from libp2p.kad_dht.utils import sort_peer_ids_by_distance
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.peer.peerstore import env_to_send_in_RPC
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.utils.varint import encode_uvarint, read_varint_prefixed_bytes_limited
from multiaddr import Multiaddr

from node.libp2p.dht_mends import KAD, MESSAGE_BYTES_MAX
from node.libp2p.host import HANDSHAKE_S, node_of
from protocol.limits import ADDRESSES_MAX
from swarm.finding.places import fits
from swarm.finding.regions import PROVIDERS_MAX
from swarm.values import Contact

NEAREST = 20  # Kademlia's k: so many servers hold a record.
ASKED_MAX = 28  # Servers of one lookup: the nearest, and those that were near before nearer ones were known.
AT_ONCE = 6  # Five may hang, and the sixth still brings the answer.
SERVER_S = 2.0  # For one server, dial included. The member waits three seconds for a worker.
ENOUGH_SERVERS = 6  # That have named providers, PROVIDERS_MAX of them between them: what many provide needs no long search.
AGAIN_S = 0.2  # Until a server that was too busy is asked once more.
CLOSE_S = 1.0  # To take leave of one.
CLOSER_MAX = 20  # Servers that one server may name.
BOOK_S = 3600  # How long their addresses are kept.

GARBAGE, NOT_A_NODE, NOT_AN_ADDRESS = "dht: garbage", "dht: not a node", "dht: not an address"
TOO_MANY_ADDRESSES, SERVER_SILENT = "dht: too many addresses", "dht: server does not answer"


class Dials:
    """Connections to servers, which lookups that run together share: each server is dialled once."""

    def __init__(self, network: Swarm) -> None:
        self._network = network
        self._locks: dict[ID, trio.Lock] = {}

    async def connect(self, server: ID) -> Any:
        """A connection that is open. Raises whatever a dial may raise."""
        async with self._locks.setdefault(server, trio.Lock()):
            return (await self._network.dial_peer(server))[0]


class Lookup:
    """Runs once. `answers` holds what each server has named so far; it may be read at any time."""

    def __init__(
        self, host: BasicHost, dials: Dials, table: RoutingTable, key: bytes, refuse: Callable[[str], None]
    ) -> None:
        """`refuse` counts what was not believed, by reason."""
        self._host, self._dials, self._table, self._key, self._refuse = host, dials, table, key, refuse
        self._own = host.get_id()
        self._known = [peer for peer in table.find_local_closest_peers(key, NEAREST) if peer != self._own]
        self._told: dict[ID, None] = {}
        self._asked: dict[ID, None] = {}
        self._asking = 0
        self._changed = trio.Event()
        self.answers: list[list[Contact]] = []

    async def run(self) -> None:
        """Ask until the nearest servers that are known have all been asked."""
        async with trio.open_nursery() as nursery:
            for _ in range(AT_ONCE):
                nursery.start_soon(self._ask_on)

    async def _ask_on(self) -> None:
        while True:
            server = self._next()
            if server is None and not self._asking:
                return
            if server is None:
                await self._changed.wait()
                continue
            self._asked[server] = None
            self._asking += 1
            try:
                if not await self._ask(server):
                    await trio.sleep(AGAIN_S)
                    await self._ask(server)
            finally:
                self._asking -= 1
                self._changed.set()
                self._changed = trio.Event()

    def _next(self) -> ID | None:
        """The nearest that was not asked; every other one is a server that this node knew before.

        Whoever is asked may name servers that are all liars and sit nearer than any other.
        """
        if len(self._asked) >= ASKED_MAX or self._is_enough():
            return None
        seen = list(dict.fromkeys((*self._known, *self._told)))
        nearest = [peer for peer in sort_peer_ids_by_distance(self._key, seen)[:NEAREST] if peer not in self._asked]
        known = [peer for peer in self._known if peer not in self._asked]
        chosen = known or nearest if len(self._asked) % 2 else nearest or known
        return chosen[0] if chosen else None

    def _is_enough(self) -> bool:
        named = [answer for answer in self.answers if answer]
        return len(named) >= ENOUGH_SERVERS and len({each.node for answer in named for each in answer}) >= PROVIDERS_MAX

    async def _ask(self, server: ID) -> bool:
        """False: it has cut the question off, as servers do that have too many, and may be asked again."""
        stream: Any = None
        body: bytes | None = None
        try:
            with trio.move_on_after(SERVER_S):
                stream = await (await self._dials.connect(server)).new_stream()
                await self._host.multiselect_client.select_one_of([KAD], MultiselectCommunicator(stream), HANDSHAKE_S)
                await stream.write(_question(self._host, self._key))
                body = await read_varint_prefixed_bytes_limited(stream, MESSAGE_BYTES_MAX)
        except (MessageTooLarge, ParseError):
            self._refuse(GARBAGE)
        except Exception:  # Unreachable, too busy or no server any more: as good as no answer.
            if stream is None:
                self._table.remove_peer(server)
            return stream is None
        else:
            if body is not None:
                self._take(body)
            elif stream is not None:
                self._refuse(SERVER_SILENT)
        finally:
            if stream is not None:
                with trio.move_on_after(CLOSE_S, shield=True):
                    await (stream.reset() if body is None else stream.close())
        return True

    def _take(self, body: bytes) -> None:
        try:
            message = Message()
            message.ParseFromString(body)
        except Exception:
            self._refuse(GARBAGE)
            return
        if message.type != Message.MessageType.GET_PROVIDERS:
            self._refuse(GARBAGE)
            return
        named = [contact_of(*peer) for told in message.providerPeers[:PROVIDERS_MAX] if (peer := self._read(told))]
        self.answers.append([contact for contact in named if contact is not None])
        for told in message.closerPeers[:CLOSER_MAX]:
            peer = self._read(told)
            if peer is not None and peer[0] != self._own:
                if peer[1]:
                    self._host.get_peerstore().add_addrs(peer[0], peer[1], BOOK_S)
                self._told[peer[0]] = None

    def _read(self, told: Any) -> tuple[ID, list[Multiaddr]] | None:
        """A peer that a server names, with those of its addresses that are such; None if it cannot be a node."""
        try:
            peer = ID(told.id)
            node_of(peer)
        except ValueError:
            self._refuse(NOT_A_NODE)
            return None
        if len(told.addrs) > ADDRESSES_MAX:
            self._refuse(TOO_MANY_ADDRESSES)
        found = []
        for raw in told.addrs[:ADDRESSES_MAX]:
            try:
                address = Multiaddr(raw)
                if not fits(str(address)):
                    raise ValueError("too long")
            except Exception:  # The library raises whatever it meets while it parses.
                self._refuse(NOT_AN_ADDRESS)
                continue
            found.append(address)
        return peer, found


def contact_of(peer: ID, addresses: list[Multiaddr]) -> Contact | None:
    """Where a node can be dialled; None for a peer that is no node, or has no address."""
    try:
        node = node_of(peer)
    except ValueError:
        return None
    texts = [str(address) for address in addresses[:ADDRESSES_MAX]]
    named = (text if text.endswith(f"/p2p/{peer}") else f"{text}/p2p/{peer}" for text in texts)  # Circuits name their relay, too.
    fitting = tuple(text for text in named if fits(text) and text.rpartition("/p2p-circuit")[2].count("/p2p/") == 1)
    return Contact(node, fitting) if fitting else None


def _question(host: BasicHost, key: bytes) -> bytes:
    message = Message(type=Message.MessageType.GET_PROVIDERS, key=key, senderRecord=env_to_send_in_RPC(host)[0])
    body = message.SerializeToString()
    return encode_uvarint(len(body)) + body
