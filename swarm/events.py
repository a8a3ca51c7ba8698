"""All that can happen to a member. Events are past; the driver of either world makes them."""

from dataclasses import dataclass

from protocol.identity import NodeId
from protocol.messages import AttemptId, Capability, Message, TaskId
from swarm.effects import Timer
from swarm.values import Contact, Subject, Task, Usage


@dataclass(frozen=True, slots=True)
class Started:
    """The world is ready; `addresses` are where this node can be dialled. Exactly once, before anything else."""

    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NeighbourUp:
    """A link is open and the peer's Hello has been checked. `dialled`: the address that led there, empty if the peer dialled us."""

    node: NodeId
    name: str
    addresses: tuple[str, ...]
    dialled: str


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
class AskCancelled:
    """The user is no longer interested."""

    task: TaskId


@dataclass(frozen=True, slots=True)
class CapabilitiesChanged:
    """What this node's own models can do now, all of it: only what has just passed a self-test."""

    capabilities: tuple[Capability, ...]


@dataclass(frozen=True, slots=True)
class PieceGenerated:
    """A model of this node has produced text for an attempt, and `tokens` are those it drew since the text before."""

    attempt: AttemptId
    text: str
    tokens: tuple[int, ...] = ()


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
class Stopping:
    """The node is about to stop: refuse new work, tell the neighbours."""


Event = (
    Started
    | NeighbourUp
    | NeighbourDown
    | DialFailed
    | ContactsFound
    | Received
    | Undelivered
    | TimerFired
    | Asked
    | AskCancelled
    | CapabilitiesChanged
    | PieceGenerated
    | GenerationFinished
    | GenerationFailed
    | LoopLate
    | Stopping
)
