"""The order of one attempt's messages: the table in full, and both ends at once with messages under way."""

import dataclasses
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import limits as lim
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.exchange import TASK_MESSAGES, TRANSITIONS, Exchanges, Side, Stage, TaskMessage, sender
from protocol.messages import TaskAccepted, TaskCancelled, TaskFailed, TaskFinished, TaskPiece, TaskRefused, TaskRequest
from protocol.parts import AttemptId
from tests.strategies import task_request

A = AttemptId(b"a" * 16)
B = AttemptId(b"b" * 16)

SAMPLES: dict[type, TaskMessage] = {
    TaskRequest: task_request(A),
    TaskAccepted: TaskAccepted(A, "m", 0),
    TaskRefused: TaskRefused(A, 1, ""),
    TaskPiece: TaskPiece(A, 0, "x"),
    TaskFinished: TaskFinished(A, 1, "stop", 1, 1, 0, 0, 0),
    TaskFailed: TaskFailed(A, 17, ""),
    TaskCancelled: TaskCancelled(A),
}

# How to bring an attempt into each stage that has a memory.
PATHS: dict[Stage, tuple[type, ...]] = {
    Stage.IDLE: (),
    Stage.REQUESTED: (TaskRequest,),
    Stage.STREAMING: (TaskRequest, TaskAccepted),
    Stage.CANCELLED_EARLY: (TaskRequest, TaskCancelled),
    Stage.CANCELLING: (TaskRequest, TaskAccepted, TaskCancelled),
}


def note(ends: dict[Side, Exchanges], message: TaskMessage) -> None:
    """The message goes from one end to the other at once."""
    ours = sender(message)
    other = Side.WORKER if ours is Side.REQUESTER else Side.REQUESTER
    assert ends[ours].sent(message)
    assert ends[other].received(message)


def ends_in(stage: Stage) -> dict[Side, Exchanges]:
    ends = {Side.REQUESTER: Exchanges(), Side.WORKER: Exchanges()}
    for kind in PATHS[stage]:
        note(ends, SAMPLES[kind])
    assert {end.stage(A) for end in ends.values()} == {stage}
    return ends


@pytest.mark.parametrize("stage", PATHS)
@pytest.mark.parametrize("kind", TASK_MESSAGES)
def test_every_message_in_every_stage_does_what_the_table_says(stage: Stage, kind: type) -> None:
    """[EXC-1] [EXC-2] [EXC-4] Both ends judge a message alike; what is not in the table is refused, or late."""
    message = SAMPLES[kind]
    side = sender(message)
    other = Side.WORKER if side is Side.REQUESTER else Side.REQUESTER
    after = TRANSITIONS.get((stage, side, kind))
    ends = ends_in(stage)
    if after is not None:
        note(ends, message)
        now = Stage.IDLE if after is Stage.CLOSED else after  # What is closed is forgotten.
        assert {end.stage(A) for end in ends.values()} == {now}
        return
    if stage is Stage.IDLE:
        assert not ends[side].sent(message)  # Late, as far as this end can tell; nothing leaves it.
    else:
        with pytest.raises(LocalProtocolError):
            ends[side].sent(message)
    if stage is Stage.IDLE and kind is TaskCancelled:
        assert not ends[other].received(message)
    else:
        with pytest.raises(RemoteProtocolError) as caught:
            ends[other].received(message)
        assert caught.value.kind == "disorder"
    assert {end.stage(A) for end in ends.values()} == {stage}


@pytest.mark.parametrize("stage", [stage for stage in PATHS if stage is not Stage.IDLE])
@pytest.mark.parametrize("kind", TASK_MESSAGES)
def test_only_its_own_side_sends_a_message(stage: Stage, kind: type) -> None:
    """[EXC-3] A worker cannot cancel, and a requester cannot answer itself."""
    message = SAMPLES[kind]
    wrong = Side.WORKER if sender(message) is Side.REQUESTER else Side.REQUESTER
    with pytest.raises(LocalProtocolError):
        ends_in(stage)[wrong].sent(message)
    with pytest.raises(RemoteProtocolError):
        ends_in(stage)[sender(message)].received(message)


def test_a_closed_attempt_takes_no_room_and_its_id_may_come_again() -> None:
    ends = ends_in(Stage.STREAMING)
    note(ends, SAMPLES[TaskFinished])
    assert [len(end) for end in ends.values()] == [0, 0]
    note(ends, SAMPLES[TaskRequest])
    assert [len(end) for end in ends.values()] == [1, 1]


def requests(count: int, first: int = 0) -> list[TaskRequest]:
    return [task_request(number.to_bytes(16, "big")) for number in range(first, first + count)]


def test_one_attempt_too_many_is_not_sent() -> None:
    """[EXC-5] The requester keeps the bound."""
    ours = Exchanges()
    assert all(ours.sent(message) for message in requests(lim.EXCHANGES_PER_LINK_MAX))
    assert not ours.sent(task_request(A))
    assert ours.received(task_request(B)), "the other direction has a bound of its own"


def test_one_attempt_too_many_is_refused() -> None:
    """[EXC-5] The worker holds the requester to the bound."""
    theirs = Exchanges()
    assert all(theirs.received(message) for message in requests(lim.EXCHANGES_PER_LINK_MAX))
    with pytest.raises(RemoteProtocolError) as caught:
        theirs.received(task_request(A))
    assert caught.value.kind == "crowded"
    assert theirs.sent(task_request(B))


def test_a_closed_attempt_makes_room_at_both_ends() -> None:
    """[EXC-5] Only open ones count."""
    ends = {Side.REQUESTER: Exchanges(), Side.WORKER: Exchanges()}
    for _ in range(2 * lim.EXCHANGES_PER_LINK_MAX):
        for kind in (TaskRequest, TaskAccepted, TaskFinished):
            note(ends, SAMPLES[kind])
    for message in requests(lim.EXCHANGES_PER_LINK_MAX):
        note(ends, message)


def test_full_in_both_directions_at_once_is_nobodys_fault() -> None:
    """[EXC-5] Requests cross; a count for both directions together would blame a peer for what was under way."""
    ours, theirs = Exchanges(), Exchanges()
    there, back = requests(lim.EXCHANGES_PER_LINK_MAX), requests(lim.EXCHANGES_PER_LINK_MAX, first=1000)
    assert all(ours.sent(message) for message in there)
    assert all(theirs.sent(message) for message in back)
    assert all(theirs.received(message) for message in there)
    assert all(ours.received(message) for message in back)


class End:
    """One end of a link that may do anything legal, and what is under way from it."""

    def __init__(self, roles: dict[AttemptId, Side]) -> None:
        self.roles = roles
        self.exchanges = Exchanges()
        self.under_way: deque[TaskMessage] = deque()

    def choices(self) -> list[TaskMessage]:
        """What this end may send now."""
        return [
            dataclasses.replace(SAMPLES[kind], attempt=attempt)
            for attempt, side in self.roles.items()
            for kind in TASK_MESSAGES
            if (self.exchanges.stage(attempt), side, kind) in TRANSITIONS
        ]

    def send(self, message: TaskMessage) -> None:
        assert self.exchanges.sent(message)
        self.under_way.append(message)

    def take_from(self, other: "End") -> None:
        message = other.under_way.popleft()
        if not self.exchanges.received(message):
            assert isinstance(message, TaskCancelled), "only a cancel can be late"


@settings(max_examples=300)
@given(st.data())
def test_two_honest_ends_never_blame_each_other(data: st.DataObject) -> None:
    """[EXC-1] [EXC-2] [EXC-4] [EXC-5] Any legal behaviour, with messages under way both ways.

    Neither end ever raises, a worker never counts more open attempts than its requester does, and once everything has
    arrived both agree.
    """
    one = End({A: Side.REQUESTER, B: Side.WORKER})
    two = End({A: Side.WORKER, B: Side.REQUESTER})
    pairs = ((one, two), (two, one))
    for _ in range(data.draw(st.integers(1, 60))):
        sends = [(end, message) for end, _ in pairs for message in end.choices()]
        arrivals = [(end, None) for end, other in pairs if other.under_way]
        end, message = data.draw(st.sampled_from(sends + 3 * arrivals))
        if message is None:
            end.take_from(two if end is one else one)
        else:
            end.send(message)
        for attempt, requester, worker in ((A, one, two), (B, two, one)):
            if worker.exchanges.stage(attempt) is not Stage.IDLE:
                assert requester.exchanges.stage(attempt) is not Stage.IDLE
    for end, other in pairs:
        while other.under_way:
            end.take_from(other)
    assert [one.exchanges.stage(attempt) for attempt in (A, B)] == [two.exchanges.stage(attempt) for attempt in (A, B)]
