"""What SPEC.md asks of requesters beyond bytes."""

import pytest

from protocol import errors
from protocol.identity import NodeId
from protocol.messages import AdvertPush, TaskAccepted, TaskCancelled, TaskFinished, TaskPiece, TaskRefused, TaskRequest
from swarm.effects import Conclude, Reply
from swarm.events import (
    Asked,
    NeighbourDown,
)
from tests.conduct import Actor, advert, task
from tests.strategies import ADA, EVE

# --- Requesters -------------------------------------------------------------------------------------------------------


class Asking(Actor):
    """Bob's user has asked; Ada and Eve could both do it. `first` was asked first."""

    def __init__(self, numerics: bytes = b"") -> None:
        super().__init__()
        self.up(ADA, EVE)
        for worker in (ADA, EVE):
            self.hear(AdvertPush((advert(worker, numerics=numerics),)), worker)
        self.costs = self.cost()
        self.tell(Asked(task()))
        (self.first,) = [peer for peer in (ADA, EVE) if self.said(TaskRequest, peer)]
        self.second = EVE if self.first is ADA else ADA
        (self.request,) = self.said(TaskRequest, self.first)
        self.attempt = self.request.attempt

    def cost(self) -> dict[NodeId, float]:
        """What each worker would cost now."""
        return {candidate.node: candidate.cost_s for candidate in self.member.route(task()).candidates}

    def outcome(self) -> str:
        (concluded,) = self.all(Conclude)
        return concluded.outcome.code.name if concluded.outcome.code else "answered"


def test_a_refusal_sends_the_task_elsewhere_at_once_and_blames_nobody() -> None:
    """[CND-8] [CND-11] The refusing worker stands as it stood."""
    bob = Asking()
    bob.hear(TaskRefused(bob.attempt, errors.TOO_LONG.number, ""), bob.first)
    (request,) = bob.said(TaskRequest, bob.second)
    assert request.attempt != bob.attempt
    assert bob.cost()[bob.first.node] == pytest.approx(bob.costs[bob.first.node])


def test_a_bad_request_is_bad_everywhere() -> None:
    """[CND-8] The one refusal that ends the task."""
    bob = Asking()
    bob.hear(TaskRefused(bob.attempt, errors.BAD_REQUEST.number, ""), bob.first)
    assert bob.said(TaskRequest, bob.second) == []
    assert bob.outcome() == "bad_request"


def test_a_silent_worker_is_cancelled_and_passed_over() -> None:
    """[CND-9] [CND-11] After the accept limit, and not before."""
    bob = Asking()
    bob.wait(bob.settings.accept_limit_s - 0.1)
    assert bob.said(TaskCancelled, bob.first) == []
    bob.wait(0.2)
    assert bob.said(TaskCancelled, bob.first) == [TaskCancelled(bob.attempt)]
    assert len(bob.said(TaskRequest, bob.second)) == 1


def test_a_worker_that_falls_silent_in_mid_answer_is_cancelled() -> None:
    """[CND-9] [CND-11] What the user has read is not continued by a model that cannot."""
    bob = Asking()
    bob.hear(TaskAccepted(bob.attempt, "m", 0), bob.first)
    bob.hear(TaskPiece(bob.attempt, 0, "The sky"), bob.first)
    bob.wait(bob.settings.piece_limit_s + 0.1)
    assert bob.said(TaskCancelled, bob.first) == [TaskCancelled(bob.attempt)]
    assert bob.said(TaskRequest, bob.second) == []
    assert bob.outcome() == "stream_broken"


def test_another_worker_of_the_same_model_goes_on_in_mid_answer() -> None:
    """[CND-11] It is told what the user has; the rest is all that comes."""
    bob = Asking(numerics=b"bits")
    bob.hear(TaskAccepted(bob.attempt, "m", 0), bob.first)
    bob.hear(TaskPiece(bob.attempt, 0, "The sky", (1, 2)), bob.first)
    bob.tell(NeighbourDown(bob.first.node, "gone"))
    (request,) = bob.said(TaskRequest, bob.second)
    assert (request.delivered, request.delivered_tokens, request.turns) == ("The sky", (1, 2), bob.request.turns)
    assert request.sampling.seed == bob.request.sampling.seed > 0
    bob.hear(TaskAccepted(request.attempt, "m", 0), bob.second)
    bob.hear(TaskPiece(request.attempt, 0, " is blue.", (3,)), bob.second)
    bob.hear(TaskFinished(request.attempt, 1, "stop", 1, 3, 0, 0, 0), bob.second)
    assert [reply.text for reply in bob.all(Reply)] == ["The sky", " is blue."]
    assert bob.outcome() == "answered"


def test_of_two_attempts_under_way_the_one_that_speaks_goes_on_alone() -> None:
    """[CND-13] The first is silent, though its link is up."""
    bob = Asking()
    bob.wait(bob.settings.watch_after_s + 0.05)
    bob.wait(bob.settings.silence_limit_s)
    (request,) = bob.said(TaskRequest, bob.second)
    assert bob.said(TaskCancelled, bob.first) == []
    bob.hear(TaskAccepted(request.attempt, "m", 0), bob.second)
    bob.hear(TaskPiece(request.attempt, 0, "The sky"), bob.second)
    assert bob.said(TaskCancelled, bob.first) == [TaskCancelled(bob.attempt)]
    bob.hear(TaskPiece(bob.attempt, 0, "The heavens"), bob.first)
    assert [reply.text for reply in bob.all(Reply)] == ["The sky"]


def test_a_busy_worker_is_asked_again_after_a_while() -> None:
    """[CND-8] When nobody else is left."""
    bob = Asking()
    bob.hear(TaskRefused(bob.attempt, errors.BUSY.number, ""), bob.first)
    (request,) = bob.said(TaskRequest, bob.second)
    bob.hear(TaskRefused(request.attempt, errors.OVER_QUOTA.number, ""), bob.second)
    bob.wait(bob.settings.busy_wait_max_s)
    assert len(bob.said(TaskRequest, bob.first)) + len(bob.said(TaskRequest, bob.second)) == 3


def test_a_missing_piece_makes_the_attempt_a_failure() -> None:
    """[CND-10] In the middle."""
    bob = Asking()
    bob.hear(TaskAccepted(bob.attempt, "m", 0), bob.first)
    bob.hear(TaskPiece(bob.attempt, 0, "The sky"), bob.first)
    bob.hear(TaskPiece(bob.attempt, 2, "blue"), bob.first)
    assert [reply.text for reply in bob.all(Reply)] == ["The sky"]
    assert bob.outcome() == "stream_broken"


def test_a_wrong_number_of_pieces_makes_the_attempt_a_failure() -> None:
    """[CND-10] At the end."""
    bob = Asking()
    bob.hear(TaskAccepted(bob.attempt, "m", 0), bob.first)
    bob.hear(TaskPiece(bob.attempt, 0, "The sky"), bob.first)
    bob.hear(TaskFinished(bob.attempt, 2, "stop", 1, 1, 0, 0, 0), bob.first)
    assert bob.outcome() == "stream_broken"


def test_a_whole_answer_is_an_answer() -> None:
    """[CND-10] [CND-11] With every piece there."""
    bob = Asking()
    bob.hear(TaskAccepted(bob.attempt, "m", 0), bob.first)
    bob.hear(TaskPiece(bob.attempt, 0, "The sky"), bob.first)
    bob.hear(TaskFinished(bob.attempt, 1, "stop", 1, 1, 0, 0, 0), bob.first)
    assert bob.outcome() == "answered"
