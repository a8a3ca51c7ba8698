"""One member alone: its links, how it finds others, and what several of its parts have a share in."""

from random import Random

import pytest

from protocol import errors
from protocol.identity import NodeId
from protocol.messages import (
    Advert,
    AdvertDigest,
    AdvertPull,
    AdvertPush,
    Goodbye,
    Hello,
    Message,
    Ping,
    Pong,
    Rumours,
    Signed,
    Suspicion,
    TaskAccepted,
    TaskCancelled,
    TaskRequest,
)
from protocol.parts import AttemptId
from swarm.effects import (
    AcceptOverdue,
    AdvertDue,
    BurialDue,
    Conclude,
    Dial,
    DigestDue,
    Disconnect,
    FindProviders,
    GossipDue,
    JoinFailed,
    Notify,
    PeerJoined,
    PeerLost,
    PongOverdue,
    Send,
    SetTimer,
    StopGenerating,
    SuspectDue,
    SweepDue,
)
from swarm.events import (
    Asked,
    CapabilitiesChanged,
    ContactsFound,
    DialFailed,
    LoopLate,
    NeighbourDown,
    NeighbourUp,
    Received,
    Started,
    TimerFired,
)
from swarm.member import Member
from swarm.settings import Settings
from swarm.values import MEMBERSHIP, Contact
from tests.swarm.lone_member import AT_BOB, CHAT, BelievesAll, ada, found, meet, placed, sent
from tests.swarm.samples import ADA, BOB, CYD, DAN, NOW, node_id, request, signed, task

# --- Links --------------------------------------------------------------------------------------------------------------


def test_a_new_neighbour_is_told_pinged_and_greeted() -> None:
    effects = ada().handle(NeighbourUp(BOB, "bob", (), ""), NOW)
    assert effects[0] == Notify(PeerJoined(BOB, "bob"))
    for kind in (Ping, AdvertPush):
        assert sent(effects, kind) == [BOB]
    assert sent(effects, AdvertDigest) == [], "whoever has dialled compares, so that it is done once"
    assert sent(ada().handle(NeighbourUp(BOB, "bob", (), "/memory/bob"), NOW), AdvertDigest) == [BOB]


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
    effects = member.handle(LoopLate(3.0), NOW + 2)
    assert sent(effects, AdvertPush) == [BOB], "others may have taken it for dead"
    assert member.handle(TimerFired(PongOverdue(BOB, 1)), NOW + 4) == []
    effects = member.handle(TimerFired(AcceptOverdue(task().id, attempt)), NOW + 4)
    assert sent(effects, TaskCancelled) == [BOB]
    assert member.standings.of(BOB, NOW).failures == 0.0
    excuse_ends = NOW + 2 + 3 + 3
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


def test_a_goodbye_to_somebody_elses_link_tells_of_a_twin() -> None:
    """[LNK-12]"""
    member = ada()
    meet(member, BOB)
    member.handle(Received(BOB, Goodbye(False, "", True)), NOW)
    assert member.gossip.twin == "as bob says"
    assert member.refused() == {"gossip: own identity": 1}


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
    member = ada(neighbours_kept=0, neighbours_target=1, neighbours_max=1)
    meet(member, BOB)
    meet(member, CYD, at=NOW + 1)
    effects = member.handle(TimerFired(SweepDue()), NOW + 2)
    assert Disconnect(BOB, "too many links") in effects
    member.handle(NeighbourDown(BOB, "too many links"), NOW + 2)
    assert member.index.get(BOB) is not None
    assert BOB not in member.roster


def test_a_link_over_which_work_is_under_way_is_not_closed_to_make_room() -> None:
    member = ada(neighbours_kept=0, neighbours_target=1, neighbours_max=1)
    member.handle(CapabilitiesChanged((CHAT,)), NOW)
    meet(member, BOB)
    member.handle(Received(BOB, request()), NOW)
    meet(member, CYD, DAN, at=NOW + 1)
    effects = member.handle(TimerFired(SweepDue()), NOW + 2)
    assert sent(effects, Goodbye) == [CYD, DAN]


@pytest.mark.parametrize("message", [request(), TaskAccepted(AttemptId(b"a9"), "", 0)], ids=["brought", "took"])
def test_a_link_that_brought_or_took_work_counts_as_used(message: Message) -> None:
    member = ada(neighbours_kept=0, neighbours_target=1, neighbours_max=1)
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
    assert timers == [AdvertDue, DigestDue, SweepDue]
    assert found(effects, FindProviders) == [FindProviders(MEMBERSHIP)]


def test_a_link_that_opens_before_the_start_is_greeted_without_an_advert() -> None:
    member = Member(ADA, "ada", Settings(), BelievesAll(), Random(1))
    effects = member.handle(NeighbourUp(BOB, "bob", (), "/memory/bob"), NOW)
    assert (sent(effects, AdvertPush), sent(effects, AdvertDigest)) == ([], [BOB])
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
    assert member.handle(ContactsFound("mdns", MEMBERSHIP, (AT_BOB,)), NOW) == [Dial(AT_BOB, trusted=AT_BOB.addresses)]


def test_a_failed_join_is_told_and_the_next_contact_dialled() -> None:
    member = ada(dials_max=1)
    nowhere = Contact(None, ("/memory/nowhere",))
    assert member.handle(ContactsFound("join", MEMBERSHIP, (nowhere, AT_BOB)), NOW) == [Dial(nowhere, trusted=nowhere.addresses)]
    effects = member.handle(DialFailed(nowhere, "no answer"), NOW)
    assert effects == [Notify(JoinFailed("/memory/nowhere", "no answer")), Dial(AT_BOB, trusted=AT_BOB.addresses)]


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
    assert sorted(sent(effects, AdvertPush)) == [BOB, CYD], "each is told of the other"
    assert found(effects, SetTimer) == [], "until there is news again"


def test_it_gives_signs_of_life_and_renews_its_advert() -> None:
    member = ada()
    meet(member, BOB)
    effects = member.handle(TimerFired(AdvertDue(1)), NOW + 20)
    assert (sent(effects, Rumours), sent(effects, AdvertPush)) == ([BOB], [])
    assert member.handle(TimerFired(AdvertDue(1)), NOW + 20) == []
    effects = member.handle(TimerFired(AdvertDue(2)), NOW + 300)
    assert (sent(effects, Rumours), sent(effects, AdvertPush)) == ([], [BOB])


def test_it_compares_with_a_neighbour_now_and_then() -> None:
    member = ada()
    meet(member, BOB)
    effects = member.handle(TimerFired(DigestDue()), NOW + 20)
    assert sent(effects, AdvertDigest) == [BOB]
    assert [effect.timer for effect in found(effects, SetTimer)] == [DigestDue()]


# --- Who is gone ----------------------------------------------------------------------------------------------------------


def lose(member: Member, node: NodeId, at: float) -> SuspectDue:
    """The link ends without a word."""
    effects = member.handle(NeighbourDown(node, "reset"), at)
    [timer] = [effect.timer for effect in found(effects, SetTimer)]
    assert isinstance(timer, SuspectDue)
    return timer


def test_others_are_told_of_a_neighbour_that_is_lost() -> None:
    """[ADV-10] A moment later, when it has had time to come back."""
    member = ada()
    meet(member, BOB, CYD)
    effects = member.handle(TimerFired(lose(member, BOB, NOW + 1)), NOW + 1.5)
    assert sent(effects, Rumours) == [CYD]
    [told] = [effect.message.suspicions for effect in found(effects, Send)]
    assert [(one.issuer, one.body) for one in told] == [(ADA, Suspicion(BOB, round(NOW * 1000)))]


def test_a_neighbour_that_comes_back_or_speaks_is_not_suspected() -> None:
    """[ADV-10]"""
    member = ada()
    meet(member, BOB, CYD, DAN)
    bob, cyd = lose(member, BOB, NOW + 1), lose(member, CYD, NOW + 1)
    meet(member, BOB, at=NOW + 1.2)
    member.handle(Received(DAN, AdvertPush((signed(CYD, CHAT, issued_at=NOW + 1.3),))), NOW + 1.4)
    assert member.handle(TimerFired(bob), NOW + 1.5) == []
    assert member.handle(TimerFired(cyd), NOW + 1.5) == []


def test_who_was_late_itself_or_lost_most_of_its_links_suspects_nobody() -> None:
    """[ADV-10] It is this node that others have lost."""
    member = ada()
    meet(member, BOB, CYD)
    timer = lose(member, BOB, NOW + 1)
    member.handle(LoopLate(2.0), NOW + 1.2)
    assert member.handle(TimerFired(timer), NOW + 1.5) == []
    crowd = [node_id(number) for number in range(10, 15)]
    member = ada()
    meet(member, *crowd)
    timers = [lose(member, node, NOW + 1) for node in crowd[:3]]
    assert member.handle(TimerFired(timers[0]), NOW + 1.5) == []


def test_whoever_left_in_order_is_not_suspected() -> None:
    member = ada()
    meet(member, BOB, CYD)
    member.handle(Received(BOB, Goodbye(True, "stopping")), NOW + 1)
    assert found(member.handle(NeighbourDown(BOB, "closed"), NOW + 1), SetTimer) == []


def test_who_does_not_refute_in_time_is_forgotten_and_not_dialled() -> None:
    """[ADV-10]"""
    member = ada()
    meet(member, CYD)
    member.handle(Received(CYD, AdvertPush((signed(BOB, CHAT), signed(CYD, CHAT)))), NOW)
    doubt = Signed(CYD, round(NOW * 1000) + 1, 60_000, Suspicion(BOB, round(NOW * 1000)), b"")
    effects = member.handle(Received(CYD, Rumours((), (doubt,))), NOW + 1)
    [verdict] = [effect for effect in found(effects, SetTimer) if effect.timer == BurialDue()]
    assert member.index.get(BOB) is not None
    member.handle(TimerFired(verdict.timer), NOW + 1 + verdict.delay_s)
    assert member.index.get(BOB) is None
    assert BOB not in [contact.node for contact in member.best_contacts()]


def test_the_best_contacts_are_the_neighbours_and_those_that_were() -> None:
    member = ada()
    meet(member, BOB)
    meet(member, CYD, at=NOW + 1)
    member.handle(ContactsFound("mdns", MEMBERSHIP, (Contact(DAN, ("/memory/dan",)),)), NOW + 2)
    member.handle(NeighbourDown(CYD, "reset"), NOW + 2)
    assert [contact.node for contact in member.best_contacts()] == [BOB, CYD]


# --- What makes no sense --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("message", [Hello(b"8" * 8, "", "", ()), Advert("", (), (), 0, 0, 0, False)])
def test_messages_that_the_link_has_used_are_ignored(message: Message) -> None:
    assert ada().handle(Received(BOB, message), NOW) == []


def test_a_message_that_no_part_handles_is_a_bug() -> None:
    class Novelty(Message):
        pass

    with pytest.raises(AssertionError, match="Novelty"):
        ada().handle(Received(BOB, Novelty()), NOW)
