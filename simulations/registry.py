"""The provider records that a DHT would hold: found a little late, and still found when their node has gone."""

from random import Random

from protocol.identity import NodeId
from simulations.agenda import Agenda
from simulations.machines import Machine, Process
from simulations.scenario import NetworkTable
from swarm.events import ContactsFound
from swarm.finding.regions import REGIONS, joined
from swarm.values import MEMBERSHIP, Contact, Subject

CONTACTS_MAX = 16  # In one answer of one region; Kademlia stores a record on 20 nodes and a search asks a few of them.


class Registry:
    """Who said last to provide what. Every member of the swarm is found under membership.

    Honest records are the same in every region; `pretend` writes into one.
    """

    def __init__(self, agenda: Agenda, table: NetworkTable, dice: Random) -> None:
        self._agenda, self._table, self._dice = agenda, table, dice
        self._until: dict[tuple[Subject, NodeId], float] = {}  # When a record is no longer found.
        self._by_subject: dict[Subject, list[Contact]] = {}  # A list, so that drawing a few of thousands costs little.
        self._invented: dict[tuple[Subject, int], list[Contact]] = {}  # By region. These last for ever.
        self._provided: dict[NodeId, tuple[Subject, ...]] = {}

    def provide(self, machine: Machine, subjects: tuple[Subject, ...]) -> None:
        """The records of a node become these, soon."""
        delay_s = self._dice.uniform(*self._table.record_delay_s)
        self._agenda.call(delay_s, lambda: self._store(machine, (MEMBERSHIP, *subjects)))

    def find(self, process: Process, subject: Subject) -> None:
        """ContactsFound follows, perhaps with no contacts."""
        delay_s = self._dice.uniform(*self._table.lookup_s)
        self._agenda.call(delay_s, lambda: self._answer(process, subject))

    def pretend(self, subject: Subject, contact: Contact, region: int) -> None:
        """Somebody writes down a provider that does not exist."""
        self._invented.setdefault((subject, region), []).append(contact)

    def _store(self, machine: Machine, subjects: tuple[Subject, ...]) -> None:
        node, contact = machine.node, Contact(machine.node, machine.addresses)
        for subject in self._provided.get(node, ()):
            if subject not in subjects:
                del self._until[subject, node]
                self._by_subject[subject].remove(contact)
        for subject in subjects:
            if (subject, node) not in self._until:
                self._by_subject.setdefault(subject, []).append(contact)
            self._until[subject, node] = self._agenda.now + self._table.record_lifetime_s
        self._provided[node] = subjects

    def _answer(self, process: Process, subject: Subject) -> None:
        if not process.open:
            return
        honest = self._by_subject.get(subject, [])
        answers = [self._drawn(subject, honest, self._invented.get((subject, region), [])) for region in range(REGIONS)]
        found = tuple(contact for contact in joined(answers) if contact.node != process.node)
        self._agenda.post(0.0, process, ContactsFound("dht", subject, found))

    def _drawn(self, subject: Subject, honest: list[Contact], invented: list[Contact]) -> list[Contact]:
        """What one region answers: some of all that is written down there, and has not expired."""
        count, now, until = len(honest) + len(invented), self._agenda.now, self._until
        places = self._dice.sample(range(count), min(count, CONTACTS_MAX))
        drawn = [honest[place] if place < len(honest) else invented[place - len(honest)] for place in places]
        return [each for each in drawn if each.node is not None and until.get((subject, each.node), now + 1) > now]
