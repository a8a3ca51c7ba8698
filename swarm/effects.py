"""All that a member may ask of its world: effects, the timers it sets, the notices it gives. The driver never waits for one."""

from dataclasses import dataclass

from protocol.identity import NodeId
from protocol.messages import Message, TaskRequest
from protocol.parts import AttemptId, Logprob, TaskId
from swarm.values import AttemptWhy, Contact, Outcome, PlanId, PlanOutcome, Routing, Subject, Task

# --- Timers: data, never cancelled. One that has lost its reason finds nothing when it fires. ------------------------


@dataclass(frozen=True, slots=True)
class GossipDue:
    """Time for a round of gossip."""


@dataclass(frozen=True, slots=True)
class AdvertDue:
    """Time for this node to give a sign of life again, if `version` still counts its latest."""

    version: int


@dataclass(frozen=True, slots=True)
class DigestDue:
    """Time to compare with a neighbour what both know."""


@dataclass(frozen=True, slots=True)
class SuspectDue:
    """Time to tell others that this neighbour is lost, unless it has come back or said more than `seen` since."""

    node: NodeId
    seen: int


@dataclass(frozen=True, slots=True)
class BurialDue:
    """A node that is said to be dead has had its time to refute that."""


@dataclass(frozen=True, slots=True)
class SweepDue:
    """Time to forget what has expired, to ping the silent and to look for neighbours."""


@dataclass(frozen=True, slots=True)
class PongOverdue:
    """A neighbour should have answered this Ping by now."""

    node: NodeId
    nonce: int


@dataclass(frozen=True, slots=True)
class AcceptOverdue:
    """The worker should have accepted or refused by now."""

    task: TaskId
    attempt: AttemptId


@dataclass(frozen=True, slots=True)
class PieceOverdue:
    """The worker should have sent the next piece by now, if `pieces` is still the count."""

    task: TaskId
    attempt: AttemptId
    pieces: int


@dataclass(frozen=True, slots=True)
class HedgeDue:
    """The worker should have spoken by now, if it is as fast as it usually is."""

    task: TaskId
    attempt: AttemptId


@dataclass(frozen=True, slots=True)
class WatchDue:
    """Time to look whether the worker still gives signs of life."""

    task: TaskId
    attempt: AttemptId


@dataclass(frozen=True, slots=True)
class RetryDue:
    """Those who were busy may be asked again, if `round` is still the latest."""

    task: TaskId
    round: int


@dataclass(frozen=True, slots=True)
class SearchOverdue:
    """Somebody able should have been found by now, if the task still seeks this."""

    task: TaskId
    subject: Subject


@dataclass(frozen=True, slots=True)
class LeadsDue:
    """Time to dial the next of those who are said to provide this."""

    subject: Subject


@dataclass(frozen=True, slots=True)
class LeadOverdue:
    """This provider should have given its advert by now, if the dial or link of this number is still its latest."""

    node: NodeId
    number: int


@dataclass(frozen=True, slots=True)
class DeadlinePassed:
    """The task's time is over, at the requester."""

    task: TaskId


@dataclass(frozen=True, slots=True)
class ServiceDeadlinePassed:
    """The attempt's time is over, at the worker."""

    attempt: AttemptId


@dataclass(frozen=True, slots=True)
class PlanOverdue:
    """The plan's time is over."""

    plan: PlanId


@dataclass(frozen=True, slots=True)
class PlanRetryDue:
    """A task of a plan that came to nothing may be asked again."""

    plan: PlanId
    step: str
    index: int


Timer = (
    GossipDue
    | AdvertDue
    | DigestDue
    | SuspectDue
    | BurialDue
    | SweepDue
    | PongOverdue
    | AcceptOverdue
    | PieceOverdue
    | HedgeDue
    | WatchDue
    | RetryDue
    | SearchOverdue
    | LeadsDue
    | LeadOverdue
    | DeadlinePassed
    | ServiceDeadlinePassed
    | PlanOverdue
    | PlanRetryDue
)

# --- Notices: what is worth showing to people ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PeerJoined:
    """A neighbour is here."""

    node: NodeId
    name: str


@dataclass(frozen=True, slots=True)
class PeerLost:
    """A neighbour is gone."""

    node: NodeId
    name: str
    cause: str


@dataclass(frozen=True, slots=True)
class JoinFailed:
    """An address that the user gave does not lead to a node of this swarm."""

    address: str
    cause: str


@dataclass(frozen=True, slots=True)
class Routed:
    """A worker was chosen for an attempt of a task, with all reasons; `why` there is one more attempt."""

    task: TaskId
    routing: Routing
    why: AttemptWhy = "first"


@dataclass(frozen=True, slots=True)
class WorkerAccepted:
    """The worker has taken the task on."""

    task: TaskId
    worker: NodeId
    name: str
    model: str
    ahead: int


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """An attempt ended without an answer; the task may go on elsewhere."""

    task: TaskId
    worker: NodeId
    name: str
    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class PingAnswered:
    """A node that a user asked about has answered."""

    node: NodeId
    rtt_s: float


@dataclass(frozen=True, slots=True)
class PingFailed:
    """A node that a user asked about cannot be reached."""

    node: NodeId
    cause: str


@dataclass(frozen=True, slots=True)
class StepAdvanced:
    """So many tasks of a plan's step are settled, of so many; `known` of them from an earlier run."""

    plan: PlanId
    step: str
    settled: int
    of: int
    known: int


Notice = (
    PeerJoined | PeerLost | JoinFailed | Routed | WorkerAccepted | AttemptFailed | PingAnswered | PingFailed | StepAdvanced
)

# --- Effects ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Send:
    """Hand a message to the link with this peer; a peer that is being dialled gets it when the link is open."""

    to: NodeId
    message: Message


@dataclass(frozen=True, slots=True)
class SetTimer:
    """Fire this timer once, after this delay."""

    delay_s: float
    timer: Timer


@dataclass(frozen=True, slots=True)
class Dial:
    """Open a link, trying the addresses in order. Ends in NeighbourUp or DialFailed.

    `trusted` of them may lead anywhere: the user gave them, or this network told of them. The others come from strangers, and must
    not lead into networks that this node is not in, whatever their names mean.
    `upgrade`: there is a link, but a relay carries it. If a direct one can be opened it takes the place of the old one, with
    NeighbourDown and NeighbourUp; if not, nothing happens.
    """

    contact: Contact
    upgrade: bool = False
    trusted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DialBack:
    """See whether this neighbour can be dialled at these addresses, without using its link. Ends in DialledBack."""

    node: NodeId
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class UseRelays:
    """Have these neighbours, and no others any more, carry links to this node. RelayChanged tells what became of it."""

    nodes: tuple[NodeId, ...]


@dataclass(frozen=True, slots=True)
class Announce:
    """Tell new neighbours these addresses of this node from now on."""

    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Close the link with this peer at once, without waiting for it."""

    node: NodeId
    cause: str


@dataclass(frozen=True, slots=True)
class Generate:
    """Let a model of this node work. Ends in GenerationFinished or GenerationFailed, always."""

    request: TaskRequest
    model: str


@dataclass(frozen=True, slots=True)
class StopGenerating:
    """Stop that work soon; GenerationFailed follows unless it had just finished."""

    attempt: AttemptId


@dataclass(frozen=True, slots=True)
class Reply:
    """The next text of the answer, for the user, and how likely its tokens were if the task demands it."""

    task: TaskId
    text: str
    logprobs: tuple[Logprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Conclude:
    """The task has ended. Exactly one for each Asked."""

    task: TaskId
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Assigned:
    """A task of a plan begins now: the only one of its step, or the one for an element. It ends in Conclude as all do.

    If that is no answer, another task may be given out for the same place later. `key` is the same for the same question only,
    whenever the plan is carried out.
    """

    plan: PlanId
    step: str
    index: int
    key: str
    task: Task


@dataclass(frozen=True, slots=True)
class PlanConcluded:
    """The plan has ended. Exactly one for each PlanAsked."""

    plan: PlanId
    outcome: PlanOutcome


@dataclass(frozen=True, slots=True)
class Provide:
    """Tell the DHT that this node provides these, besides membership, and nothing else any more."""

    subjects: tuple[Subject, ...]


@dataclass(frozen=True, slots=True)
class FindProviders:
    """Ask the DHT who provides this. Answered by ContactsFound, perhaps more than once."""

    subject: Subject


@dataclass(frozen=True, slots=True)
class Notify:
    """Show this to whoever watches."""

    notice: Notice


Effect = (
    Send
    | SetTimer
    | Dial
    | Disconnect
    | DialBack
    | UseRelays
    | Announce
    | Generate
    | StopGenerating
    | Reply
    | Conclude
    | Assigned
    | PlanConcluded
    | Provide
    | FindProviders
    | Notify
)
