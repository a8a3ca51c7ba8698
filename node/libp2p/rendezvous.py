"""The DHT as a meeting place: provider records by swarm, subject and region, and the questions who provides one.

Records say only where somebody may be asked; adverts and the node itself say what it can do now. Everything here is
bounded in time and repeats itself at leisure, so that an idle node spends next to nothing on it.
"""

import logging
from collections.abc import Callable
from random import Random

import trio
from libp2p.host.basic_host import BasicHost
from libp2p.kad_dht.kad_dht import DHTMode, KadDHT
from libp2p.records.validator import NamespacedValidator
from libp2p.tools.anyio_service import background_trio_service
from multiaddr import Multiaddr

from node.libp2p.host import Book, network_of, peer_of
from node.libp2p.lookup import BOOK_S, Dials, Lookup, contact_of
from protocol.identity import NodeId
from swarm.events import ContactsFound
from swarm.finding.places import is_relayed
from swarm.finding.regions import REGIONS, alternately, joined, key_of
from swarm.values import MEMBERSHIP, Contact, Subject

RENEW_S = 600.0  # A third of the records' life, see `dht_mends.RECORD_S`.
RENEW_FIRST_S = 60.0  # Doubles up to RENEW_S: a young node, or a young swarm, has met few of the servers nearest to a key.
PROVIDE_PAUSE_S = 1.2  # Servers take ten records from one peer in ten seconds.
EARLY_S = 2.0  # After the first peer is met; alone there is nobody to tell.
MEET_S = 0.5  # How long a lookup waits for somebody to ask.
LOOKS_S = (0.3, 0.5, 0.9, 1.3, 7.0)  # What was found so far is told after each, for a task waits three seconds in all.
LOOKUPS_MAX = 4  # At once; more are answered from what is known here, for the member asks again.

log = logging.getLogger(__name__)

_Record = tuple[int, Subject]


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
        self._subjects: tuple[Subject, ...] = ()
        self._due_at: dict[_Record, float] = {}  # When a record is to be published again. One that is missing: now.
        self._wait_s: dict[_Record, float] = {}
        self._wanted = trio.Event()  # Something to provide has changed.
        self._met = trio.Event()
        self._lookups = 0
        self._refused: dict[str, int] = {}

    @property
    def refused(self) -> dict[str, int]:
        """What servers have told and was not believed, by reason."""
        book = self._host.get_peerstore()
        private = {"dht: private address": book.refused} if isinstance(book, Book) and book.refused else {}
        return {**self._refused, **private}

    async def run(self) -> None:
        """Serve, and publish whatever `provide` has been told, until cancelled."""
        async with background_trio_service(self._dht):
            await self._met.wait()
            await trio.sleep(EARLY_S * self._dice.uniform(0.25, 1.0))
            while True:
                self._wanted = trio.Event()
                record, at = self._next_record()
                if at <= trio.current_time():
                    await self._publish(record)
                    await trio.sleep(PROVIDE_PAUSE_S)
                else:
                    with trio.move_on_at(at):
                        await self._wanted.wait()

    async def met(self, node: NodeId, addresses: tuple[str, ...]) -> None:
        """A neighbour is there: it takes part in the DHT too."""
        peer = peer_of(node)
        self._host.get_peerstore().add_addrs(peer, _dialable(addresses), BOOK_S)
        await self._dht.add_peer(peer, skip_server_mode_check=True)
        self._met.set()

    def provide(self, subjects: tuple[Subject, ...]) -> None:
        """Publish these from now on, and no others any more; what others hold of those expires."""
        store = self._dht.provider_store
        for subject in self._subjects:
            for region in range(REGIONS) if subject not in subjects else ():
                key = key_of(self._swarm, subject, region)
                store.providing_keys.discard(key)
                store.providers.get(key, {}).pop(str(peer_of(self._own)), None)
                self._due_at.pop((region, subject), None)
                self._wait_s.pop((region, subject), None)
        if subjects != self._subjects:
            self._subjects = subjects
            self._wanted.set()

    def moved(self) -> None:
        """This node can be dialled elsewhere than its records say: publish them anew."""
        self._due_at.clear()
        self._wait_s.clear()
        self._wanted.set()

    def find(self, subject: Subject) -> None:
        """Ask the network; ContactsFound follows, empty if nobody was found in time, and again when more are found."""
        self._nursery.start_soon(self._find, subject)

    async def _find(self, subject: Subject) -> None:
        with trio.move_on_after(MEET_S):
            await self._met.wait()  # A task may be asked in the same moment in which the first link opens.
        keys = [key_of(self._swarm, subject, region) for region in range(REGIONS)]
        dials = Dials(network_of(self._host))
        lookups = [Lookup(self._host, dials, self._dht.routing_table, key, self._refuse) for key in keys]
        done = trio.Event()
        if self._lookups < LOOKUPS_MAX:
            self._lookups += 1
            self._nursery.start_soon(self._look, lookups, done)
        else:
            done.set()
        told: tuple[Contact, ...] = ()
        for number, look_s in enumerate(LOOKS_S, 1):
            with trio.move_on_after(look_s):
                await done.wait()
            found = self._found(keys, lookups)
            is_last = done.is_set() or number == len(LOOKS_S)
            # The lookup itself goes on after the last look; it is bounded, and not cancelled.
            if (found and found != told) or (is_last and not told):
                self._post(ContactsFound("dht", subject, found))
                told = found
            if is_last:
                return

    async def _look(self, lookups: list[Lookup], done: trio.Event) -> None:
        try:
            async with trio.open_nursery() as nursery:
                for lookup in lookups:
                    nursery.start_soon(lookup.run)
        finally:
            self._lookups -= 1
            done.set()

    def _found(self, keys: list[bytes], lookups: list[Lookup]) -> tuple[Contact, ...]:
        """What the regions say so far, and what is written down here; of each server in turn, so that none fills a region."""
        answers = []
        for key, lookup in zip(keys, lookups, strict=True):
            held = [contact_of(record.peer_id, record.addrs) for record in self._dht.provider_store.get_providers(key)]
            here = [contact for contact in held if contact is not None]
            answers.append([each for each in alternately([here, *lookup.answers]) if each.node != self._own])
        return joined(answers)

    def _refuse(self, why: str) -> None:
        self._refused[why] = self._refused.get(why, 0) + 1

    def _next_record(self) -> tuple[_Record, float]:
        """What is to be published next, and when: one region after the other, for one is enough to be found."""
        records = [(region, subject) for region in range(REGIONS) for subject in (*self._subjects, MEMBERSHIP)]
        record = min(records, key=lambda each: self._due_at.get(each, 0.0))
        return record, self._due_at.get(record, 0.0)

    async def _publish(self, record: _Record) -> None:
        region, subject = record
        # Of members there are so many that it does not matter whether one of them is found a little later.
        first_s = RENEW_S if subject == MEMBERSHIP else RENEW_FIRST_S
        self._wait_s[record] = min(RENEW_S, 2 * self._wait_s.get(record, first_s / 2))
        self._due_at[record] = trio.current_time() + self._wait_s[record] * self._dice.uniform(0.8, 1.0)
        try:
            await self._dht.provider_store.provide(key_of(self._swarm, subject, region))
        except Exception as error:
            log.debug("publishing failed: %r", error)


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
