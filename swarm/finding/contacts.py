"""Whom to dial next: addresses from joins, mDNS, the DHT and adverts, with back-off, until there are neighbours enough."""

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random

from protocol import limits as lim
from protocol.identity import NodeId
from swarm.effects import Dial, Effect, JoinFailed, Notify
from swarm.settings import Settings
from swarm.values import Contact

JITTER = (0.7, 1.3)  # Spreads the redials of many nodes after a common failure.
KEPT_SOURCE = "join"  # Addresses that the user gave are dialled for ever; others are forgotten after some failures.
FAILURES_MAX = 6  # About a minute of trying.

_Key = NodeId | tuple[str, ...]


@dataclass(slots=True)
class _Entry:
    contact: Contact
    source: str
    failures: int = 0
    due_at: float = 0.0
    told: bool = False


class Contacts:
    """Addresses that may lead to a member, and when each may be dialled again. Bounded; user-given ones are never evicted."""

    def __init__(self, self_node: NodeId, settings: Settings, dice: Random) -> None:
        self._self, self._settings, self._dice = self_node, settings, dice
        self._entries: dict[_Key, _Entry] = {}
        self._dialling: dict[_Key, bool] = {}

    def learn(self, source: str, contacts: Iterable[Contact]) -> None:
        for contact in contacts:
            if contact.node == self._self or not contact.addresses:
                continue
            key = _key(contact)
            known = self._entries.get(key)
            if known is not None:
                known.contact = contact
                if source == KEPT_SOURCE:
                    known.source, known.due_at, known.told = source, 0.0, False
                continue
            self._entries[key] = _Entry(contact, source)
            self._bound()

    def addresses(self, node: NodeId) -> tuple[str, ...]:
        entry = self._entries.get(node)
        return entry.contact.addresses if entry else ()

    def wanted(self, linked: Iterable[NodeId], now: float) -> list[Effect]:
        """Dials that are due: user-given addresses always, others while neighbours are missing."""
        have = dict.fromkeys(linked)
        missing = self._settings.neighbours_target - len(have) - len(self._dialling)
        due = [
            (key, entry)
            for key, entry in self._entries.items()
            if key not in have and key not in self._dialling and entry.due_at <= now
        ]
        kept = [(key, entry) for key, entry in due if entry.source == KEPT_SOURCE and (missing > 0 or not have)]
        others = [(key, entry) for key, entry in due if entry.source != KEPT_SOURCE]
        self._dice.shuffle(others)
        room = self._settings.dials_max - len(self._dialling)
        effects: list[Effect] = []
        for key, entry in [*kept, *others[: max(0, missing - len(kept))]][: max(0, room)]:
            self._dialling[key] = True
            effects.append(Dial(entry.contact))
        return effects

    def asked_for(self, contacts: Iterable[Contact], linked: Iterable[NodeId]) -> list[Effect]:
        """Dials to those who are said to have what a task needs now, however many neighbours there are."""
        have = dict.fromkeys(linked)
        effects: list[Effect] = []
        for contact in contacts:
            key = _key(contact)
            if key in have or key in self._dialling or key not in self._entries:
                continue
            if len(self._dialling) >= self._settings.dials_max:
                break
            self._dialling[key] = True
            effects.append(Dial(contact))
        return effects

    def linked(self, node: NodeId, addresses: tuple[str, ...], dialled: str) -> None:
        """A link is open: whatever led there has worked."""
        self._dialling.pop(node, None)
        entry = self._entries.get(node)
        if entry is not None:
            entry.failures, entry.told = 0, False
        # An address without a node id has found its node; from now on it is known by its id.
        for key in [key for key in self._entries if not isinstance(key, bytes) and dialled in key]:
            self._dialling.pop(key, None)
            source = self._entries.pop(key).source
            self._entries[node] = _Entry(Contact(node, (dialled, *addresses)[: lim.ADDRESSES_MAX]), source)

    def unlinked(self, node: NodeId, now: float) -> None:
        """A link has closed; dial again, but not in step with everybody else."""
        entry = self._entries.get(node)
        if entry is not None:
            entry.due_at = now + self._settings.dial_retry_first_s * self._dice.uniform(*JITTER)

    def failed(self, contact: Contact, cause: str, now: float) -> list[Effect]:
        key = _key(contact)
        self._dialling.pop(key, None)
        entry = self._entries.get(key)
        if entry is None:
            return []
        entry.failures += 1
        if entry.source != KEPT_SOURCE and entry.failures >= FAILURES_MAX:
            del self._entries[key]
            return []
        wait_s = min(self._settings.dial_retry_max_s, self._settings.dial_retry_first_s * 2 ** (entry.failures - 1))
        entry.due_at = now + wait_s * self._dice.uniform(*JITTER)
        if entry.source == KEPT_SOURCE and not entry.told:
            entry.told = True  # Once per join: the address is tried for ever, but nobody wants to read it for ever.
            return [Notify(JoinFailed(address, cause)) for address in contact.addresses]
        return []

    def forget(self, node: NodeId) -> None:
        entry = self._entries.get(node)
        if entry is not None and entry.source != KEPT_SOURCE:
            del self._entries[node]

    def _bound(self) -> None:
        if len(self._entries) > self._settings.contacts_max:
            for key, entry in self._entries.items():
                if entry.source != KEPT_SOURCE:
                    del self._entries[key]
                    return
            del self._entries[next(iter(self._entries))]


def _key(contact: Contact) -> _Key:
    return contact.addresses if contact.node is None else contact.node
