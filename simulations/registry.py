"""The provider records that a DHT would hold: found a little late, and still found when their node has gone."""

from random import Random

from protocol.identity import NodeId
from simulations.agenda import Agenda
from simulations.machines import Machine, Process
from simulations.scenario import NetworkTable
from swarm.events import ContactsFound
from swarm.values import Contact

CONTACTS_MAX = 16  # In one answer; Kademlia stores a record on 20 nodes and a search asks a few of them.


class Registry:
    """Who said last to offer what. Every member of the swarm is found under the empty skill."""

    def __init__(self, agenda: Agenda, table: NetworkTable, dice: Random) -> None:
        self._agenda, self._table, self._dice = agenda, table, dice
        self._until: dict[tuple[str, NodeId], float] = {}  # When a record is no longer found.
        self._by_skill: dict[str, list[Contact]] = {}  # A list, so that drawing a few of thousands costs little.
        self._offered: dict[NodeId, tuple[str, ...]] = {}

    def provide(self, machine: Machine, skills: tuple[str, ...]) -> None:
        """The records of a node become these, soon."""
        delay_s = self._dice.uniform(*self._table.record_delay_s)
        self._agenda.call(delay_s, lambda: self._store(machine, ("", *skills)))

    def find(self, process: Process, skill: str) -> None:
        """ContactsFound follows, perhaps with no contacts."""
        delay_s = self._dice.uniform(*self._table.lookup_s)
        self._agenda.call(delay_s, lambda: self._answer(process, skill))

    def _store(self, machine: Machine, skills: tuple[str, ...]) -> None:
        node, contact = machine.node, Contact(machine.node, machine.addresses)
        for skill in self._offered.get(node, ()):
            if skill not in skills:
                del self._until[skill, node]
                self._by_skill[skill].remove(contact)
        for skill in skills:
            if (skill, node) not in self._until:
                self._by_skill.setdefault(skill, []).append(contact)
            self._until[skill, node] = self._agenda.now + self._table.record_lifetime_s
        self._offered[node] = skills

    def pretend(self, skill: str, contact: Contact) -> None:
        """Somebody writes down a provider that does not exist."""
        assert contact.node is not None
        self._by_skill.setdefault(skill, []).append(contact)
        self._until[skill, contact.node] = float("inf")

    def _answer(self, process: Process, skill: str) -> None:
        if not process.open:
            return
        contacts = self._by_skill.get(skill, [])
        if len(contacts) > CONTACTS_MAX:
            contacts = self._dice.sample(contacts, CONTACTS_MAX)
        now, until = self._agenda.now, self._until
        found = tuple(
            contact
            for contact in contacts
            if contact.node is not None and contact.node != process.node and until[skill, contact.node] > now
        )
        self._agenda.post(0.0, process, ContactsFound("dht", skill, found))
