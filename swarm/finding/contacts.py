"""Whom to dial next: addresses from joins, mDNS, the DHT and adverts, with back-off, until there are neighbours enough."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random

from protocol import limits as lim
from protocol.identity import NodeId
from swarm.effects import Dial, Effect, JoinFailed, Notify
from swarm.finding.places import Crowd, dialable, is_relayed, local, place_of
from swarm.settings import Settings
from swarm.values import Contact

JITTER = (0.7, 1.3)  # Spreads the redials of many nodes after a common failure.
KEPT_SOURCE = "join"  # Addresses that the user gave are dialled for ever; others are forgotten after some failures.
SAVED_SOURCE = "saved"  # Led somewhere before this node was restarted: worth more than a stranger's word.
RECORD_SOURCE = "dht"
LOCAL_SOURCE = "mdns"  # Anybody in the same network can write into it.
STRANGERS = ("advert", RECORD_SOURCE)  # Anybody at all can write into these.
UNSIGNED = (RECORD_SOURCE, LOCAL_SOURCE)  # Who wrote what they say nobody knows.
BEST_MAX = 64  # Contacts worth keeping over a restart.
FAILURES_MAX = 6  # About a minute of trying.
LOST_MAX = 64  # Former neighbours remembered that are said to be dead or do not answer.
LOST_S = 24 * 3600.0  # Whoever was not there for so long comes back by itself, if at all. As in Serf.
BRIEF_S = 10.0  # A link that ends so soon did not last.
BRIEF_DOUBLINGS = 4  # Of the wait after such links: a bad network costs a quarter of a minute, not more.
ASKED_MAX = 16  # Dials under way beyond which even a task has to wait: providers that hang hold theirs for some seconds.
DIAL_LIMIT_S = 30.0  # Longer than any dial takes. One that led to a link that was up already has no other end.

_Key = NodeId | tuple[str, ...]


@dataclass(slots=True)
class _Entry:
    """What is known of one node, or of an address without one."""

    contact: Contact
    source: str
    given: tuple[str, ...] = ()  # By the user.
    led: tuple[str, ...] = ()  # Where it was dialled last, and answered.
    local: tuple[str, ...] = ()  # As this network tells.
    failures: int = 0
    turned_away: int = 0  # How often the peer has closed a link because it has too many.
    brief: int = 0  # Links in a row that did not last.
    due_at: float = 0.0
    told: bool = False
    linked_at: float | None = None  # When a link was last opened.

    @property
    def proven(self) -> tuple[str, ...]:
        """Addresses that nobody else's word replaces."""
        return _joined(self.given, self.led)

    @property
    def dial(self) -> Dial:
        # What has led there is not among the trusted: a name that did may mean another machine by now.
        return Dial(self.contact, trusted=tuple(dict.fromkeys((*self.given, *self.local))))

    @property
    def worth(self) -> int:
        """What leads somewhere, or the user wants, is worth more than a stranger's word. The least is evicted first."""
        if self.source == KEPT_SOURCE:
            return 3
        if self.source == SAVED_SOURCE or self.linked_at is not None:
            return 2
        return int(self.source not in STRANGERS)


class Contacts:
    """Addresses that may lead to a member, and when each may be dialled again. Bounded: strangers' words are evicted first."""

    def __init__(self, self_node: NodeId, settings: Settings, dice: Random) -> None:
        self._self, self._settings, self._dice = self_node, settings, dice
        self._entries: dict[_Key, _Entry] = {}
        self._dialling: dict[_Key, float] = {}  # Since when.
        self._awaited: dict[_Key, None] = {}  # The user has just asked for these.
        self._lost: dict[NodeId, tuple[_Entry, float]] = {}  # Former neighbours, and since when they are gone.
        self._reconnect_at = float("inf")
        self._own: tuple[str, ...] = ()
        self._crowd = Crowd()
        self.refused = 0  # Addresses that a stranger may not send this node to.

    def settle(self, addresses: tuple[str, ...]) -> None:
        """Where this node itself can be dialled, which tells which networks it is in."""
        self._own = addresses

    def learn(self, source: str, contacts: Iterable[Contact]) -> None:
        for contact in contacts:
            if contact.node == self._self or not contact.addresses:
                continue
            if source in STRANGERS or source == LOCAL_SOURCE:
                addresses = (local if source == LOCAL_SOURCE else dialable)(contact.addresses, self._own)
                self.refused += len(contact.addresses) - len(addresses)
                if not addresses:
                    continue
                if len(addresses) < len(contact.addresses):
                    contact = Contact(contact.node, addresses)
            key = _key(contact)
            entry = self._entries.get(key)
            if entry is None:
                if source in STRANGERS and self._crowd.is_full(contact.addresses):
                    continue
                entry = self._entries[key] = _Entry(contact, source)
                self._crowd.add(contact.addresses)
                self._bound()
            if source == LOCAL_SOURCE:
                entry.local = contact.addresses
            if source == KEPT_SOURCE:
                entry.source, entry.given = source, contact.addresses
                entry.due_at, entry.told = 0.0, False
                self._awaited[key] = None
            # Adverts tell the same addresses again and again.
            if entry.contact is not contact and entry.contact != contact:
                told = contact.addresses
                if source in UNSIGNED and source != entry.source:
                    told = _joined(entry.contact.addresses, told)  # It replaces nothing.
                self._move(entry, _joined(entry.proven, told))

    def __len__(self) -> int:
        return len(self._entries)

    def is_known(self, node: NodeId, addresses: tuple[str, ...]) -> bool:
        """Whether these addresses are nothing new. Most adverts only renew: asked before anything is built for `learn`."""
        entry = self._entries.get(node)
        return entry is not None and entry.contact.addresses in (addresses, _joined(entry.proven, addresses))

    def is_untried_record(self, contact: Contact) -> bool:
        """Whether all that is known of it is a provider record that nothing has proved or disproved yet."""
        entry = self._entries.get(_key(contact))
        return entry is not None and entry.source == RECORD_SOURCE and not entry.failures and entry.linked_at is None

    def dial(self, contact: Contact) -> Dial:
        """A dial to these addresses of a node, of which some may be trusted."""
        entry = self._entries.get(_key(contact))
        return Dial(contact, trusted=entry.dial.trusted if entry is not None else ())

    def addresses(self, node: NodeId) -> tuple[str, ...]:
        entry = self._entries.get(node)
        return entry.contact.addresses if entry else ()

    def wanted(self, linked: Iterable[NodeId], now: float) -> list[Effect]:
        """Dials that are due: what the user has just asked for always, others while neighbours are missing."""
        self._give_up(now)
        have = dict.fromkeys(linked)
        missing = self._settings.neighbours_target - len(have) - len(self._dialling)
        if missing <= 0 and have and not self._awaited:
            return []  # The usual case, on every sweep: without a look at hundreds of entries.
        due = [
            key
            for key, entry in self._entries.items()
            if entry.due_at <= now and key not in have and key not in self._dialling
        ]
        chosen = [key for key in due if key in self._awaited]
        if missing > 0 or not have:
            chosen += [key for key in due if self._entries[key].source == KEPT_SOURCE and key not in self._awaited]
        if missing > len(chosen):
            chosen += self._others(due, have)[: missing - len(chosen)]
        effects: list[Effect] = []
        for key in chosen[: max(0, self._settings.dials_max - len(self._dialling))]:
            self._awaited.pop(key, None)
            self._dialling[key] = now
            effects.append(self._entries[key].dial)
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
            if len(self._dialling) >= ASKED_MAX:
                break
            self._dialling[key] = now
            effects.append(self._entries[key].dial)
        return effects

    def reconnection(self, is_known: Callable[[NodeId], bool], count: int, now: float) -> list[Effect]:
        """Now and then, a dial to a former neighbour that is gone, as long as it is not known, as `count` nodes are.

        After a cut both halves of a swarm have neighbours enough and take the others for dead: nothing else would bring them
        together. The more are lost, the more often: about one dial in a period for each of them, from all that miss it. (Serf)
        """
        if not self._lost or now < self._reconnect_at:
            return []
        self._reconnect_at = now + self._settings.reconnect_period_s * self._dice.uniform(*JITTER)
        for node in [node for node, (_, since) in self._lost.items() if is_known(node) or now - since >= LOST_S]:
            del self._lost[node]
        if len(self._lost) <= self._dice.random() * count:
            return []
        node = self._dice.choice(list(self._lost))
        if node in self._dialling:
            return []
        self._dialling[node] = now
        return [self._lost[node][0].dial]

    def is_dialling(self, node: NodeId) -> bool:
        return node in self._dialling

    def room(self, now: float) -> int:
        """How many more may be dialled for a task now."""
        self._give_up(now)
        return max(0, ASKED_MAX - len(self._dialling))

    def best(self, neighbours: Iterable[Contact] = ()) -> tuple[Contact, ...]:
        """Worth keeping over a restart: the neighbours, then those that have led to a link, the latest first."""
        entries = [*self._entries.values(), *(entry for entry, _ in self._lost.values())]
        linked = [entry for entry in entries if entry.linked_at is not None and entry.contact.node]
        linked.sort(key=lambda entry: entry.linked_at or 0.0, reverse=True)
        found = {contact.node: contact for contact in neighbours if contact.addresses}
        for entry in linked:
            # What has led to it is better than what it says of itself.
            place = found.setdefault(entry.contact.node, entry.contact)
            found[entry.contact.node] = entry.contact if entry.contact.addresses else place
        return tuple(found.values())[:BEST_MAX]

    def _others(self, due: list[_Key], have: dict[NodeId, None]) -> list[_Key]:
        """Those that nobody asked for, in the order in which to dial them: what was saved first, and one place after another."""
        others = [key for key in due if self._entries[key].source != KEPT_SOURCE]
        places: dict[str, int] = {}
        for node in have:
            entry = self._entries.get(node)
            if entry is not None:
                place = place_of(entry.contact.addresses)
                places[place] = places.get(place, 0) + 1
        ranked: list[tuple[bool, int, int, _Key]] = []
        for key in self._dice.sample(others, len(others)):
            entry = self._entries[key]
            place = place_of(entry.contact.addresses)
            places[place] = places.get(place, 0) + 1
            ranked.append((entry.source != SAVED_SOURCE, places[place], len(ranked), key))
        return [key for *_, key in sorted(ranked, key=lambda one: one[:3])]

    def linked(self, node: NodeId, addresses: tuple[str, ...], dialled: str, now: float) -> None:
        """A link is open: whatever led there has worked."""
        self._dialling.pop(node, None)
        lost, _ = self._lost.pop(node, (None, 0.0))
        if lost is not None and node not in self._entries:
            self._entries[node] = lost
            self._crowd.add(lost.contact.addresses)
        entry = self._entries.get(node)
        if entry is not None:
            entry.failures, entry.told, entry.linked_at = 0, False, now
            if dialled and not is_relayed(dialled):  # Circuits come and go.
                entry.led = (dialled,)
                self._move(entry, _joined(entry.proven, entry.contact.addresses))
        self._awaited.pop(node, None)
        # An address without a node id has found its node; from now on it is known by its id.
        for key in [key for key in self._entries if not isinstance(key, bytes) and dialled in key] if dialled else ():
            self._dialling.pop(key, None)
            self._awaited.pop(key, None)
            unnamed = self._pop(key)
            known = (self._pop(node) if node in self._entries else None) or _Entry(Contact(node, addresses), unnamed.source)
            known.led = (dialled,)
            if unnamed.source == KEPT_SOURCE:
                known.source, known.given = KEPT_SOURCE, _joined(known.given, (dialled,))
            known.contact = Contact(node, _joined(known.proven, known.contact.addresses))
            known.linked_at = now
            self._entries[node] = known
            self._crowd.add(known.contact.addresses)

    def unlinked(self, node: NodeId, turned_away: bool, now: float) -> None:
        """A link has closed; dial again, but not in step with everybody else.

        A peer that has `turned_away` this node for want of room, or that does not stay, is asked ever more rarely, or two such
        nodes would link and unlink for ever.
        """
        entry = self._entries.get(node)
        if entry is not None:
            brief = entry.linked_at is not None and now - entry.linked_at < BRIEF_S
            entry.linked_at = now
            entry.turned_away = entry.turned_away + 1 if turned_away else 0
            entry.brief = entry.brief + 1 if brief else 0
            entry.due_at = now + self._wait_s(entry.turned_away + min(max(0, entry.brief - 1), BRIEF_DOUBLINGS))

    def failed(self, contact: Contact, cause: str, now: float) -> list[Effect]:
        key = _key(contact)
        self._dialling.pop(key, None)
        entry = self._put_off(key, now)
        if entry is not None and entry.source == KEPT_SOURCE and not entry.told:
            entry.told = True  # Once per join: the address is tried for ever, but nobody wants to read it for ever.
            return [Notify(JoinFailed(address, cause)) for address in contact.addresses]
        return []

    def forget(self, node: NodeId) -> None:
        """It has left."""
        self._lost.pop(node, None)
        entry = self._entries.get(node)
        if entry is not None and entry.source != KEPT_SOURCE:
            self._pop(node)
            self._awaited.pop(node, None)

    def lose(self, node: NodeId, now: float) -> None:
        """It is said to be dead, or has fallen silent."""
        entry = self._entries.get(node)
        self.forget(node)
        self._miss(entry, now)

    def _miss(self, entry: _Entry | None, now: float) -> None:
        """Remember it if it has ever been a neighbour."""
        if entry is None or entry.linked_at is None or entry.contact.node is None:
            return
        if not self._lost:
            self._reconnect_at = now + self._settings.reconnect_period_s * self._dice.random()
        self._lost.pop(entry.contact.node, None)
        self._lost[entry.contact.node] = (entry, now)
        if len(self._lost) > LOST_MAX:
            del self._lost[next(iter(self._lost))]

    def _put_off(self, key: _Key, now: float) -> _Entry | None:
        """Dial later, or never again. The entry, if it is kept."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        entry.failures += 1
        if entry.source != KEPT_SOURCE and entry.failures >= FAILURES_MAX:
            self._miss(self._pop(key), now)
            return None
        entry.due_at = now + self._wait_s(entry.failures - 1)
        return entry

    def _wait_s(self, tries: int) -> float:
        """How long to wait after so many tries in vain. The exponent is bounded because the user's addresses fail for ever."""
        wait_s = min(self._settings.dial_retry_max_s, self._settings.dial_retry_first_s * 2.0 ** min(tries, 32))
        return wait_s * self._dice.uniform(*JITTER)

    def _give_up(self, now: float) -> None:
        for key in [key for key, since in self._dialling.items() if now - since >= DIAL_LIMIT_S]:
            del self._dialling[key]
            self._put_off(key, now)

    def _bound(self) -> None:
        if len(self._entries) > self._settings.contacts_max:
            key = min(self._entries, key=lambda key: self._entries[key].worth)  # The oldest of them.
            self._pop(key)
            self._awaited.pop(key, None)

    def _move(self, entry: _Entry, addresses: tuple[str, ...]) -> None:
        self._crowd.remove(entry.contact.addresses)
        entry.contact = Contact(entry.contact.node, addresses)
        self._crowd.add(addresses)

    def _pop(self, key: _Key) -> _Entry:
        entry = self._entries.pop(key)
        self._crowd.remove(entry.contact.addresses)
        return entry


def _joined(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
    """Both, without repetition, as many as a contact may have."""
    return tuple(dict.fromkeys((*first, *second)))[: lim.ADDRESSES_MAX]


def _key(contact: Contact) -> _Key:
    return contact.addresses if contact.node is None else contact.node
