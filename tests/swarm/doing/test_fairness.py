"""Who gets the next slot and who may wait for it: peers in turn, a share of the queue each, nobody for nothing."""

import pytest

from protocol import errors
from protocol.identity import NodeId
from protocol.messages import TaskAccepted, TaskFailed, TaskRefused
from protocol.parts import AttemptId
from swarm.doing.serving import TURNS_MAX, Serving
from swarm.effects import Effect, Generate, Send
from swarm.settings import Settings
from tests.swarm.samples import ADA, BOB, CYD, DAN, NOW, USAGE, capability, node_id, request


def worker(queue_max: int = 16, slots: int = 1) -> Serving:
    """Ada, who works."""
    serving = Serving(ADA, Settings(queue_max=queue_max))
    serving.offer((capability(slots=slots),), NOW)
    return serving


def ask(serving: Serving, sender: NodeId, attempt: bytes, **changes: object) -> TaskAccepted | TaskRefused:
    [answer] = [each for each in serving.requested(sender, request(attempt, **changes), NOW) if isinstance(each, Send)]
    assert isinstance(answer.message, TaskAccepted | TaskRefused)
    return answer.message


def begun(effects: list[Effect]) -> list[AttemptId]:
    return [effect.request.attempt for effect in effects if isinstance(effect, Generate)]


def order(serving: Serving, first: bytes, took_s: float = 1.0) -> list[bytes]:
    """In which order attempts are begun, one after the other."""
    found, now = [first], NOW
    while True:
        now += took_s
        nexts = begun(serving.finished(AttemptId(found[-1]), USAGE, now))
        if not nexts:
            return found
        found += nexts


def test_peers_get_slots_in_turn_however_much_each_wants() -> None:
    serving = worker()
    for name in (b"b1", b"b2", b"b3", b"b4"):
        ask(serving, BOB, name)
    for name in (b"c1", b"c2"):
        ask(serving, CYD, name)
    ask(serving, DAN, b"d1")
    assert order(serving, b"b1") == [b"b1", b"c1", b"d1", b"b2", b"c2", b"b3", b"b4"]


def test_the_place_in_the_queue_is_the_true_one() -> None:
    serving = worker()
    told = {}
    for sender, name in ((BOB, b"b1"), (BOB, b"b2"), (BOB, b"b3"), (CYD, b"c1"), (CYD, b"c2"), (ADA, b"own")):
        answer = ask(serving, sender, name)
        assert isinstance(answer, TaskAccepted)
        told[name] = answer.ahead
    assert told == {b"b1": 0, b"b2": 1, b"b3": 2, b"c1": 2, b"c2": 4, b"own": 1}


def test_one_peer_cannot_fill_the_queue_while_others_wait() -> None:
    serving = worker(queue_max=8)
    for number in range(4):
        ask(serving, BOB, b"b%d" % number)
    ask(serving, CYD, b"c1")
    ask(serving, CYD, b"c2")
    refused = ask(serving, BOB, b"b9")
    assert ask(serving, DAN, b"d1").ahead  # type: ignore[union-attr]
    assert isinstance(refused, TaskAccepted), "three of eight are within bob's half"
    refused = ask(serving, BOB, b"b10")
    assert isinstance(refused, TaskRefused)
    assert (refused.code, refused.reason) == (errors.OVER_QUOTA.number, "4 of yours are waiting, of 7 in all")
    assert isinstance(ask(serving, DAN, b"d2"), TaskAccepted)


def test_a_peer_alone_may_use_the_whole_queue() -> None:
    serving = worker(queue_max=8)
    answers = [ask(serving, BOB, b"b%d" % number) for number in range(10)]
    assert [type(answer) for answer in answers] == [TaskAccepted] * 9 + [TaskRefused]
    assert answers[-1].code == errors.BUSY.number  # type: ignore[union-attr]


@pytest.mark.parametrize(("deadline_ms", "is_taken"), [(30_000, True), (9_000, False)])
def test_what_could_not_begin_in_time_is_refused_at_once(deadline_ms: int, is_taken: bool) -> None:
    serving = worker()
    ask(serving, BOB, b"b1")
    serving.finished(AttemptId(b"b1"), USAGE, NOW + 10.0)
    ask(serving, BOB, b"b2")
    answer = ask(serving, CYD, b"c1", deadline_ms=deadline_ms)
    assert isinstance(answer, TaskAccepted) is is_taken
    if isinstance(answer, TaskRefused):
        assert answer.reason == "could not begin before the deadline: 1 ahead, about 10 s"
        assert answer.code == errors.BUSY.number


def test_a_node_that_stops_sends_those_away_who_wait() -> None:
    serving = worker()
    ask(serving, BOB, b"b1")
    ask(serving, CYD, b"c1")
    assert serving.drain() == [Send(CYD, TaskFailed(AttemptId(b"c1"), errors.DRAINING.number, errors.DRAINING.meaning))]
    assert serving.load() == (1, 1, 0), "and ends what it has begun"


def test_whose_turn_it_was_is_not_remembered_for_ever() -> None:
    serving = worker(slots=2)
    ask(serving, BOB, b"b1")
    for number in range(TURNS_MAX + 1):
        attempt = b"x%d" % number
        ask(serving, node_id(100 + number), attempt)
        serving.finished(AttemptId(attempt), USAGE, NOW)
    assert len(serving._turns) == TURNS_MAX
