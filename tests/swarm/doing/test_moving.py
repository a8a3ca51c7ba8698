"""A worker promises, and has others to serve first of whom nobody had heard: the task goes to somebody who is free."""

from dataclasses import replace

import pytest

from protocol import errors
from protocol.identity import NodeId
from protocol.messages import TaskAccepted, TaskCancelled, TaskFailed, TaskPiece
from protocol.parts import AttemptId
from swarm.doing.moving import CROWDED
from swarm.effects import Effect, Send
from swarm.values import Routing, Task, Terms
from tests.swarm.doing.requester import Ada, concluded, finished, placed
from tests.swarm.samples import BOB, CYD, DAN, NOW


class Knowing(Ada):
    """Ada, who knows what each worker would cost, alone and with so many before."""

    def __init__(self, *able: NodeId, slots: int = 1, **costs: float) -> None:
        super().__init__(*able)
        self.slots, self.costs, self.waits = slots, costs, dict.fromkeys(able, 0)

    def choose(self, asked: Task, tried: list[NodeId], now: float) -> Routing:
        routing = super().choose(asked, tried, now)
        found = []
        for each in routing.candidates:
            terms = Terms(0.0, 0.1, True, 50.0, self.waits[each.node], self.slots, 1.0, 1.0, 0.0, 0.0, float(self.slots))
            cost_s = self.costs.get(each.name, 1.0) * terms.delay(terms.waiting)
            found.append(replace(each, cost_s=cost_s, terms=terms))
        return Routing(tuple(found), tuple(each.node for each in found), found[0].node if found else None, ())

    def promised(self, ahead: int, at: float = NOW) -> tuple[AttemptId, list[Effect]]:
        """Bob has promised, after so many others."""
        attempt = self.ask(at=at)
        return attempt, self.asking.accepted(BOB, TaskAccepted(attempt, "smollm2", ahead), at)


def is_moved(effects: list[Effect]) -> bool:
    return any(isinstance(effect, Send) and isinstance(effect.message, TaskCancelled) for effect in effects)


def test_a_task_leaves_a_queue_that_was_not_known() -> None:
    ada = Knowing(BOB, CYD, cyd=1.1)
    attempt, effects = ada.promised(1)
    assert effects[0] == Send(BOB, TaskCancelled(attempt))
    node, second = placed(effects)
    assert node == CYD
    ada.asking.accepted(CYD, TaskAccepted(second, "smollm2", 0), NOW)
    ada.asking.piece(CYD, TaskPiece(second, 0, "cyd"), NOW + 1)
    outcome = concluded(ada.asking.finished(CYD, finished(second, 1), NOW + 2))
    told = [(end.worker, end.why, end.code, end.reason) for end in outcome.attempts]
    assert told == [(BOB, "first", errors.CANCELLED, CROWDED), (CYD, "moved", None, "")]
    assert ada.standings.of(BOB, NOW).failures == 0.0
    assert ada.standings.of(BOB, NOW).inflight == 0


@pytest.mark.parametrize(
    ("ahead", "known", "slots", "cyd", "moves"),
    [
        (0, 0, 1, 1.1, False),  # Nobody is before us.
        (1, 1, 1, 1.1, False),  # As was known.
        (2, 1, 1, 1.1, True),
        (1, 0, 1, 1.3, False),  # 1.5 here, 1.3 there: not enough to be worth it.
        (1, 0, 1, 1.2, True),
        (4, 0, 1, 3.7, False),
        (4, 0, 1, 3.5, True),
        (1, 0, 2, 1.3, True),  # Both slots are taken: 1.75 here.
        (1, 2, 2, 1.3, False),
    ],
)
def test_only_from_a_surprise_and_only_to_somebody_much_cheaper(
    ahead: int, known: int, slots: int, cyd: float, moves: bool
) -> None:
    ada = Knowing(BOB, CYD, slots=slots, cyd=cyd)
    ada.waits[BOB] = known
    assert is_moved(ada.promised(ahead)[1]) is moves


def test_a_task_moves_once() -> None:
    ada = Knowing(BOB, CYD, DAN, cyd=1.01, dan=1.02)
    _, effects = ada.promised(1)
    node, second = placed(effects)
    assert node == CYD
    assert not is_moved(ada.asking.accepted(CYD, TaskAccepted(second, "smollm2", 3), NOW))


def test_whoever_was_left_may_be_asked_again_when_the_other_fails() -> None:
    ada = Knowing(BOB, CYD, cyd=1.1)
    _, effects = ada.promised(1)
    _, second = placed(effects)
    node, _ = placed(ada.asking.failed_there(CYD, TaskFailed(second, errors.BACKEND_FAILED.number, ""), NOW + 1))
    assert node == BOB


def test_nobody_else_is_no_reason_to_leave() -> None:
    ada = Knowing(BOB)
    assert not is_moved(ada.promised(5)[1])
