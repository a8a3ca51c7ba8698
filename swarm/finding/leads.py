"""Providers that the DHT names for a task: dialled a few at a time, and believed once their own advert offers what was sought.

Anybody can write a provider record, and those of the dead stay for half an hour. So nothing here makes a candidate of a
provider: it only decides whom to dial, counts who did not keep what its record promised, and leaves that one alone for a while.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from protocol.identity import NodeId
from swarm.effects import Effect, LeadOverdue, LeadsDue, SetTimer
from swarm.finding.capabilities import CapabilityIndex
from swarm.finding.contacts import Contacts
from swarm.finding.roster import Roster
from swarm.values import Contact, Subject

AT_ONCE = 4  # Providers of one subject dialled together,
STAGGER_S = 0.3  # and the next so much later: providers that hang cost a task a moment, not its patience.
LEADS_MAX = 32  # Providers of one subject that wait to be dialled; an answer of the DHT names about twenty.
SUBJECTS_MAX = 16  # Sought at once. Of more the oldest are given up: their tasks have waited longest.
AWAITED_MAX = 128  # Providers dialled whose advert has not come yet.
ADVERT_LIMIT_S = 3.0  # From the link to the advert, the first thing that a node says on it.
SHUN_S = 600.0  # Until a provider that does not offer it is dialled for it again: records are renewed as often.
SILENCE_S = 60.0  # Until one that did not answer is: it may have been asleep.
SHUNNED_MAX = 1_024  # Remembered; the oldest fall out, and are dialled once more at worst.
RECORD_S = 30 * 60.0  # A record is no older; whoever was alive after that may have gone since it was written.
NOT_OFFERED, SILENT = "dht: does not offer it", "dht: does not answer"


@dataclass(slots=True)
class _Lead:
    """A provider that was dialled, and for what. `number` tells its latest dial or link from earlier ones."""

    number: int
    subjects: dict[Subject, None] = field(default_factory=dict)


class Leads:
    """Whom the DHT has named, and who kept what was promised."""

    def __init__(
        self, node: NodeId, index: CapabilityIndex, roster: Roster, contacts: Contacts, is_sought: Callable[[Subject], bool]
    ) -> None:
        """`is_sought`: whether a task still waits for such a provider."""
        self._self, self._index, self._roster, self._contacts, self._is_sought = node, index, roster, contacts, is_sought
        self._waiting: dict[Subject, dict[NodeId, Contact]] = {}
        self._timed: dict[Subject, None] = {}  # A LeadsDue is on its way.
        self._awaited: dict[NodeId, _Lead] = {}
        self._shunned: dict[tuple[NodeId, Subject], float] = {}  # Until when.
        self._numbers = 0
        self.refused: dict[str, int] = {}

    def __contains__(self, node: NodeId | None) -> bool:
        return node in self._awaited

    def found(self, subject: Subject, contacts: Iterable[Contact], now: float) -> list[Effect]:
        """The DHT names providers, the likeliest first."""
        likely: dict[NodeId, Contact] = {}
        doubtful: dict[NodeId, Contact] = {}
        effects: list[Effect] = []
        for contact in contacts:
            node = contact.node
            if node is None or node == self._self or self._shunned.get((node, subject), 0.0) > now:
                continue
            lead, known = self._awaited.get(node), self._index.get(node)
            if lead is not None:
                lead.subjects[subject] = None
            elif known is not None and any(map(subject.is_offered, known.advert.capabilities)):
                continue  # Nothing that is not known already.
            elif node in self._roster:
                # A neighbour tells at once what it offers.
                effects += self._await(node, subject) if known is None else self._break(node, subject, NOT_OFFERED, SHUN_S, now)
            elif known is not None or self._index.is_gone(node, now - RECORD_S):
                # It said otherwise, or it was alive when the record may have been written, and is gone.
                doubtful[node] = contact
            else:
                likely[node] = contact
        before = self._waiting.pop(subject, {})
        self._waiting[subject] = dict(list({**likely, **before, **doubtful}.items())[:LEADS_MAX])
        if len(self._waiting) > SUBJECTS_MAX:
            del self._waiting[next(iter(self._waiting))]
        return [*effects, *self._next(subject, AT_ONCE, now)]

    def due(self, timer: LeadsDue, now: float) -> list[Effect]:
        self._timed.pop(timer.subject, None)
        return self._next(timer.subject, AT_ONCE, now)

    def linked(self, node: NodeId) -> list[Effect]:
        """A provider has answered the dial; its advert is due."""
        lead = self._awaited.get(node)
        return [] if lead is None else self._watch(node, lead)

    def heard(self, node: NodeId, now: float) -> list[Effect]:
        """A provider has given its advert, which counts, whatever was promised."""
        lead, known = self._awaited.get(node), self._index.get(node)
        if lead is None or known is None:
            return []
        del self._awaited[node]
        effects: list[Effect] = []
        for subject in lead.subjects:
            if not any(map(subject.is_offered, known.advert.capabilities)):
                effects += self._break(node, subject, NOT_OFFERED, SHUN_S, now)
        return effects

    def lost(self, node: NodeId, now: float) -> list[Effect]:
        """A provider could not be dialled, or its link is gone before it gave an advert: others are dialled instead."""
        lead = self._awaited.pop(node, None)
        effects: list[Effect] = []
        for subject in lead.subjects if lead is not None else ():
            effects += self._break(node, subject, SILENT, SILENCE_S, now)
        return effects

    def overdue(self, timer: LeadOverdue, now: float) -> list[Effect]:
        lead = self._awaited.get(timer.node)
        return self.lost(timer.node, now) if lead is not None and lead.number == timer.number else []

    def refuse(self, why: str) -> None:
        """Count what the DHT has told and what was not so."""
        self.refused[why] = self.refused.get(why, 0) + 1

    def _next(self, subject: Subject, count: int, now: float) -> list[Effect]:
        """Dial the next few, and more in a moment, as long as a task waits for one."""
        if not self._is_sought(subject):
            self._waiting.pop(subject, None)
            return []
        waiting = self._waiting.get(subject, {})
        chosen = list(waiting)[: min(count, self._contacts.room(now))]
        dials = self._contacts.asked_for([waiting.pop(node) for node in chosen], self._roster.nodes(), now)
        for node in chosen:
            if self._contacts.is_dialling(node):
                self._await(node, subject)
        if not waiting:
            self._waiting.pop(subject, None)
        elif subject not in self._timed:
            self._timed[subject] = None
            dials.append(SetTimer(STAGGER_S, LeadsDue(subject)))
        return dials

    def _await(self, node: NodeId, subject: Subject) -> list[Effect]:
        lead = self._awaited.setdefault(node, _Lead(0))
        lead.subjects[subject] = None
        if len(self._awaited) > AWAITED_MAX:
            del self._awaited[next(iter(self._awaited))]
        return self._watch(node, lead) if node in self._roster else []

    def _watch(self, node: NodeId, lead: _Lead) -> list[Effect]:
        self._numbers += 1
        lead.number = self._numbers
        return [SetTimer(ADVERT_LIMIT_S, LeadOverdue(node, lead.number))]

    def _break(self, node: NodeId, subject: Subject, why: str, shun_s: float, now: float) -> list[Effect]:
        """A promise was not kept."""
        self.refuse(why)
        self._shunned.pop((node, subject), None)
        self._shunned[node, subject] = now + shun_s
        if len(self._shunned) > SHUNNED_MAX:
            del self._shunned[next(iter(self._shunned))]
        return self._next(subject, 1, now)
