"""Hands each timer of a task to what it is for."""

from typing import assert_never

from swarm.doing.asking import Asking
from swarm.effects import (
    AcceptOverdue,
    DeadlinePassed,
    Effect,
    HedgeDue,
    PieceOverdue,
    RetryDue,
    SearchOverdue,
    WatchDue,
)

TaskTimer = AcceptOverdue | PieceOverdue | HedgeDue | WatchDue | RetryDue | SearchOverdue | DeadlinePassed


def fired(asking: Asking, timer: TaskTimer, now: float) -> list[Effect]:
    """What the requester does about it."""
    match timer:
        case AcceptOverdue():
            return asking.accept_overdue(timer, now)
        case PieceOverdue():
            return asking.piece_overdue(timer, now)
        case HedgeDue():
            return asking.hedge_due(timer, now)
        case WatchDue():
            return asking.watch_due(timer, now)
        case RetryDue():
            return asking.retry_due(timer, now)
        case SearchOverdue():
            return asking.search_overdue(timer, now)
        case DeadlinePassed():
            return asking.deadline_passed(timer, now)
        case _:
            assert_never(timer)
