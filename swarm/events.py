"""All that can happen to a member. Events are past; the driver of either world makes them."""

from collections.abc import Mapping
from dataclasses import dataclass

from protocol.identity import NodeId
from protocol.messages import Message
from protocol.parts import AttemptId, Capability, Logprob, TaskId
from swarm.effects import Timer
from swarm.plans import Plan
from swarm.values import Contact, PlanId, Subject, Task, Usage


@dataclass(frozen=True, slots=True)
class Started:
    """The world is ready; `addresses` are where this node can be dialled. Exactly once, before anything else."""

    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AddressesChanged:
    """This machine is in another network, or its router lets others in: these are the addresses now, all of them."""

    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NeighbourUp:
    """A link is open and the peer's Hello has been checked. `dialled`: the address that led there, empty if the peer dialled us.

    `seen` is where the peer's end of the link is, as this machine sees it, without a port (`/ip4/192.0.2.7`); empty if that is not
    known. `relay` is who carries the link, if it is not direct.
    """

    node: NodeId
    name: str
    addresses: tuple[str, ...]
    dialled: str
    seen: str = ""
    relay: NodeId | None = None


@dataclass(frozen=True, slots=True)
class NeighbourDown:
    """The link is gone; nothing more comes from it. `cause` is for people."""

    node: NodeId
    cause: str


@dataclass(frozen=True, slots=True)
class DialFailed:
    """A Dial effect came to nothing. `cause` is for people."""

    contact: Contact
    cause: str


@dataclass(frozen=True, slots=True)
class DialledBack:
    """The DialBack that a neighbour asked for has ended; `reached` are the addresses where the neighbour answered."""

    node: NodeId
    reached: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RelayChanged:
    """A relay carries links to this node at these addresses from now on; none: it does not, or no longer does."""

    node: NodeId
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CarriedChanged:
    """These neighbours, and no others, have been promised that this node carries links to them."""

    nodes: tuple[NodeId, ...]


@dataclass(frozen=True, slots=True)
class ContactsFound:
    """Somebody may be reachable. `source` is `join`, `mdns`, `dht` or `saved`; `subject` is what the DHT was asked for.

    Answers of the DHT are hints: nobody has proved yet that these exist or offer anything. The likeliest come first.
    """

    source: str
    subject: Subject
    contacts: tuple[Contact, ...]


@dataclass(frozen=True, slots=True)
class Received:
    """A peer's message: checked by the link, in order."""

    sender: NodeId
    message: Message


@dataclass(frozen=True, slots=True)
class Undelivered:
    """A Send could not be handed to any link; the peer never saw it."""

    to: NodeId
    message: Message


@dataclass(frozen=True, slots=True)
class TimerFired:
    """A SetTimer's delay has passed."""

    timer: Timer


@dataclass(frozen=True, slots=True)
class Asked:
    """A user of this node asks for a task."""

    task: Task


@dataclass(frozen=True, slots=True)
class PlanAsked:
    """A user of this node asks for a plan. `known`: answers of an earlier run, by the keys that Assigned told."""

    id: PlanId
    plan: Plan
    known: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class PlanCancelled:
    """The user is no longer interested."""

    plan: PlanId


@dataclass(frozen=True, slots=True)
class PingAsked:
    """A user wants to know how far away a node is. PingAnswered or PingFailed follows, if the node answers or cannot be reached."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class AskCancelled:
    """The user is no longer interested."""

    task: TaskId


@dataclass(frozen=True, slots=True)
class CapabilitiesChanged:
    """What this node's own models can do now, all of it: only what has just passed a self-test.

    `resting` are the models that are out of memory: they are loaded for whoever asks, and hold nothing that they have read.
    """

    capabilities: tuple[Capability, ...]
    resting: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class PieceGenerated:
    """A model of this node has produced text for an attempt, and `tokens` are those it drew since the text before."""

    attempt: AttemptId
    text: str
    tokens: tuple[int, ...] = ()
    logprobs: tuple[Logprob, ...] = ()


@dataclass(frozen=True, slots=True)
class GenerationFinished:
    """A model of this node has completed an attempt."""

    attempt: AttemptId
    usage: Usage


@dataclass(frozen=True, slots=True)
class GenerationFailed:
    """A model of this node has given up on an attempt, or was stopped. `code` is a number of `protocol.errors`."""

    attempt: AttemptId
    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class LoopLate:
    """This node's own loop ran this late: silence of others may be its own deafness (Lifeguard, Dadgar 2018)."""

    late_s: float


@dataclass(frozen=True, slots=True)
class Reserved:
    """The owner wants the machine for itself, or has power to give again: its peers get no new work meanwhile."""

    reserved: bool


@dataclass(frozen=True, slots=True)
class Stopping:
    """The node is about to stop: refuse new work, tell the neighbours."""


Event = (
    Started
    | AddressesChanged
    | NeighbourUp
    | NeighbourDown
    | DialFailed
    | DialledBack
    | RelayChanged
    | CarriedChanged
    | ContactsFound
    | Received
    | Undelivered
    | TimerFired
    | Asked
    | PlanAsked
    | PlanCancelled
    | PingAsked
    | AskCancelled
    | CapabilitiesChanged
    | PieceGenerated
    | GenerationFinished
    | GenerationFailed
    | LoopLate
    | Reserved
    | Stopping
)
