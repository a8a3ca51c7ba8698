"""A few members joined by real links, with messages in flight, under a clock that only a test moves.

Nothing happens by itself: what is on its way waits in `pending()` until somebody lets it arrive, so a test can let any two
messages cross. Every message crosses as bytes through a `protocol.link.Link` at both ends, so one that is out of order, out of
bounds or wrongly sealed raises.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from random import Random

from protocol.genesis import swarm_id
from protocol.identity import Identity, NodeId
from protocol.link import Link
from protocol.messages import Message, TaskRequest
from protocol.notary import Notary
from protocol.parts import AttemptId, Capability
from swarm.effects import (
    Dial,
    DialBack,
    Disconnect,
    Effect,
    FindProviders,
    Generate,
    Send,
    SetTimer,
    StopGenerating,
    Timer,
)
from swarm.events import (
    CapabilitiesChanged,
    ContactsFound,
    DialFailed,
    DialledBack,
    Event,
    GenerationFailed,
    NeighbourDown,
    NeighbourUp,
    Received,
    Started,
    TimerFired,
    Undelivered,
)
from swarm.member import Member
from swarm.settings import Settings
from swarm.values import Contact, Subject

EPOCH_S = 1_700_000_000.0  # Seals carry the time since 1970.
DIAL_LIMIT_S = 5.0  # How long a dial waits for a machine that does not answer, as in the real transport.
SWARM = swarm_id("attic")


@dataclass(eq=False, slots=True)
class End:
    """One end of a link. `arriving` is what the other end has sent; None stands for the end of the stream."""

    link: Link
    other: "End | None" = None
    arriving: deque[bytes | None] = field(default_factory=deque)


@dataclass(eq=False, slots=True)
class Node:
    """One run of a member and what its world keeps for it."""

    name: str
    identity: Identity
    member: Member
    alive: bool = True
    frozen: bool = False
    draining: bool = False
    inbox: deque[Event] = field(default_factory=deque)
    ends: dict[NodeId, End] = field(default_factory=dict)
    dials: list[tuple[Contact, float]] = field(default_factory=list)
    waiting: dict[NodeId, list[Message]] = field(default_factory=dict)
    generations: dict[AttemptId, Generate] = field(default_factory=dict)
    stopped: list[AttemptId] = field(default_factory=list)

    @property
    def id(self) -> NodeId:
        return self.identity.node


Pending = tuple[str, str, str]
"""Something on its way: `("link", from, to)` or `("dial", who, "")`."""


def identity(name: str) -> Identity:
    """The same key for the same name, in every run."""
    return Identity(sha256(name.encode()).digest())


def address(name: str) -> str:
    return f"/memory/{name}"


def capability(skill: str, model: str, *, tokens_per_second: float = 20.0, slots: int = 1) -> Capability:
    return Capability(skill, model, b"", 2048, tokens_per_second, 100, slots, (), "")


class SmallWorld:
    """Performs the effects of every member. `observe` sees each event with all that came of it, before it is performed."""

    def __init__(self, observe: Callable[[Node, Event, list[Effect]], None]) -> None:
        self.now = EPOCH_S
        self.nodes: dict[str, Node] = {}
        self.timers: list[tuple[float, int, Node, Timer]] = []
        self.providers: dict[Subject, list[str]] = {}
        self._observe = observe
        self._dice = Random("links")  # Only for tokens and nonces.
        self._timers_set = 0
        self._starts = 0

    # --- Nodes --------------------------------------------------------------------------------------------------------

    def start(self, name: str, settings: Settings, capabilities: tuple[Capability, ...]) -> Node:
        """A new node, or a new run of one that was killed."""
        assert name not in self.nodes or not self.nodes[name].alive
        self._starts += 1
        who, dice = identity(name), Random(f"{name} {self._starts}")
        member = Member(who.node, name, settings, Notary(who, SWARM, dice), dice)
        node = self.nodes[name] = Node(name, who, member)
        self.post(node, Started((address(name),)))
        if capabilities:
            self.post(node, CapabilitiesChanged(capabilities))
        return node

    def kill(self, node: Node) -> None:
        """The process ends at once; its kernel closes the links behind what was already sent."""
        node.alive = False
        node.inbox.clear()
        self.timers = [entry for entry in self.timers if entry[2] is not node]
        for end in node.ends.values():
            assert end.other is not None
            end.other.arriving.append(None)
        node.ends.clear()

    def thaw(self, node: Node) -> None:
        node.frozen = False
        self._drain(node)

    def named(self, node: NodeId) -> Node:
        return next(known for known in self.nodes.values() if known.id == node)

    # --- Events -------------------------------------------------------------------------------------------------------

    def post(self, node: Node, event: Event) -> None:
        """As the driver does: one event after the other, each one's effects before the next."""
        if node.alive:
            node.inbox.append(event)
            self._drain(node)

    def _drain(self, node: Node) -> None:
        if node.draining or node.frozen:
            return
        node.draining = True
        while node.inbox:
            event = node.inbox.popleft()
            effects = node.member.handle(event, self.now)
            self._observe(node, event, effects)
            for effect in effects:
                self._perform(node, effect)
        node.draining = False

    def _perform(self, node: Node, effect: Effect) -> None:
        match effect:
            case DialBack(peer, addresses):
                self.post(node, DialledBack(peer, addresses))  # Nobody here is behind a router.
            case Send(to, message):
                self._send(node, to, message)
            case SetTimer(delay_s, timer):
                self._timers_set += 1
                self.timers.append((self.now + delay_s, self._timers_set, node, timer))
            case Dial(contact):
                if contact.node not in node.ends:
                    node.dials.append((contact, self.now))
            case Disconnect(peer, cause):
                self._close(node, peer, cause)
            case Generate(request):
                assert request.attempt not in node.generations, "one model run for an attempt"
                node.generations[request.attempt] = effect
            case StopGenerating(attempt):
                node.stopped.append(attempt)
            case FindProviders(subject):
                found = [Contact(identity(name).node, (address(name),)) for name in self.providers.get(subject, [])]
                self.post(node, ContactsFound("dht", subject, tuple(found)))

    # --- Models -------------------------------------------------------------------------------------------------------

    def end_generation(self, node: Node, event: Event) -> None:
        """A GenerationFinished or GenerationFailed."""
        attempt = event.attempt  # type: ignore[union-attr]
        del node.generations[attempt]
        if attempt in node.stopped:
            node.stopped.remove(attempt)
        self.post(node, event)

    def obey_stops(self, node: Node) -> None:
        """Models that were told to stop do so."""
        for attempt in list(node.stopped):
            if attempt in node.generations:
                self.end_generation(node, GenerationFailed(attempt, 16, ""))
        node.stopped.clear()

    # --- Time ---------------------------------------------------------------------------------------------------------

    def next_timer_at(self) -> float:
        """When the next timer of a node that can hear it is due."""
        return min((entry[0] for entry in self.timers if not entry[2].frozen), default=float("inf"))

    def fire_next_timer(self) -> None:
        """The earliest timer of a node that can hear it. Moves the clock there, never back: it may be late."""
        entry = min((entry for entry in self.timers if not entry[2].frozen), key=lambda entry: entry[:2])
        self.timers.remove(entry)
        self.now = max(self.now, entry[0])
        self.post(entry[2], TimerFired(entry[3]))

    # --- What is on its way -------------------------------------------------------------------------------------------

    def pending(self) -> list[Pending]:
        """All that could happen next, in a fixed order."""
        found: list[Pending] = []
        for node in self.nodes.values():
            if not node.alive or node.frozen:
                continue
            if self._ripe_dial(node) is not None:
                found.append(("dial", node.name, ""))
            for peer, end in node.ends.items():
                if end.arriving:
                    found.append(("link", self.named(peer).name, node.name))
        return found

    def let(self, pending: Pending) -> None:
        """Let one thing that is on its way arrive."""
        kind, who, to = pending
        if kind == "dial":
            self._settle_dial(self.nodes[who])
        else:
            self._arrive(self.nodes[to], identity(who).node)

    def break_link(self, node: Node, peer: Node, cause: str) -> None:
        """Both sides lose the link, and what was on its way."""
        for near, far in ((node, peer), (peer, node)):
            if near.ends.pop(far.id, None) is not None:
                self.post(near, NeighbourDown(far.id, cause))

    def _send(self, node: Node, to: NodeId, message: Message) -> None:
        end = node.ends.get(to)
        if end is not None:
            assert end.other is not None
            frame = end.link.send(message, self.now)
            if frame:
                end.other.arriving.append(frame)
            elif isinstance(message, TaskRequest):
                self.post(node, Undelivered(to, message))
        elif any(contact.node == to for contact, _ in node.dials):
            node.waiting.setdefault(to, []).append(message)
        else:
            self.post(node, Undelivered(to, message))

    def _arrive(self, node: Node, peer: NodeId) -> None:
        end = node.ends[peer]
        chunk = end.arriving.popleft()
        if chunk is None:
            del node.ends[peer]
            self.post(node, NeighbourDown(peer, "the peer closed the connection"))
        else:
            for message in end.link.receive(chunk, self.now):
                self.post(node, Received(peer, message))

    def _close(self, node: Node, peer: NodeId, cause: str) -> None:
        """This side gives the link up; the other hears of it behind what was already sent."""
        end = node.ends.pop(peer, None)
        if end is not None:
            assert end.other is not None
            end.other.arriving.append(None)
            self.post(node, NeighbourDown(peer, cause))

    # --- Dials --------------------------------------------------------------------------------------------------------

    def _ripe_dial(self, node: Node) -> int | None:
        """The first dial of this node that can end now: somebody answers, nobody does, or the wait is over."""
        for at, (contact, since) in enumerate(node.dials):
            there = self._at(contact)
            if there is None or not there.frozen or self.now - since >= DIAL_LIMIT_S:
                return at
        return None

    def _at(self, contact: Contact) -> Node | None:
        """Who answers at a contact's addresses."""
        for node in self.nodes.values():
            if node.alive and address(node.name) in contact.addresses:
                return node
        return None

    def _settle_dial(self, node: Node) -> None:
        at = self._ripe_dial(node)
        assert at is not None
        contact, _ = node.dials.pop(at)
        there = self._at(contact)
        cause = ""
        if there is None:
            cause = "nothing answers there"
        elif there is node:
            cause = "that is this node itself"
        elif contact.node not in (None, there.id):
            cause = "somebody else answers there"
        elif there.frozen:
            cause = "no answer"
        elif there.id not in node.ends:
            self._connect(node, there)
        if cause:
            self.post(node, DialFailed(contact, cause))
        if contact.node is not None and all(other.node != contact.node for other, _ in node.dials):
            for message in node.waiting.pop(contact.node, []):
                self.post(node, Undelivered(contact.node, message))

    def _connect(self, node: Node, there: Node) -> None:
        """Both Hellos at once; then both sides are told. A link that the dialler has given up already is replaced."""
        if there.ends.pop(node.id, None) is not None:
            self.post(there, NeighbourDown(node.id, "the peer opened a new connection"))
        near = End(Link(node.identity, there.id, SWARM, self._dice))
        far = End(Link(there.identity, node.id, SWARM, self._dice), near)
        near.other = far
        far.link.receive(near.link.hello(node.name, "test", (address(node.name),), self.now), self.now)
        near.link.receive(far.link.hello(there.name, "test", (address(there.name),), self.now), self.now)
        node.ends[there.id], there.ends[node.id] = near, far
        self.post(node, NeighbourUp(there.id, there.name, (address(there.name),), address(there.name)))
        self.post(there, NeighbourUp(node.id, node.name, (address(node.name),), ""))
        for one, two in ((node, there), (there, node)):
            for message in one.waiting.pop(two.id, []):
                self._send(one, two.id, message)
