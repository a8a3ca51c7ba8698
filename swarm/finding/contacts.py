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
DIAL_LIMIT_S = 30.0  # Longer than any dial takes. One that led to a link that was up already has no other end.

_Key = NodeId | tuple[str, ...]


@dataclass(slots=True)
class _Entry:
    """`proven` addresses came from the user or have led there; nobody else's word replaces them."""

    contact: Contact
    source: str
    proven: tuple[str, ...] = ()
    is_awaited: bool = False  # The user has just asked for it.
    failures: int = 0
    due_at: float = 0.0
    told: bool = False


class Contacts:
    """Addresses that may lead to a member, and when each may be dialled again. Bounded; user-given ones are evicted last."""

    def __init__(self, self_node: NodeId, settings: Settings, dice: Random) -> None:
        self._self, self._settings, self._dice = self_node, settings, dice
        self._entries: dict[_Key, _Entry] = {}
        self._dialling: dict[_Key, float] = {}  # Since when.

    def learn(self, source: str, contacts: Iterable[Contact]) -> None:
        for contact in contacts:
            if contact.node == self._self or not contact.addresses:
                continue
            key = _key(contact)
            entry = self._entries.get(key)
            if entry is None:
                entry = self._entries[key] = _Entry(contact, source)
                self._bound()
            if source == KEPT_SOURCE:
                entry.source, entry.proven, entry.is_awaited = source, contact.addresses, True
                entry.due_at, entry.told = 0.0, False
            entry.contact = Contact(contact.node, _joined(entry.proven, contact.addresses))

    def addresses(self, node: NodeId) -> tuple[str, ...]:
        entry = self._entries.get(node)
        return entry.contact.addresses if entry else ()

    def wanted(self, linked: Iterable[NodeId], now: float) -> list[Effect]:
        """Dials that are due: what the user has just asked for always, others while neighbours are missing."""
        self._give_up(now)
        have = dict.fromkeys(linked)
        missing = self._settings.neighbours_target - len(have) - len(self._dialling)
        due = [
            (key, entry)
            for key, entry in self._entries.items()
            if key not in have and key not in self._dialling and entry.due_at <= now
        ]
        awaited = [(key, entry) for key, entry in due if entry.is_awaited]
        kept = [(key, entry) for key, entry in due if entry.source == KEPT_SOURCE and not entry.is_awaited]
        others = [(key, entry) for key, entry in due if entry.source != KEPT_SOURCE]
        self._dice.shuffle(others)
        if missing <= 0 and have:
            kept = []
        chosen = [*awaited, *kept]
        chosen += others[: max(0, missing - len(chosen))]
        effects: list[Effect] = []
        for key, entry in chosen[: max(0, self._settings.dials_max - len(self._dialling))]:
            entry.is_awaited = False
            self._dialling[key] = now
            effects.append(Dial(entry.contact))
        return effects

    def asked_for(self, contacts: Iterable[Contact], linked: Iterable[NodeId], now: float) -> list[Effect]:
        """Dials to those who are said to have what a task needs now, however many neighbours there are."""
        self._give_up(now)
        have = dict.fromkeys(linked)
        effects: list[Effect] = []
        for contact in contacts:
            key = _key(contact)
            if key in have or key in self._dialling or key not in self._entries:
                continue
            if len(self._dialling) >= self._settings.dials_max:
                break
            self._dialling[key] = now
            effects.append(Dial(contact))
        return effects

    def linked(self, node: NodeId, addresses: tuple[str, ...], dialled: str) -> None:
        """A link is open: whatever led there has worked."""
        self._dialling.pop(node, None)
        entry = self._entries.get(node)
        if entry is not None:
            entry.failures, entry.told, entry.is_awaited = 0, False, False
        # An address without a node id has found its node; from now on it is known by its id.
        for key in [key for key in self._entries if not isinstance(key, bytes) and dialled in key]:
            self._dialling.pop(key, None)
            unnamed = self._entries.pop(key)
            known = self._entries.pop(node, None) or _Entry(Contact(node, addresses), unnamed.source)
            if unnamed.source == KEPT_SOURCE:
                known.source = KEPT_SOURCE
            known.proven = _joined(known.proven, (dialled,))
            known.contact = Contact(node, _joined(known.proven, known.contact.addresses))
            self._entries[node] = known

    def unlinked(self, node: NodeId, now: float) -> None:
        """A link has closed; dial again, but not in step with everybody else."""
        entry = self._entries.get(node)
        if entry is not None:
            entry.due_at = now + self._settings.dial_retry_first_s * self._dice.uniform(*JITTER)

    def failed(self, contact: Contact, cause: str, now: float) -> list[Effect]:
        key = _key(contact)
        self._dialling.pop(key, None)
        entry = self._put_off(key, now)
        if entry is not None and entry.source == KEPT_SOURCE and not entry.told:
            entry.told = True  # Once per join: the address is tried for ever, but nobody wants to read it for ever.
            return [Notify(JoinFailed(address, cause)) for address in contact.addresses]
        return []

    def forget(self, node: NodeId) -> None:
        entry = self._entries.get(node)
        if entry is not None and entry.source != KEPT_SOURCE:
            del self._entries[node]

    def _put_off(self, key: _Key, now: float) -> _Entry | None:
        """Dial later, or never again. The entry, if it is kept."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        entry.failures += 1
        if entry.source != KEPT_SOURCE and entry.failures >= FAILURES_MAX:
            del self._entries[key]
            return None
        # The exponent is bounded because the user's addresses fail for ever.
        wait_s = min(self._settings.dial_retry_max_s, self._settings.dial_retry_first_s * 2 ** min(entry.failures - 1, 32))
        entry.due_at = now + wait_s * self._dice.uniform(*JITTER)
        return entry

    def _give_up(self, now: float) -> None:
        for key in [key for key, since in self._dialling.items() if now - since >= DIAL_LIMIT_S]:
            del self._dialling[key]
            self._put_off(key, now)

    def _bound(self) -> None:
        if len(self._entries) > self._settings.contacts_max:
            for key, entry in self._entries.items():
                if entry.source != KEPT_SOURCE:
                    del self._entries[key]
                    return
            del self._entries[next(iter(self._entries))]


def _joined(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
    """Both, without repetition, as many as a contact may have."""
    return tuple(dict.fromkeys((*first, *second)))[: lim.ADDRESSES_MAX]


def _key(contact: Contact) -> _Key:
    return contact.addresses if contact.node is None else contact.node
