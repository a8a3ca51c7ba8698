"""One member alone: tasks that it asks for, and attempts that it serves."""

from typing import Any

import pytest

from protocol import errors
from protocol.identity import NodeId
from protocol.messages import (
    AdvertPull,
    AdvertPush,
    Goodbye,
    Ping,
    Pong,
    Rumours,
    TaskAccepted,
    TaskCancelled,
    TaskFailed,
    TaskFinished,
    TaskPiece,
    TaskRefused,
    TaskRequest,
)
from protocol.parts import AttemptId
from swarm.effects import (
    Conclude,
    DeadlinePassed,
    Dial,
    FindProviders,
    Generate,
    PieceOverdue,
    Reply,
    SearchOverdue,
    Send,
    ServiceDeadlinePassed,
    StopGenerating,
    Timer,
    WatchDue,
)
from swarm.events import (
    AskCancelled,
    Asked,
    CapabilitiesChanged,
    ContactsFound,
    DialFailed,
    GenerationFailed,
    GenerationFinished,
    NeighbourDown,
    NeighbourUp,
    PieceGenerated,
    Received,
    Stopping,
    TimerFired,
    Undelivered,
)
from swarm.values import Contact, Routing, Subject
from tests.swarm.lone_member import AT_BOB, CHAT, ada, found, meet, placed, sent
from tests.swarm.samples import ADA, BOB, CYD, NOW, USAGE, capability, node_id, request, signed, task

PAINT = Subject("paint")
AT_CYD = Contact(CYD, ("/memory/cyd",))

# --- Asking -------------------------------------------------------------------------------------------------------------


def test_a_whole_task_at_a_neighbour() -> None:
    member = ada()
    meet(member, BOB)
    attempt = placed(member.handle(Asked(task()), NOW))
    member.handle(Received(BOB, TaskAccepted(attempt, "smollm2", 0)), NOW)
    effects = member.handle(Received(BOB, TaskPiece(attempt, 0, "Because.")), NOW + 1)
    assert effects[0] == Reply(task().id, "Because.")
    effects = member.handle(Received(BOB, TaskFinished(attempt, 1, "stop", 1, 2, 0, 1, 2)), NOW + 2)
    assert [effect.outcome.worker for effect in found(effects, Conclude)] == [BOB]


def test_what_a_member_sends_to_itself_never_leaves_it() -> None:
    member = ada()
    member.handle(CapabilitiesChanged((CHAT,)), NOW)
    effects = member.handle(Asked(task()), NOW)
    [generate] = found(effects, Generate)
    attempt = generate.request.attempt
    effects += member.handle(PieceGenerated(attempt, "Because."), NOW + 1)
    effects += member.handle(GenerationFinished(attempt, USAGE), NOW + 2)
    assert [effect.text for effect in found(effects, Reply)] == ["Because."]
    [conclude] = found(effects, Conclude)
    assert (conclude.outcome.code, conclude.outcome.worker) == (None, ADA)
    assert not [effect for effect in found(effects, Send) if effect.to == ADA]


@pytest.mark.parametrize(
    "message",
    [TaskRefused(AttemptId(b""), errors.BUSY.number, ""), TaskFailed(AttemptId(b""), errors.BACKEND_FAILED.number, "")],
)
def test_a_worker_that_does_not_answer_is_followed_by_the_next(message: Any) -> None:
    member = ada()
    meet(member, BOB, CYD)
    [first] = sent(effects := member.handle(Asked(task()), NOW), TaskRequest)
    answer = type(message)(placed(effects), message.code, message.reason)
    assert sent(member.handle(Received(first, answer), NOW), TaskRequest) == [CYD if first == BOB else BOB]


def test_timers_of_asking_reach_it() -> None:
    member = ada()
    meet(member, BOB, CYD)
    [first] = sent(effects := member.handle(Asked(task()), NOW), TaskRequest)
    member.handle(Received(first, TaskAccepted(placed(effects), "", 0)), NOW)
    effects = member.handle(TimerFired(PieceOverdue(task().id, placed(effects), 0)), NOW + 20)
    assert (sent(effects, TaskCancelled), sent(effects, TaskRequest)) == ([first], [CYD if first == BOB else BOB])
    [conclude] = found(member.handle(TimerFired(DeadlinePassed(task().id)), NOW + 30), Conclude)
    assert conclude.outcome.code is errors.DEADLINE_EXCEEDED
    member.handle(Asked(task(skill="paint")), NOW)
    [conclude] = found(member.handle(TimerFired(SearchOverdue(task().id, PAINT)), NOW + 3), Conclude)
    assert conclude.outcome.code is errors.NO_CAPABLE_PEER


def test_a_users_cancel_reaches_the_worker() -> None:
    member = ada()
    meet(member, BOB)
    member.handle(Asked(task()), NOW)
    effects = member.handle(AskCancelled(task().id), NOW)
    assert (sent(effects, TaskCancelled), len(found(effects, Conclude))) == ([BOB], 1)


def test_a_dial_that_fails_forgets_the_worker_and_asks_the_next() -> None:
    member = ada()
    meet(member, BOB)
    member.handle(Received(BOB, AdvertPush((signed(CYD, CHAT, addresses=("/memory/cyd",)),))), NOW)
    member.handle(Received(BOB, Goodbye(True, "")), NOW)
    effects = member.handle(Asked(task()), NOW)
    at_cyd = Contact(CYD, ("/memory/cyd",))
    assert found(effects, Dial) == [Dial(at_cyd)]
    [conclude] = found(member.handle(DialFailed(at_cyd, "no answer"), NOW), Conclude)
    assert conclude.outcome.attempts[0].code is errors.UNREACHABLE
    assert member.index.get(CYD) is None


def test_a_second_dial_that_fails_does_not_forget_a_neighbour() -> None:
    member = ada()
    meet(member, BOB)
    member.handle(Asked(task()), NOW)
    assert not found(member.handle(DialFailed(AT_BOB, "no answer"), NOW), Conclude)
    assert member.index.get(BOB) is not None


def test_a_request_without_a_link_asks_the_next_and_other_messages_are_no_loss() -> None:
    member = ada()
    meet(member, BOB)
    [send] = [effect for effect in found(member.handle(Asked(task()), NOW), Send)]
    assert member.handle(Undelivered(BOB, Pong(1)), NOW) == []
    [conclude] = found(member.handle(Undelivered(BOB, send.message), NOW), Conclude)
    assert conclude.outcome.attempts[0].code is errors.UNREACHABLE


def test_providers_out_of_the_dht_are_dialled_and_their_advert_places_the_task() -> None:
    member = ada()
    meet(member, *[node_id(number) for number in range(10, 18)])  # Neighbours enough.
    effects = member.handle(Asked(task(skill="paint")), NOW)
    assert found(effects, FindProviders) == [FindProviders(PAINT)]
    assert member.handle(ContactsFound("dht", PAINT, (AT_BOB,)), NOW) == [Dial(AT_BOB)]
    member.handle(NeighbourUp(BOB, "bob", (), "/memory/bob"), NOW)
    effects = member.handle(Received(BOB, AdvertPush((signed(BOB, capability("paint")),))), NOW)
    assert sent(effects, TaskRequest) == [BOB]


def test_a_broken_answer_is_gone_on_with_by_whoever_is_found_to_hold_the_file() -> None:
    """[CND-11] [DHT-4]"""
    member, model = ada(), capability(digest=b"f" * 32, numerics=b"avx2")
    meet(member, *[node_id(number) for number in range(10, 18)])  # They offer the skill with another file.
    meet(member, BOB)
    member.handle(Received(BOB, AdvertPush((signed(BOB, model, issued_at=NOW + 1),))), NOW + 1)
    attempt = placed(member.handle(Asked(task(worker=None, model="")), NOW + 1))
    while member.asking.workers() != [BOB]:
        member.handle(AskCancelled(task().id), NOW + 1)
        attempt = placed(member.handle(Asked(task()), NOW + 1))
    member.handle(Received(BOB, TaskAccepted(attempt, "smollm2", 0)), NOW + 1)
    member.handle(Received(BOB, TaskPiece(attempt, 0, "Because ", (7,))), NOW + 1)
    effects = member.handle(NeighbourDown(BOB, "reset"), NOW + 2)
    file = Subject(digest=b"f" * 32)
    assert found(effects, FindProviders) == [FindProviders(file)]
    assert len(sent(effects, AdvertPull)) == 8, "the neighbours may know of one, too"
    assert found(member.handle(ContactsFound("dht", file, (AT_CYD,)), NOW + 2), Dial) == [Dial(AT_CYD)]
    member.handle(NeighbourUp(CYD, "cyd", (), "/memory/cyd"), NOW + 2)
    effects = member.handle(Received(CYD, AdvertPush((signed(CYD, model),))), NOW + 2)
    [request] = [effect.message for effect in found(effects, Send) if isinstance(effect.message, TaskRequest)]
    assert (sent(effects, TaskRequest), request.delivered, request.delivered_tokens) == ([CYD], "Because ", (7,))


def test_a_model_of_its_own_that_comes_up_takes_the_searching_task() -> None:
    member = ada()
    member.handle(Asked(task()), NOW)
    assert len(found(member.handle(CapabilitiesChanged((CHAT,)), NOW + 1), Generate)) == 1


def test_a_dry_run_sends_nothing_and_names_who_could() -> None:
    member = ada()
    meet(member, BOB)
    routing = member.route(task())
    assert [candidate.node for candidate in routing.candidates] == [BOB]
    assert routing.chosen is None


def names(routing: Routing) -> tuple[list[NodeId], list[str]]:
    """Who could do it, and why the others may not."""
    return [found.node for found in routing.candidates], [out.reason for out in routing.excluded]


def test_a_worker_that_falls_silent_at_work_gets_no_more_until_it_speaks() -> None:
    member = ada()
    meet(member, BOB, CYD)
    attempt = placed(effects := member.handle(Asked(task()), NOW))
    [silent] = sent(effects, TaskRequest)
    other = CYD if silent == BOB else BOB
    member.handle(Received(other, Ping(1)), NOW + 1.4)
    effects = member.handle(TimerFired(WatchDue(task().id, attempt)), NOW + 1.4)
    assert sent(effects, TaskRequest) == [other]
    assert names(member.route(task(b"t2"))) == ([other], ["gives no sign of life"])
    assert names(member.route(task(b"t3", worker=silent)))[0] == [silent], "whoever is asked for by name is asked"
    member.handle(Received(silent, Pong(0)), NOW + 2)
    assert sorted(names(member.route(task(b"t2")))[0]) == sorted([BOB, CYD])


def test_silent_workers_are_better_than_none() -> None:
    member = ada()
    meet(member, BOB)
    attempt = placed(member.handle(Asked(task()), NOW))
    member.handle(TimerFired(WatchDue(task().id, attempt)), NOW + 1.4)
    assert names(member.route(task(b"t2"))) == ([BOB], [])


def test_a_worker_that_cannot_be_dialled_in_time_is_left_out_until_the_dial_has_ended() -> None:
    member = ada()
    meet(member, CYD)
    member.handle(Received(CYD, AdvertPush((signed(BOB, CHAT),))), NOW)
    attempt = placed(member.handle(Asked(task(worker=BOB)), NOW))
    member.handle(TimerFired(WatchDue(task().id, attempt)), NOW + 1.4)
    assert names(member.route(task(b"t2"))) == ([CYD], ["gives no sign of life"])
    member.handle(DialFailed(AT_BOB, "no answer"), NOW + 5)
    assert names(member.route(task(b"t2"))) == ([CYD], []), "it is forgotten"
    member.handle(Received(CYD, AdvertPush((signed(BOB, CHAT, issued_at=NOW + 6),))), NOW + 6)
    [reason] = names(member.route(task(b"t2")))[1]
    assert reason.startswith("failed"), "what keeps it out now is that it has failed"


# --- Serving ------------------------------------------------------------------------------------------------------------


def test_a_node_that_fills_up_and_empties_tells_its_neighbours() -> None:
    member = ada()
    member.handle(CapabilitiesChanged((CHAT,)), NOW)
    meet(member, BOB, CYD)
    effects = member.handle(Received(BOB, request()), NOW + 2)
    assert (sent(effects, TaskAccepted), sent(effects, Rumours)) == ([BOB], [BOB, CYD])
    effects = member.handle(GenerationFinished(AttemptId(b"a1"), USAGE), NOW + 4)
    assert (sent(effects, TaskFinished), sent(effects, Rumours)) == ([BOB], [BOB, CYD])


def test_an_attempt_is_cancelled_by_its_requester_or_by_time() -> None:
    member = ada()
    member.handle(CapabilitiesChanged((capability(slots=2),)), NOW)
    meet(member, BOB)
    for name in (b"a1", b"a2"):
        member.handle(Received(BOB, request(name)), NOW)
    assert member.handle(Received(BOB, TaskCancelled(AttemptId(b"a1"))), NOW) == [StopGenerating(AttemptId(b"a1"))]
    timer: Timer = ServiceDeadlinePassed(AttemptId(b"a2"))
    assert member.handle(TimerFired(timer), NOW + 30) == [StopGenerating(AttemptId(b"a2"))]
    [told] = member.handle(GenerationFailed(AttemptId(b"a2"), errors.CANCELLED.number, ""), NOW + 30)
    assert told.message.code == errors.DEADLINE_EXCEEDED.number


def test_a_stopping_node_ends_its_tasks_refuses_others_and_says_goodbye() -> None:
    member = ada()
    member.handle(CapabilitiesChanged((CHAT,)), NOW)
    meet(member, BOB)
    member.handle(Asked(task(worker=BOB)), NOW)
    effects = member.handle(Stopping(), NOW + 1)
    assert [effect.outcome.code for effect in found(effects, Conclude)] == [errors.SHUTTING_DOWN]
    assert effects[-1] == Send(BOB, Goodbye(True, "stopping"))
    [told] = [effect.message for effect in found(effects, Send) if isinstance(effect.message, Rumours)]
    assert told.pulses[0].body.leaving, "whoever hears of it forgets this node at once"
    [refused] = member.handle(Received(BOB, request()), NOW + 1)
    assert refused.message.code == errors.DRAINING.number
