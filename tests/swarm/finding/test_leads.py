"""Providers that the DHT names are dialled and asked for their advert; who does not keep a promise is counted and left alone."""

from collections.abc import Iterable

import pytest

from protocol.identity import NodeId
from protocol.messages import AdvertPush, Pulse, Rumours, Signed, TaskRequest
from swarm.effects import Dial, Effect, LeadOverdue, LeadsDue, SetTimer
from swarm.events import Asked, ContactsFound, DialFailed, NeighbourDown, NeighbourUp, Received, TimerFired
from swarm.finding.leads import (
    ADVERT_LIMIT_S,
    AT_ONCE,
    AWAITED_MAX,
    LEADS_MAX,
    NOT_OFFERED,
    RECORD_S,
    SHUN_S,
    SHUNNED_MAX,
    SILENCE_S,
    SILENT,
    STAGGER_S,
    SUBJECTS_MAX,
)
from swarm.member import Member
from swarm.values import MEMBERSHIP, Contact, Subject
from tests.swarm.lone_member import ada, found, meet, sent
from tests.swarm.samples import ADA, BOB, CYD, DAN, NOW, capability, node_id, signed, task

PAINT, SING = Subject("paint"), Subject("sing")
FRIENDS = [node_id(number) for number in range(10, 18)]


def at(node: NodeId) -> Contact:
    return Contact(node, (f"/memory/{node.hex()[-4:]}",))


def many(count: int) -> list[Contact]:
    return [at(node_id(1000 + number)) for number in range(count)]


def seeking(*subjects: Subject) -> Member:
    """Ada, with neighbours enough, and a task for each of these."""
    member = ada()
    meet(member, *FRIENDS)
    for number, subject in enumerate(subjects or (PAINT,)):
        member.handle(Asked(task(b"t%d" % number, skill=subject.skill, model=subject.model)), NOW)
    return member


def named(member: Member, *contacts: Contact, subject: Subject = PAINT, now: float = NOW) -> list[Effect]:
    return member.handle(ContactsFound("dht", subject, contacts), now)


def dialled(effects: Iterable[Effect]) -> list[NodeId | None]:
    return [effect.contact.node for effect in found(effects, Dial)]


def timer(effects: Iterable[Effect], kind: type) -> SetTimer:
    [effect] = [effect for effect in found(effects, SetTimer) if isinstance(effect.timer, kind)]
    return effect


def link(member: Member, contact: Contact, now: float = NOW) -> list[Effect]:
    assert contact.node is not None
    return member.handle(NeighbourUp(contact.node, "x", contact.addresses, contact.addresses[0]), now)


# --- What counts -------------------------------------------------------------------------------------------------------


def test_a_provider_counts_once_it_has_given_its_own_advert() -> None:
    """[DHT-4] Not when it is named, and not when it answers the dial."""
    member = seeking()
    assert dialled(named(member, at(BOB))) == [BOB]
    assert (member.index.get(BOB), member.index.able("paint")) == (None, [])
    link(member, at(BOB))
    assert member.index.able("paint") == []
    effects = member.handle(Received(BOB, AdvertPush((signed(BOB, capability("paint")),))), NOW)
    assert sent(effects, TaskRequest) == [BOB]
    assert member.refused() == {}


def test_a_provider_whose_advert_does_not_offer_it_is_counted_and_left_alone_for_a_while() -> None:
    """[DHT-4] [DHT-5]"""
    member = seeking()
    named(member, at(BOB))
    link(member, at(BOB))
    member.handle(Received(BOB, AdvertPush((signed(BOB, capability("chat")),))), NOW)
    assert member.refused() == {NOT_OFFERED: 1}
    member.handle(NeighbourDown(BOB, "gone"), NOW + 1)
    assert dialled(named(member, at(BOB), now=NOW + 1)) == []
    assert dialled(named(member, at(BOB), subject=PAINT, now=NOW + SHUN_S + 1)) == [BOB]


@pytest.mark.parametrize("how", ["no link", "link lost", "no advert"])
def test_a_provider_that_does_not_answer_is_counted_and_the_next_is_dialled(how: str) -> None:
    """[DHT-5] It does not exist, it breaks off, or it takes the link and says nothing."""
    member = seeking()
    contacts = many(AT_ONCE + 1)
    assert dialled(named(member, *contacts)) == [contact.node for contact in contacts[:-1]]
    first = contacts[0]
    if how == "no link":
        effects = member.handle(DialFailed(first, "nothing answers"), NOW)
    elif how == "link lost":
        link(member, first)
        effects = member.handle(NeighbourDown(first.node, "reset"), NOW)
    else:
        overdue = timer(link(member, first), LeadOverdue)
        assert overdue.delay_s == ADVERT_LIMIT_S
        effects = member.handle(TimerFired(overdue.timer), NOW + ADVERT_LIMIT_S)
    assert member.refused() == {SILENT: 1}
    assert dialled(effects)[:1] == [contacts[-1].node]
    assert first.node not in dialled(named(member, first, now=NOW + SILENCE_S - 1))


def test_a_provider_that_gave_its_advert_in_time_is_not_overdue() -> None:
    member = seeking()
    named(member, at(BOB))
    overdue = timer(link(member, at(BOB)), LeadOverdue)
    member.handle(Received(BOB, AdvertPush((signed(BOB, capability("paint")),))), NOW)
    assert member.handle(TimerFired(overdue.timer), NOW + 3) == []
    assert member.refused() == {}


def test_the_advert_of_another_proves_nothing_about_who_brings_it() -> None:
    """[DHT-4]"""
    member = seeking()
    named(member, at(BOB))
    link(member, at(BOB))
    member.handle(Received(BOB, AdvertPush((signed(CYD, capability("chat")),))), NOW)
    assert member.refused() == {}


def test_a_member_named_by_the_dht_that_does_not_exist_is_counted_once() -> None:
    """[DHT-5]"""
    member = ada()
    assert dialled(named(member, at(BOB), subject=MEMBERSHIP)) == [BOB]
    for later in (1, 100):
        member.handle(DialFailed(at(BOB), "nothing answers"), NOW + later)
    assert member.refused() == {SILENT: 1}


# --- Whom to dial, and when -------------------------------------------------------------------------------------------------


def test_providers_that_hang_do_not_hold_up_the_others() -> None:
    """[DHT-5] The next few are dialled a moment later, while the first are still being waited for."""
    member = seeking()
    contacts = many(10)
    effects = named(member, *contacts)
    order = dialled(effects)
    while len(order) < 10:
        due = timer(effects, LeadsDue)
        assert due.delay_s == STAGGER_S
        effects = member.handle(TimerFired(due.timer), NOW + STAGGER_S)
        assert 0 < len(dialled(effects)) <= AT_ONCE
        order += dialled(effects)
    assert order == [contact.node for contact in contacts]
    assert not found(effects, SetTimer)


def test_dials_wait_when_too_many_hang_and_are_not_forgotten() -> None:
    member = seeking()
    contacts = many(20)
    effects, order = named(member, *contacts), []
    for _ in range(10):
        order += dialled(effects)
        effects = member.handle(TimerFired(timer(effects, LeadsDue).timer), NOW + 1)
    assert len(order) == 16
    effects = member.handle(DialFailed(contacts[0], "nothing answers"), NOW + 5)
    assert dialled(effects) == [contacts[16].node]


def test_nobody_is_dialled_any_more_once_the_task_has_found_a_worker() -> None:
    """[DHT-7] Through the DHT or from a neighbour."""
    member = seeking()
    due = timer(named(member, *many(10)), LeadsDue)
    effects = member.handle(Received(FRIENDS[0], AdvertPush((signed(CYD, capability("paint"), addresses=("/memory/c",)),))), NOW)
    assert dialled(effects) == [CYD]
    assert member.handle(TimerFired(due.timer), NOW + STAGGER_S) == []
    assert dialled(named(member, *many(20)[10:])) == []


def test_who_was_seen_to_go_is_dialled_last() -> None:
    """[DHT-7] Unless that was before any record that is still held was written."""
    member = seeking()
    for node, gone_at in ((BOB, NOW - 1), (CYD, NOW - RECORD_S - 100)):
        member.handle(Received(FRIENDS[0], AdvertPush((signed(node, capability("paint"), issued_at=gone_at),))), gone_at)
        bye = Signed(node, round(gone_at * 1000) + 1, 60_000, Pulse(0, 0, 0, False, True), b"")
        member.handle(Received(FRIENDS[0], Rumours((bye,), ())), gone_at)
        assert member.index.get(node) is None
    member.handle(Asked(task(b"again", skill="paint")), NOW)
    others = many(AT_ONCE)
    effects = named(member, at(BOB), at(CYD), *others)
    assert dialled(effects) == [CYD, *[contact.node for contact in others[:-1]]]
    assert dialled(member.handle(TimerFired(timer(effects, LeadsDue).timer), NOW + 1)) == [others[-1].node, BOB]


def test_who_says_otherwise_itself_is_dialled_last() -> None:
    """[DHT-7] Its advert came by gossip, and may be older than the record."""
    member = seeking()
    member.handle(Received(FRIENDS[0], AdvertPush((signed(BOB, capability("chat"), addresses=("/memory/b",)),))), NOW)
    assert dialled(named(member, at(BOB), *many(AT_ONCE))) == [contact.node for contact in many(AT_ONCE)]


def test_a_neighbour_is_not_dialled_and_has_told_already() -> None:
    """[DHT-7]"""
    member = seeking()
    assert dialled(named(member, at(FRIENDS[0]), at(ADA), Contact(None, ("/memory/x",)))) == []
    assert member.refused() == {NOT_OFFERED: 1}


def test_a_link_that_was_there_before_is_waited_on_for_the_advert() -> None:
    member = seeking()
    link(member, at(BOB))
    overdue = timer(named(member, at(BOB)), LeadOverdue)
    member.handle(TimerFired(overdue.timer), NOW + ADVERT_LIMIT_S)
    assert member.refused() == {SILENT: 1}


def test_one_dial_serves_two_subjects() -> None:
    member = seeking(PAINT, SING)
    assert dialled(named(member, at(BOB))) == [BOB]
    assert dialled(named(member, at(BOB), subject=SING)) == []
    link(member, at(BOB))
    member.handle(Received(BOB, AdvertPush((signed(BOB, capability("sing")),))), NOW)
    assert member.refused() == {NOT_OFFERED: 1}
    member.handle(NeighbourDown(BOB, "gone"), NOW)
    member.handle(Asked(task(b"again", skill="sing")), NOW)
    assert dialled(named(member, at(BOB))) == []


def test_a_dial_that_is_under_way_for_another_reason_is_waited_for() -> None:
    member = ada()
    member.handle(ContactsFound("mdns", MEMBERSHIP, (at(BOB),)), NOW)
    member.handle(Asked(task(skill="paint")), NOW)
    assert dialled(named(member, at(BOB))) == []
    member.handle(DialFailed(at(BOB), "nothing answers"), NOW)
    assert member.refused() == {SILENT: 1}


def test_private_addresses_are_counted_and_not_dialled() -> None:
    """[DHT-5]"""
    member = seeking()
    inside = Contact(BOB, tuple(f"/ip4/192.168.1.{number}/tcp/80" for number in range(1, 9)))
    assert dialled(named(member, inside, at(DAN))) == [DAN]
    assert member.refused() == {"private address": 8}


# --- Bounds ---------------------------------------------------------------------------------------------------------------


def test_everything_that_is_remembered_is_bounded() -> None:
    subjects = [Subject(f"x-{number}") for number in range(SUBJECTS_MAX + 5)]
    member = seeking(*subjects)
    leads = member.leads
    for number, subject in enumerate(subjects):
        named(member, *[at(node_id(10_000 * (number + 1) + each)) for each in range(200)], subject=subject)
        assert all(len(waiting) <= LEADS_MAX for waiting in leads._waiting.values())
    assert len(leads._waiting) <= SUBJECTS_MAX
    for number in range(AWAITED_MAX + 50):
        leads._await(node_id(500_000 + number), PAINT)
    assert len(leads._awaited) == AWAITED_MAX
    for number in range(SHUNNED_MAX + 50):
        leads._break(node_id(700_000 + number), PAINT, SILENT, SILENCE_S, NOW)
    assert len(leads._shunned) == SHUNNED_MAX
