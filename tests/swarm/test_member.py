"""One member alone: what several of its parts have a share in."""

from collections.abc import Iterable
from random import Random
from typing import Any, TypeVar

import pytest

from protocol import errors
from protocol.identity import NodeId
from protocol.messages import (
    Advert,
    AdvertPull,
    AdvertPush,
    AttemptId,
    Goodbye,
    Hello,
    Message,
    Ping,
    Pong,
    SignedAdvert,
    TaskAccepted,
    TaskCancelled,
    TaskFailed,
    TaskFinished,
    TaskPiece,
    TaskRefused,
    TaskRequest,
)
from swarm.effects import (
    AcceptOverdue,
    AdvertDue,
    Conclude,
    DeadlinePassed,
    Dial,
    Disconnect,
    Effect,
    FindProviders,
    Generate,
    GossipDue,
    JoinFailed,
    Notify,
    PeerJoined,
    PeerLost,
    PieceOverdue,
    PongOverdue,
    Reply,
    SearchOverdue,
    Send,
    ServiceDeadlinePassed,
    SetTimer,
    StopGenerating,
    SweepDue,
    Timer,
)
from swarm.events import (
    AskCancelled,
    Asked,
    CapabilitiesChanged,
    ContactsFound,
    DialFailed,
    GenerationFailed,
    GenerationFinished,
    LoopLate,
    NeighbourDown,
    NeighbourUp,
    PieceGenerated,
    Received,
    Started,
    Stopping,
    TimerFired,
    Undelivered,
)
from swarm.member import Member
from swarm.settings import Settings
from swarm.values import Contact
from tests.swarm.samples import ADA, BOB, CYD, DAN, NOW, USAGE, capability, node_id, request, signed, task

CHAT = capability("chat")
AT_BOB = Contact(BOB, ("/memory/bob",))
_Found = TypeVar("_Found")


class BelievesAll:
    """A notary without signatures."""

    def sign(self, advert: Advert, lifetime_s: float, now: float) -> SignedAdvert:
        return SignedAdvert(ADA, round(now * 1000), round(lifetime_s * 1000), advert, b"")

    def holds(self, signed: SignedAdvert, now: float) -> bool:
        return True


def ada(**settings: float) -> Member:
    """A member that has started."""
    member = Member(ADA, "ada", Settings(**settings), BelievesAll(), Random(1))
    member.handle(Started(("/memory/ada",)), NOW)
    return member


def meet(member: Member, *nodes: NodeId, at: float = NOW) -> None:
    """Links with workers that offer chat."""
    for node in nodes:
        member.handle(NeighbourUp(node, "bob", ("/memory/bob",), ""), at)
        member.handle(Received(node, AdvertPush((signed(node, CHAT, issued_at=at),))), at)


def found(effects: Iterable[Effect], kind: type[_Found]) -> list[_Found]:
    return [effect for effect in effects if isinstance(effect, kind)]


def sent(effects: Iterable[Effect], kind: type[Message]) -> list[NodeId]:
    """To whom messages of this kind go."""
    return [effect.to for effect in found(effects, Send) if isinstance(effect.message, kind)]


def placed(effects: Iterable[Effect]) -> AttemptId:
    [attempt] = [effect.message.attempt for effect in found(effects, Send) if isinstance(effect.message, TaskRequest)]
    return attempt


# --- Links --------------------------------------------------------------------------------------------------------------


def test_a_new_neighbour_is_told_pinged_and_greeted() -> None:
    effects = ada().handle(NeighbourUp(BOB, "bob", (), ""), NOW)
    assert effects[0] == Notify(PeerJoined(BOB, "bob"))
    for kind in (Ping, AdvertPush, AdvertPull):
        assert sent(effects, kind) == [BOB]


def test_a_ping_is_answered_and_a_pong_measures() -> None:
    member = ada()
    meet(member, BOB)
    assert member.handle(Received(BOB, Ping(7)), NOW) == [Send(BOB, Pong(7))]
    assert member.handle(Received(BOB, Pong(1)), NOW + 0.2) == []
    assert member.roster.get(BOB).rtt_s == pytest.approx(0.2)


def test_a_neighbour_that_stands_still_is_pinged_and_dropped() -> None:
    member = ada()
    meet(member, BOB)
    member.handle(Received(BOB, Pong(1)), NOW)
    effects = member.handle(TimerFired(SweepDue()), NOW + 4)
    assert sent(effects, Ping) == [BOB]
    effects = member.handle(TimerFired(PongOverdue(BOB, 2)), NOW + 8)
    assert effects == [Disconnect(BOB, "no sign of life for 8 s")]


def test_a_late_loop_excuses_the_silence_that_it_finds() -> None:
    member = ada()
    meet(member, BOB)
    attempt = placed(member.handle(Asked(task()), NOW))
    assert member.handle(LoopLate(3.0), NOW + 2) == []
    assert member.handle(TimerFired(PongOverdue(BOB, 1)), NOW + 4) == []
    effects = member.handle(TimerFired(AcceptOverdue(task().id, attempt)), NOW + 4)
    assert sent(effects, TaskCancelled) == [BOB]
    assert member.standings.of(BOB, NOW).failures == 0.0
    excuse_ends = NOW + 2 + 4 + 3
    attempt = placed(member.handle(Asked(task()), excuse_ends))
    member.handle(TimerFired(AcceptOverdue(task().id, attempt)), excuse_ends)
    assert member.standings.of(BOB, excuse_ends).failures == 1.0


def test_a_lost_neighbour_is_forgotten_its_work_stopped_and_its_tasks_given_to_others() -> None:
    member = ada()
    member.handle(CapabilitiesChanged((CHAT,)), NOW)
    meet(member, BOB)
    member.handle(Received(BOB, request()), NOW)
    member.handle(Asked(task(worker=BOB)), NOW)
    effects = member.handle(NeighbourDown(BOB, "reset"), NOW)
    assert found(effects, Notify)[0] == Notify(PeerLost(BOB, "bob", "reset"))
    assert StopGenerating(AttemptId(b"a1")) in effects
    assert [effect.outcome.code for effect in found(effects, Conclude)] == [errors.EXHAUSTED]
    assert member.index.get(BOB) is None
    assert BOB not in member.roster


def test_the_end_of_an_unknown_link_is_not_told() -> None:
    assert ada().handle(NeighbourDown(BOB, "reset"), NOW) == []


def test_a_node_that_leaves_is_forgotten_at_once() -> None:
    member = ada()
    meet(member, BOB, CYD)
    assert member.handle(Received(BOB, Goodbye(True, "stopping")), NOW) == []
    assert [known.signed.issuer for known, _ in member.index.able("chat")] == [CYD]
    assert member.handle(Received(DAN, Goodbye(False, "")), NOW) == [], "even if nothing is known of it"


def test_a_node_that_only_closes_the_link_is_still_there() -> None:
    member = ada()
    meet(member, BOB)
    member.handle(Received(BOB, Goodbye(False, "too many links")), NOW)
    member.handle(NeighbourDown(BOB, "closed"), NOW)
    effects = member.handle(Asked(task()), NOW)
    assert found(effects, Dial) == [Dial(AT_BOB)]
    assert sent(effects, TaskRequest) == [BOB]


def test_a_node_that_comes_back_is_believed_on_its_own_word() -> None:
    member = ada()
    meet(member, BOB)
    member.handle(NeighbourDown(BOB, "reset"), NOW)
    member.handle(NeighbourUp(CYD, "cyd", (), ""), NOW)
    member.handle(Received(CYD, AdvertPush((signed(BOB, CHAT),))), NOW)
    assert member.index.get(BOB) is None, "a rumour of what it has seen end"
    meet(member, BOB)
    assert member.index.get(BOB) is not None


def test_a_link_closed_to_make_room_does_not_hide_the_worker_behind_it() -> None:
    member = ada(neighbours_target=1, neighbours_max=1)
    meet(member, BOB)
    meet(member, CYD, at=NOW + 1)
    effects = member.handle(TimerFired(SweepDue()), NOW + 2)
    assert Disconnect(BOB, "too many links") in effects
    member.handle(NeighbourDown(BOB, "too many links"), NOW + 2)
    assert member.index.get(BOB) is not None
    assert BOB not in member.roster


def test_a_link_over_which_work_is_under_way_is_not_closed_to_make_room() -> None:
    member = ada(neighbours_target=1, neighbours_max=1)
    member.handle(CapabilitiesChanged((CHAT,)), NOW)
    meet(member, BOB)
    member.handle(Received(BOB, request()), NOW)
    meet(member, CYD, DAN, at=NOW + 1)
    effects = member.handle(TimerFired(SweepDue()), NOW + 2)
    assert sent(effects, Goodbye) == [CYD, DAN]


@pytest.mark.parametrize("message", [request(), TaskAccepted(AttemptId(b"a9"), "", 0)], ids=["brought", "took"])
def test_a_link_that_brought_or_took_work_counts_as_used(message: Message) -> None:
    member = ada(neighbours_target=1, neighbours_max=1)
    meet(member, BOB, CYD)
    member.handle(Received(BOB, message), NOW + 1)
    effects = member.handle(TimerFired(SweepDue()), NOW + 2)
    assert sent(effects, Goodbye) == [CYD]


def test_what_an_unlinked_node_says_is_no_use_of_a_link() -> None:
    assert ada().handle(Received(BOB, TaskAccepted(AttemptId(b"a9"), "", 0)), NOW) == []


# --- Finding others -------------------------------------------------------------------------------------------------------


def test_a_started_node_looks_for_members_and_keeps_its_rounds() -> None:
    member = Member(ADA, "ada", Settings(), BelievesAll(), Random(1))
    effects = member.handle(Started(()), NOW)
    timers = [type(effect.timer) for effect in found(effects, SetTimer)]
    assert timers == [GossipDue, AdvertDue, SweepDue]
    assert found(effects, FindProviders) == [FindProviders("")]


def test_a_link_that_opens_before_the_start_is_greeted_without_an_advert() -> None:
    member = Member(ADA, "ada", Settings(), BelievesAll(), Random(1))
    effects = member.handle(NeighbourUp(BOB, "bob", (), ""), NOW)
    assert (sent(effects, AdvertPush), sent(effects, AdvertPull)) == ([], [BOB])
    assert sent(member.handle(Started(()), NOW), AdvertPush) == [BOB]


def test_members_are_searched_for_again_only_while_neighbours_are_missing() -> None:
    member = ada()

    def searches(at: float) -> bool:
        return bool(found(member.handle(TimerFired(SweepDue()), at), FindProviders))

    assert [searches(NOW + seconds) for seconds in (2, 29, 30, 32, 60)] == [False, False, True, False, True]
    meet(member, *[node_id(number) for number in range(10, 18)], at=NOW + 60)
    assert not searches(NOW + 100)


def test_contacts_are_dialled_when_they_are_found() -> None:
    member = ada()
    assert member.handle(ContactsFound("mdns", "", (AT_BOB,)), NOW) == [Dial(AT_BOB)]


def test_a_failed_join_is_told_and_the_next_contact_dialled() -> None:
    member = ada(dials_max=1)
    nowhere = Contact(None, ("/memory/nowhere",))
    assert member.handle(ContactsFound("join", "", (nowhere, AT_BOB)), NOW) == [Dial(nowhere)]
    effects = member.handle(DialFailed(nowhere, "no answer"), NOW)
    assert effects == [Notify(JoinFailed("/memory/nowhere", "no answer")), Dial(AT_BOB)]


def test_those_whom_adverts_name_are_contacts_until_the_adverts_expire() -> None:
    member = ada()
    meet(member, BOB)
    member.handle(Received(BOB, AdvertPush((signed(CYD, CHAT, addresses=("/memory/cyd",)),))), NOW)
    assert member.contacts.addresses(CYD) == ("/memory/cyd",)
    member.handle(TimerFired(SweepDue()), NOW + 61)
    assert member.contacts.addresses(CYD) == ()


def test_a_pull_is_answered() -> None:
    member = ada()
    meet(member, BOB, CYD)
    [push] = member.handle(Received(CYD, AdvertPull("chat", 9)), NOW)
    assert [told.issuer for told in push.message.adverts] == [BOB]


def test_news_is_passed_on_in_rounds() -> None:
    member = ada()
    meet(member, BOB, CYD)
    effects = member.handle(TimerFired(GossipDue()), NOW + 1)
    assert len(sent(effects, AdvertPush)) == 1
    assert [effect.timer for effect in found(effects, SetTimer)] == [GossipDue()]


def test_its_own_advert_is_renewed() -> None:
    member = ada()
    meet(member, BOB)
    effects = member.handle(TimerFired(AdvertDue(1)), NOW + 15)
    assert sent(effects, AdvertPush) == [BOB]
    assert member.handle(TimerFired(AdvertDue(1)), NOW + 15) == []


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
    [conclude] = found(member.handle(TimerFired(SearchOverdue(task().id)), NOW + 3), Conclude)
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
    assert found(effects, FindProviders) == [FindProviders("paint")]
    assert member.handle(ContactsFound("dht", "paint", (AT_BOB,)), NOW) == [Dial(AT_BOB)]
    member.handle(NeighbourUp(BOB, "bob", (), "/memory/bob"), NOW)
    effects = member.handle(Received(BOB, AdvertPush((signed(BOB, capability("paint")),))), NOW)
    assert sent(effects, TaskRequest) == [BOB]


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


# --- Serving ------------------------------------------------------------------------------------------------------------


def test_a_node_that_fills_up_and_empties_tells_its_neighbours() -> None:
    member = ada()
    member.handle(CapabilitiesChanged((CHAT,)), NOW)
    meet(member, BOB, CYD)
    effects = member.handle(Received(BOB, request()), NOW + 2)
    assert (sent(effects, TaskAccepted), sent(effects, AdvertPush)) == ([BOB], [BOB, CYD])
    effects = member.handle(GenerationFinished(AttemptId(b"a1"), USAGE), NOW + 4)
    assert (sent(effects, TaskFinished), sent(effects, AdvertPush)) == ([BOB], [BOB, CYD])


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
    [push] = [effect.message for effect in found(effects, Send) if isinstance(effect.message, AdvertPush)]
    assert push.adverts[0].advert.draining, "its renewals must not claim that it takes work"
    [refused] = member.handle(Received(BOB, request()), NOW + 1)
    assert refused.message.code == errors.DRAINING.number


# --- What makes no sense --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("message", [Hello(b"8" * 8, "", "", ()), Advert("", (), (), 0, 0, 0, False)])
def test_messages_that_the_link_has_used_are_ignored(message: Message) -> None:
    assert ada().handle(Received(BOB, message), NOW) == []


def test_a_message_that_no_part_handles_is_a_bug() -> None:
    class Novelty(Message):
        pass

    with pytest.raises(AssertionError, match="Novelty"):
        ada().handle(Received(BOB, Novelty()), NOW)
