"""The legal order of the messages of one attempt, as a table that both ends keep.

Messages cross on the way: a cancel may meet an accept, a piece or the end of the answer, and neither side is at fault.
Hence the stage CANCELLING, in which the requester still takes whatever the worker had already sent. An attempt lives and
dies with its link; once it is closed, what still arrives for it is late and is dropped.

Open attempts are counted for each direction alone. A worker opens an attempt after its requester and closes it before,
so it never counts more than the requester does; one count for both would blame a peer for requests that cross.
"""

from enum import Enum

from protocol import limits as lim
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.messages import (
    Message,
    TaskAccepted,
    TaskCancelled,
    TaskFailed,
    TaskFinished,
    TaskPiece,
    TaskRefused,
    TaskRequest,
)
from protocol.parts import AttemptId

TaskMessage = TaskRequest | TaskAccepted | TaskRefused | TaskPiece | TaskFinished | TaskFailed | TaskCancelled
TASK_MESSAGES = (TaskRequest, TaskAccepted, TaskRefused, TaskPiece, TaskFinished, TaskFailed, TaskCancelled)


class Side(Enum):
    """The two ends of an attempt."""

    REQUESTER = "requester"
    WORKER = "worker"


class Stage(Enum):
    """How far an attempt is."""

    IDLE = "idle"
    REQUESTED = "requested"
    STREAMING = "streaming"
    CANCELLED_EARLY = "cancelled early"  # A cancel was sent before any accept: one may still come.
    CANCELLING = "cancelling"
    CLOSED = "closed"


TRANSITIONS: dict[tuple[Stage, Side, type[Message]], Stage] = {
    (Stage.IDLE, Side.REQUESTER, TaskRequest): Stage.REQUESTED,
    (Stage.REQUESTED, Side.WORKER, TaskAccepted): Stage.STREAMING,
    (Stage.REQUESTED, Side.WORKER, TaskRefused): Stage.CLOSED,
    (Stage.REQUESTED, Side.REQUESTER, TaskCancelled): Stage.CANCELLED_EARLY,
    (Stage.STREAMING, Side.WORKER, TaskPiece): Stage.STREAMING,
    (Stage.STREAMING, Side.WORKER, TaskFinished): Stage.CLOSED,
    (Stage.STREAMING, Side.WORKER, TaskFailed): Stage.CLOSED,
    (Stage.STREAMING, Side.REQUESTER, TaskCancelled): Stage.CANCELLING,
    (Stage.CANCELLED_EARLY, Side.WORKER, TaskAccepted): Stage.CANCELLING,
    (Stage.CANCELLED_EARLY, Side.WORKER, TaskRefused): Stage.CLOSED,
    (Stage.CANCELLING, Side.WORKER, TaskPiece): Stage.CANCELLING,
    (Stage.CANCELLING, Side.WORKER, TaskFinished): Stage.CLOSED,
    (Stage.CANCELLING, Side.WORKER, TaskFailed): Stage.CLOSED,
}


def sender(message: TaskMessage) -> Side:
    """Which side sends this kind of message."""
    return Side.REQUESTER if isinstance(message, TaskRequest | TaskCancelled) else Side.WORKER


class Exchanges:
    """Every open attempt between this node and one peer, at most EXCHANGES_PER_LINK_MAX in each direction."""

    def __init__(self) -> None:
        self._open: dict[AttemptId, tuple[Side, Stage]] = {}  # The side is ours.
        self._count = {Side.REQUESTER: 0, Side.WORKER: 0}

    def __len__(self) -> int:
        return len(self._open)

    def stage(self, attempt: AttemptId) -> Stage:
        """How far an attempt is; unknown ones are IDLE."""
        return self._open.get(attempt, (Side.REQUESTER, Stage.IDLE))[1]

    def sent(self, message: TaskMessage) -> bool:
        """Note that we send this. False: it must not be sent; the attempt is closed, or a TaskRequest finds no room.

        Raises LocalProtocolError for a message out of order, which is a bug in this program.
        """
        ours = sender(message)
        known = self._open.get(message.attempt)
        if known is None and not isinstance(message, TaskRequest):
            return False
        if known is None and self._count[Side.REQUESTER] >= lim.EXCHANGES_PER_LINK_MAX:
            return False
        side, stage = known or (ours, Stage.IDLE)
        after = TRANSITIONS.get((stage, ours, type(message))) if side is ours else None
        if after is None:
            raise LocalProtocolError(f"{type(message).__name__} as {ours.value} in stage {stage.value}")
        self._move(message.attempt, ours, after)
        return True

    def received(self, message: TaskMessage) -> bool:
        """Note that the peer sent this. False: it is late and means nothing any more.

        Raises RemoteProtocolError for a message out of order.
        """
        theirs = sender(message)
        ours = Side.WORKER if theirs is Side.REQUESTER else Side.REQUESTER
        known = self._open.get(message.attempt)
        if known is None and isinstance(message, TaskCancelled):
            return False  # It crossed the end of the answer.
        full = self._count[Side.WORKER] >= lim.EXCHANGES_PER_LINK_MAX
        if known is None and isinstance(message, TaskRequest) and full:
            raise RemoteProtocolError("crowded", "too many attempts open at once")
        side, stage = known or (ours, Stage.IDLE)
        after = TRANSITIONS.get((stage, theirs, type(message))) if side is ours else None
        if after is None:
            raise RemoteProtocolError(
                "disorder", f"{type(message).__name__} from the {theirs.value} in stage {stage.value}"
            )
        self._move(message.attempt, ours, after)
        return True

    def _move(self, attempt: AttemptId, ours: Side, after: Stage) -> None:
        if attempt not in self._open:
            self._count[ours] += 1
        self._open[attempt] = (ours, after)
        if after is Stage.CLOSED:
            self._count[ours] -= 1
            del self._open[attempt]
