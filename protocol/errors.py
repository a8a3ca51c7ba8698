"""What can go wrong on the wire: two exceptions, and the numbered codes that peers and users see."""

from dataclasses import dataclass


class ProtocolError(Exception):
    """A rule of the wire was broken."""


class LocalProtocolError(ProtocolError):
    """This program was about to break a rule. Nothing was sent. It is a bug here."""


class RemoteProtocolError(ProtocolError):
    """The peer broke a rule. Nothing of the offending message was believed; the link should be closed.

    `kind` is one word for counting: `garbage`, `forged`, `replayed`, `stale`, `foreign`, `disorder`, `oversized`, `crowded`.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class ErrorCode:
    """One outcome that is not an answer.

    `definite` means: the work was not done and will not be done there, so a retry elsewhere costs nothing, and the worker
    is not to blame.
    """

    number: int
    name: str
    definite: bool
    meaning: str


BUSY = ErrorCode(1, "busy", True, "All slots and the queue are taken. Try another worker.")
DRAINING = ErrorCode(2, "draining", True, "The node takes no more work of others. Try another worker.")
NO_SUCH_CAPABILITY = ErrorCode(3, "no_such_capability", True, "The worker does not offer this skill with this model.")
TOO_LONG = ErrorCode(4, "too_long", True, "Input and answer do not fit the model's context.")
NOT_ALLOWED = ErrorCode(5, "not_allowed", True, "The worker does not serve this requester.")
BAD_REQUEST = ErrorCode(6, "bad_request", True, "The skill cannot use this input. Another worker will not either.")
OVER_QUOTA = ErrorCode(7, "over_quota", True, "The requester has its share of the queue already. Try another worker.")
CANCELLED = ErrorCode(16, "cancelled", False, "The requester took the task back.")
BACKEND_FAILED = ErrorCode(17, "backend_failed", False, "The model failed while it worked.")
DEADLINE_EXCEEDED = ErrorCode(18, "deadline_exceeded", False, "The time for the task is over.")
UNREACHABLE = ErrorCode(32, "unreachable", False, "No connection to the worker could be made.")
ACCEPT_OVERDUE = ErrorCode(33, "accept_overdue", False, "The worker did not accept in time.")
STALLED = ErrorCode(34, "stalled", False, "The worker accepted and then fell silent.")
CONNECTION_LOST = ErrorCode(35, "connection_lost", False, "The connection to the worker broke.")
NO_CAPABLE_PEER = ErrorCode(48, "no_capable_peer", True, "No known worker offers what the task needs.")
EXHAUSTED = ErrorCode(49, "exhausted", False, "Every worker that could be tried has refused or failed.")
STREAM_BROKEN = ErrorCode(
    50, "stream_broken", False, "The worker was lost after part of the answer had been delivered."
)
SHUTTING_DOWN = ErrorCode(51, "shutting_down", True, "This node is stopping.")
TOO_MANY_TASKS = ErrorCode(52, "too_many_tasks", True, "This node has too many unfinished tasks of its own.")

ERROR_CODES: dict[int, ErrorCode] = {
    code.number: code
    for code in (
        BUSY, DRAINING, NO_SUCH_CAPABILITY, TOO_LONG, NOT_ALLOWED, BAD_REQUEST, OVER_QUOTA,
        CANCELLED, BACKEND_FAILED, DEADLINE_EXCEEDED,
        UNREACHABLE, ACCEPT_OVERDUE, STALLED, CONNECTION_LOST,
        NO_CAPABLE_PEER, EXHAUSTED, STREAM_BROKEN, SHUTTING_DOWN, TOO_MANY_TASKS,
    )
}  # fmt: skip
UNKNOWN_CODE_MEANING = "A code that this version does not know."


def error_code(number: int) -> ErrorCode:
    """The code with this number. Unknown numbers come from newer peers and count as indefinite."""
    return ERROR_CODES.get(number) or ErrorCode(number, f"code_{number}", False, UNKNOWN_CODE_MEANING)
