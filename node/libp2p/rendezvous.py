"""The DHT as a meeting place: provider records keyed by swarm and skill, and the questions who provides one.

Records say only where somebody may be asked; adverts and the node itself say what it can do now. Everything here is
bounded in time and repeats itself at leisure, so that an idle node spends next to nothing on it.
"""

import logging
from collections.abc import Callable
from hashlib import sha256
from random import Random

import trio
from libp2p.host.basic_host import BasicHost
from libp2p.kad_dht.kad_dht import DHTMode, KadDHT
from libp2p.kad_dht.provider_store import ProviderStore
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from libp2p.records.validator import NamespacedValidator
from libp2p.tools.anyio_service import background_trio_service
from multiaddr import Multiaddr

from node.libp2p.host import node_of, peer_of
from protocol.identity import NodeId
from protocol.limits import ADDRESS_BYTES_MAX, ADDRESSES_MAX
from swarm.events import ContactsFound
from swarm.finding.places import is_relayed
from swarm.values import Contact

DOMAIN = b"starlings/1/provide\0"
RENEW_S = 600.0  # A third of the records' life, see `dht_mends.RECORD_S`.
PROVIDE_PAUSE_S = 1.2  # Servers take ten records from one peer in ten seconds.
EARLY_S = 2.0  # After the first peer is met; alone there is nobody to tell.
LOOKUP_S = 10.0  # The member's patience; a lookup among a few dozen nodes takes half a second.
LOOKUPS_MAX = 4  # At once; more are answered from what is known here, for the member asks again.
PROVIDERS_MAX = 20
BOOK_S = 3600  # How long addresses of neighbours are kept for others who ask for close peers.

log = logging.getLogger(__name__)


def key_of(swarm: bytes, skill: str) -> bytes:
    """Where in the key space the providers of a skill are written down. The empty skill stands for membership."""
    return sha256(DOMAIN + swarm + skill.encode()).digest()


class Rendezvous:
    """One node's part in the DHT, always as a server."""

    def __init__(
        self,
        host: BasicHost,
        swarm: bytes,
        own: NodeId,
        dice: Random,
        post: Callable[[ContactsFound], None],
        nursery: trio.Nursery,
    ) -> None:
        """`nursery` runs the lookups."""
        self._nursery = nursery
        self._host, self._swarm, self._own, self._dice, self._post = host, swarm, own, dice, post
        # No values: a validator that knows no namespace refuses all of them. Stock stores 50,000 of up to 1 MiB each.
        self._dht = KadDHT(
            host,
            DHTMode.SERVER,
            validator=NamespacedValidator({}, strict_validation=True),
            validator_changed=True,
            strict_validation=True,
            max_peers_per_subnet=0,  # A household or a laboratory is one subnet.
        )
        self._skills: tuple[str, ...] = ()
        self._wanted = trio.Event()  # Something to provide has changed.
        self._met = trio.Event()
        self._lookups = 0

    async def run(self) -> None:
        """Serve, and publish whatever `provide` has been told, until cancelled."""
        async with background_trio_service(self._dht):
            await self._met.wait()
            await trio.sleep(EARLY_S * self._dice.uniform(0.25, 1.0))
            while True:
                self._wanted = trio.Event()
                for skill in ("", *self._skills):
                    await self._publish(skill)
                    await trio.sleep(PROVIDE_PAUSE_S)
                with trio.move_on_after(RENEW_S * self._dice.uniform(0.8, 1.0)):
                    await self._wanted.wait()

    async def met(self, node: NodeId, addresses: tuple[str, ...]) -> None:
        """A neighbour is there: it takes part in the DHT too."""
        peer = peer_of(node)
        self._host.get_peerstore().add_addrs(peer, _dialable(addresses), BOOK_S)
        await self._dht.add_peer(peer, skip_server_mode_check=True)
        self._met.set()

    def provide(self, skills: tuple[str, ...]) -> None:
        """Publish these from now on, and no others any more; what others hold of those expires."""
        store = self._dht.provider_store
        for skill in self._skills:
            if skill not in skills:
                key = key_of(self._swarm, skill)
                store.providing_keys.discard(key)
                store.providers.get(key, {}).pop(str(peer_of(self._own)), None)
        if skills != self._skills:
            self._skills = skills
            self._wanted.set()

    def find(self, skill: str) -> None:
        """Ask the network; ContactsFound follows, empty if nobody was found in time."""
        self._nursery.start_soon(self._find, skill)

    async def _find(self, skill: str) -> None:
        key = key_of(self._swarm, skill)
        found: list[PeerInfo] = []
        answered = trio.Event()
        if self._lookups < LOOKUPS_MAX:
            self._lookups += 1
            self._nursery.start_soon(self._ask, key, found, answered)
            with trio.move_on_after(
                LOOKUP_S
            ):  # The lookup itself goes on; the library bounds it, and it is not cancelled.
                await answered.wait()
        contacts: dict[NodeId, Contact] = {}
        for provider in (*found, *self._dht.provider_store.get_providers(key)):
            contact = _contact(provider)
            if contact is not None and contact.node is not None and contact.node != self._own:
                contacts.setdefault(contact.node, contact)
        self._post(ContactsFound("dht", skill, tuple(contacts.values())[:PROVIDERS_MAX]))

    async def _ask(self, key: bytes, found: list[PeerInfo], answered: trio.Event) -> None:
        # The DHT's own store answers from the records that it holds for others, whatever their age; an empty one asks.
        asking = ProviderStore(self._host, self._dht.peer_routing)
        try:
            found += await asking.find_providers(key, PROVIDERS_MAX)
        except Exception as error:  # Strangers' answers; the lookup came to nothing.
            log.debug("lookup failed: %r", error)
        finally:
            self._lookups -= 1
            answered.set()

    async def _publish(self, skill: str) -> None:
        try:
            await self._dht.provider_store.provide(key_of(self._swarm, skill))
        except Exception as error:
            log.debug("publishing failed: %r", error)


def _contact(provider: PeerInfo) -> Contact | None:
    try:
        node = node_of(provider.peer_id)
    except ValueError:
        return None
    texts = [str(address) for address in provider.addrs[:ADDRESSES_MAX]]
    return Contact(node, tuple(_with_peer(text, provider.peer_id) for text in texts if len(text) <= ADDRESS_BYTES_MAX))


def _with_peer(text: str, peer: ID) -> str:
    return text if text.endswith(f"/p2p/{peer}") else f"{text}/p2p/{peer}"


def _dialable(addresses: tuple[str, ...]) -> list[Multiaddr]:
    found = []
    for text in addresses:
        if is_relayed(text):
            continue  # The DHT has better nodes to ask than those behind relays.
        try:
            found.append(Multiaddr(text.split("/p2p/")[0]))
        except Exception:  # A peer may claim anything to be its address.
            log.debug("not a multiaddress: %r", text)
    return found
