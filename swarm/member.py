"""One member of the swarm: hands each event to the part that cares and returns its effects. A switchboard, no logic of its own."""

from random import Random
from typing import assert_never

from protocol import errors
from protocol.identity import NodeId
from protocol.messages import (
    Advert,
    AdvertDigest,
    AdvertPull,
    AdvertPush,
    AdvertWant,
    Goodbye,
    Hello,
    Message,
    Ping,
    Pong,
    Pulse,
    ReachAnswer,
    ReachAsk,
    Rumours,
    Suspicion,
    TaskAccepted,
    TaskCancelled,
    TaskFailed,
    TaskFinished,
    TaskPiece,
    TaskRefused,
    TaskRequest,
)
from swarm.choosing.routing import Router
from swarm.choosing.standing import Standings
from swarm.doing import timing
from swarm.doing.asking import Asking
from swarm.doing.serving import Serving
from swarm.doing.timing import TaskTimer
from swarm.effects import (
    AdvertDue,
    Announce,
    BurialDue,
    Conclude,
    DigestDue,
    Effect,
    FindProviders,
    GossipDue,
    LeadOverdue,
    LeadsDue,
    Notify,
    PeerJoined,
    PeerLost,
    PingFailed,
    PlanOverdue,
    PlanRetryDue,
    PongOverdue,
    Reply,
    Send,
    ServiceDeadlinePassed,
    SetTimer,
    SuspectDue,
    SweepDue,
    Timer,
)
from swarm.events import (
    AddressesChanged,
    AskCancelled,
    Asked,
    CapabilitiesChanged,
    CarriedChanged,
    ContactsFound,
    DialFailed,
    DialledBack,
    Event,
    GenerationFailed,
    GenerationFinished,
    LoopLate,
    NeighbourDown,
    NeighbourUp,
    PieceGenerated,
    PingAsked,
    PlanAsked,
    PlanCancelled,
    Received,
    RelayChanged,
    Reserved,
    Started,
    Stopping,
    TimerFired,
    Undelivered,
)
from swarm.finding.capabilities import CapabilityIndex
from swarm.finding.contacts import RECORD_SOURCE, Contacts
from swarm.finding.gossip import Gossip
from swarm.finding.issuing import Issuer, Notary
from swarm.finding.leads import SILENT, Leads
from swarm.finding.places import public_place
from swarm.finding.reach import Reach
from swarm.finding.roster import Roster
from swarm.finding.suspicion import Suspicions
from swarm.leading.leading import Leading
from swarm.settings import Settings
from swarm.values import MEMBERSHIP, Contact, Routing, Subject, Task

SOUGHT_MAX = 16  # Adverts of workers with a rare skill, from each of
SOUGHT_NEIGHBOURS_MAX = 16  # so many neighbours.


class Member:
    """The state machine inside a node. The same class runs under libp2p and in the simulator."""

    def __init__(self, node: NodeId, name: str, settings: Settings, notary: Notary, dice: Random) -> None:
        settings.validate()
        self.node, self.name = node, name
        self._settings = settings
        self.roster = Roster(settings)
        self.standings = Standings(settings, self._public_place)
        self.index = CapabilityIndex(node, settings, self._is_worth_keeping)
        self.contacts = Contacts(node, settings, dice)
        self.serving = Serving(node, settings)
        self.issuer = Issuer(
            node, name, settings, notary, dice, self.index, self.serving.load, self.serving.prefixes, self.roster.nodes
        )
        self.suspicions = Suspicions(node, notary, self.index, self.roster, lambda: settings.ping_after_s)
        self.gossip = Gossip(node, settings, notary, dice, self.index, self.issuer, self.suspicions)
        self.reach = Reach(settings, dice, self.roster, self.index)
        self._router = Router(node, settings, dice, self.index, self.roster, self.standings)
        self.asking = Asking(
            settings, dice, self._router.route, self._reach, self._seek, self.standings, self.roster, self._router.remember
        )
        self.leading = Leading(settings, self.asking.begin, self.asking.cancel)
        self.leads = Leads(node, self.index, self.roster, self.contacts, self.asking.is_seeking)
        self._searched_at = float("-inf")
        self._addresses: tuple[str, ...] = ()  # As others are told.
        self._pinged: dict[NodeId, None] = {}  # Without a link yet, and somebody waits for their answer.
        self._now = 0.0

    def handle(self, event: Event, now: float) -> list[Effect]:
        """What this member wants done about an event. `now`: seconds since the epoch on a clock that never steps back."""
        self._now = now
        effects = self._handle(event, now)
        # What a member sends to itself never leaves it, and takes the same way as what comes from others. Answers to the tasks of a
        # plan bring others about.
        outward: list[Effect] = []
        while effects:
            inward: list[Effect] = []
            for effect in effects:
                if isinstance(effect, Send) and effect.to == self.node:
                    inward += self._received(self.node, effect.message, now)
                    continue
                outward.append(effect)
                if isinstance(effect, Reply) and effect.task in self.leading:
                    self.leading.said(effect.task, effect.text)
                elif isinstance(effect, Conclude) and effect.task in self.leading:
                    inward += self.leading.concluded(effect.task, effect.outcome, now)
            effects = inward
        return outward

    def best_contacts(self) -> tuple[Contact, ...]:
        """Where to begin after a restart: the neighbours, the oldest link first, then those that were neighbours."""
        return self.contacts.best([Contact(known.node, known.addresses) for known in self.roster.oldest()])

    def refused(self) -> dict[str, int]:
        """How often what others told was not believed, by where it came from and reason."""
        told = {f"gossip: {why}": count for why, count in self.gossip.refused.items()}
        private = {"private address": self.contacts.refused} if self.contacts.refused else {}
        return {**told, **private, **self.leads.refused}

    def route(self, task: Task) -> Routing:
        """Who could do a task, as of the latest event; a dry run."""
        return self._router.consider(task, (), self._now)

    def _handle(self, event: Event, now: float) -> list[Effect]:
        match event:
            case Received(sender, message):
                self.roster.heard(sender, now)
                return self._received(sender, message, now)
            case TimerFired(timer):
                return self._fired(timer, now)
            case PieceGenerated(attempt, text, tokens, logprobs):
                return self.serving.generated(attempt, text, tokens, logprobs)
            case GenerationFinished(attempt, usage):
                return self.serving.finished(attempt, usage, now) + self._load_changed(now)
            case GenerationFailed(attempt, code, reason):
                return self.serving.failed(attempt, errors.error_code(code), reason, now) + self._load_changed(now)
            case DialledBack(node, reached):
                return self.reach.dialled_back(node, reached)
            case RelayChanged(node, addresses):
                return self.reach.relay_changed(node, addresses, now) + self._moved(now)
            case CarriedChanged(nodes):
                self.reach.carried = nodes
                return []
            case Asked(task):
                self.index.seek(task.skill)
                return self.asking.begin(task, now)
            case PlanAsked():
                return self.leading.begin(event, now)
            case PlanCancelled(plan):
                return self.leading.cancel(plan, now)
            case PingAsked(node):
                return self._ping_asked(node, now)
            case AskCancelled(task_id):
                return self.asking.cancel(task_id, now)
            case NeighbourUp():
                return self._up(event, now)
            case NeighbourDown(node, cause):
                return self._down(node, cause, now)
            case DialFailed(contact, cause):
                return self._dial_failed(contact, cause, now)
            case Undelivered(_, message):
                return self.asking.undelivered(message.attempt, now) if isinstance(message, TaskRequest) else []
            case ContactsFound(source, subject, contacts):
                self.contacts.learn(source, contacts)
                is_for_a_task = source == RECORD_SOURCE and subject != MEMBERSHIP
                return self.leads.found(subject, contacts, now) if is_for_a_task else self._dial(now)
            case CapabilitiesChanged(capabilities, resting):
                effects = self.serving.offer(capabilities, now, resting)
                return effects + self.issuer.offer(capabilities, now) + self.asking.found(now)
            case LoopLate(late_s):
                self.roster.excuse(now + self._settings.pong_limit_s + late_s)
                # Others may have taken it for dead. A new advert tells them that it was away, and is back.
                return self.issuer.issue(now) if late_s >= self._settings.ping_after_s and self.issuer.advert else []
            case Reserved(reserved):
                effects = self.serving.reserve(reserved, now) + self.issuer.reserve(reserved, now)
                return effects + self.asking.found(now)
            case Started(addresses):
                self.reach.settle(addresses)
                self.contacts.settle(addresses)
                self._addresses = addresses
                return [*self.issuer.start(addresses, now), *self.gossip.digest_due([]), *self._swept(now)]
            case AddressesChanged(addresses):
                self.reach.settle(addresses)
                return self._moved(now)
            case Stopping():
                return self._stop(now)
            case _:
                assert_never(event)

    def _received(self, sender: NodeId, message: Message, now: float) -> list[Effect]:
        match message:
            case TaskPiece():
                return self.asking.piece(sender, message, now)
            case AdvertPush():
                news = self.gossip.hear(sender, message, now)
                for signed in news:
                    if not self.contacts.is_known(signed.issuer, signed.body.addresses):
                        self.contacts.learn("advert", (Contact(signed.issuer, signed.body.addresses),))
                found = self.asking.found(now) if news and len(self.asking) else []
                own = [self.gossip.remind(sender, told.issued_at_ms) for told in message.adverts if told.issuer == sender]
                if sender in self.leads and any(signed.issuer == sender for signed in message.adverts):
                    found += self.leads.heard(sender, now)
                return [*self.gossip.stir(now), *found, *(effect for effects in own for effect in effects)]
            case Rumours():
                effects, gone = self.gossip.hear_rumours(sender, message, now)
                for node in gone:
                    if node not in self.roster:
                        self.contacts.forget(node)
                return [*effects, *self.gossip.stir(now)]
            case Ping(nonce):
                return [Send(sender, Pong(nonce))]
            case Pong(nonce):
                return self.roster.pong(sender, nonce, now)
            case AdvertDigest():
                return self.gossip.compare(sender, message, now)
            case AdvertWant():
                return self.gossip.give(sender, message, now)
            case AdvertPull():
                return self.gossip.answer(sender, message, now)
            case ReachAsk():
                return self.reach.asked(sender, message, now)
            case ReachAnswer():
                self.reach.answered(sender, message, now)
                return self._moved(now)
            case TaskRequest():
                self._used(sender, now)
                return self.serving.requested(sender, message, now) + self._load_changed(now)
            case TaskAccepted():
                self._used(sender, now)
                return self.asking.accepted(sender, message, now)
            case TaskRefused():
                return self.asking.refused(sender, message, now)
            case TaskFinished():
                return self.asking.finished(sender, message, now)
            case TaskFailed():
                return self.asking.failed_there(sender, message, now)
            case TaskCancelled(attempt):
                return self.serving.cancelled(sender, attempt, now) + self._load_changed(now)
            case Goodbye(leaving, _, replaced):
                neighbour = self.roster.get(sender)
                if leaving:
                    self.index.forget(sender)
                elif neighbour is not None:
                    neighbour.parting = True
                    if replaced:
                        self.gossip.meet_twin(f"as {neighbour.name} says")
                return []
            case Hello() | Advert() | Pulse() | Suspicion():
                return []  # The link has used the first; the others come only inside others.
        raise AssertionError(f"a message that no part handles: {type(message).__name__}")

    def _fired(self, timer: Timer, now: float) -> list[Effect]:
        if isinstance(timer, TaskTimer):
            return timing.fired(self.asking, timer, now)
        match timer:
            case GossipDue():
                return self.gossip.due(self.roster.nodes(), now)
            case BurialDue():
                self._lost(self.gossip.bury_overdue(now), now)
                return []
            case SweepDue():
                return self._swept(now)
            case PongOverdue():
                return self.roster.pong_overdue(timer, now)
            case ServiceDeadlinePassed():
                return self.serving.deadline_passed(timer, now)
            case PlanOverdue():
                return self.leading.overdue(timer, now)
            case PlanRetryDue():
                return self.leading.retry_due(timer, now)
            case LeadsDue():
                return self.leads.due(timer, now)
            case LeadOverdue():
                return self.leads.overdue(timer, now)
            case AdvertDue():
                return self.issuer.due(timer, now)
            case DigestDue():
                return self.gossip.digest_due(self.roster.nodes())
            case SuspectDue(node, seen):
                own = self.suspicions.suspect(node, seen, now)
                return [] if own is None else self.gossip.spread(own, self.roster.nodes())
            case _:
                assert_never(timer)

    # --- What several parts have a share in ---------------------------------------------------------------------------

    def _up(self, event: NeighbourUp, now: float) -> list[Effect]:
        effects = self.roster.add(
            event.node, event.name, event.addresses, event.dialled, now, seen=event.seen, relay=event.relay
        )
        if event.node in self._pinged:
            del self._pinged[event.node]
            effects += self.roster.ask(event.node, now)
        self.contacts.linked(event.node, event.addresses, event.dialled, now)
        joined = Notify(PeerJoined(event.node, event.name))
        return [joined, *effects, *self.gossip.greet(event.node, bool(event.dialled), now), *self.leads.linked(event.node)]

    def _down(self, node: NodeId, cause: str, now: float) -> list[Effect]:
        neighbour = self.roster.remove(node)
        asked = neighbour is not None and neighbour.asked
        relays = [*self.reach.unlinked(node, now), *self._moved(now)]
        self.contacts.unlinked(node, neighbour is not None and neighbour.parting, now)
        self.gossip.unlinked(node)
        effects: list[Effect] = [] if neighbour is None else [Notify(PeerLost(node, neighbour.name, cause))]
        effects += [*([Notify(PingFailed(node, cause))] if asked else []), *relays]
        if neighbour is None or not neighbour.parting:
            # First-hand knowledge beats rumours: until it speaks again, this worker is not there.
            if self.index.get(node) is not None:
                self.suspicions.lost(now)
                due = SuspectDue(node, self.index.version(node))
                effects.append(SetTimer(self._settings.suspect_after_s, due))
            self.index.forget(node)
        effects += self.serving.requester_lost(node, now) + self.asking.lost(node, cause, now) + self.leads.lost(node, now)
        return effects + self._load_changed(now)

    def _dial_failed(self, contact: Contact, cause: str, now: float) -> list[Effect]:
        if contact.node not in self.leads and self.contacts.is_untried_record(contact):
            self.leads.refuse(SILENT)
        effects = self.contacts.failed(contact, cause, now)
        if contact.node in self._pinged:
            del self._pinged[contact.node]
            effects.append(Notify(PingFailed(contact.node, cause)))
        if contact.node is not None and contact.node not in self.roster:
            self.index.forget(contact.node)
            self.roster.remove(contact.node)
            effects += self.asking.lost(contact.node, cause, now) + self.leads.lost(contact.node, now)
        return effects + self._dial(now)

    def _reach(self, node: NodeId) -> list[Effect]:
        if node == self.node or node in self.roster:
            return []
        known = self.index.get(node)
        return [self.contacts.dial(Contact(node, known.advert.addresses))] if known else []

    def _ping_asked(self, node: NodeId, now: float) -> list[Effect]:
        if node in self.roster:
            return self.roster.ask(node, now)
        effects = self._reach(node)
        if not effects:
            return [Notify(PingFailed(node, "No address of it is known."))]
        self._pinged[node] = None
        return effects

    def _moved(self, now: float) -> list[Effect]:
        """Tell others if this node can be dialled elsewhere than they know, or has become a relay."""
        addresses = self.reach.addresses
        effects = self.issuer.move(addresses, self.reach.relaying, now)
        if addresses != self._addresses:
            self._addresses = addresses
            self.contacts.settle(addresses)
            effects.append(Announce(addresses))
        return effects

    def _seek(self, skill: str, subject: Subject) -> list[Effect]:
        """Ask the neighbours who has a skill, and the DHT who provides just what is wanted."""
        pulls = [Send(node, AdvertPull(skill, SOUGHT_MAX)) for node in self.roster.nodes()[:SOUGHT_NEIGHBOURS_MAX]]
        return [FindProviders(subject), *pulls]

    def _public_place(self, node: NodeId) -> str:
        known = self.index.get(node)
        return public_place(known.advert.addresses) if known is not None and node not in self.roster else ""

    def _is_worth_keeping(self, node: NodeId) -> bool:
        """In a view too small for the swarm: those that were seen to answer, and the neighbours."""
        return node in self.roster or node in self.standings

    def _dial(self, now: float) -> list[Effect]:
        return self.contacts.wanted(self.roster.nodes(), now)

    def _swept(self, now: float) -> list[Effect]:
        working = [*self.asking.workers(), *self.serving.requesters()]
        effects = self.roster.sweep(now, [*working, *self.reach.relays, *self.reach.carried])
        effects += [*self.reach.due(working, now), *self._moved(now)]
        self._lost([*self.index.sweep(now), *self.gossip.bury_overdue(now)], now)
        effects += self.contacts.reconnection(self.index.__contains__, len(self.index), now)
        few = len(self.roster) < self._settings.neighbours_target
        if few and now - self._searched_at >= self._settings.search_period_s:
            self._searched_at = now
            effects.append(FindProviders(MEMBERSHIP))
        return [*effects, *self._dial(now), SetTimer(self._settings.sweep_period_s, SweepDue())]

    def _lost(self, nodes: list[NodeId], now: float) -> None:
        """Others take them for dead, or nothing is heard of them."""
        for node in nodes:
            if node not in self.roster:
                self.contacts.lose(node, now)

    def _load_changed(self, now: float) -> list[Effect]:
        return self.issuer.load_changed(now)

    def _used(self, node: NodeId, now: float) -> None:
        neighbour = self.roster.get(node)
        if neighbour is not None:
            neighbour.used_at = now

    def _stop(self, now: float) -> list[Effect]:
        effects = self.serving.drain() + self.leading.stop(now) + self.asking.stop(now) + self.issuer.leave(now)
        for neighbour in self.roster:
            effects.append(Send(neighbour.node, Goodbye(True, "stopping")))
        return effects
