"""Whom to dial: back-off, bounds, and the addresses that the user gave, which are never given up."""

from collections.abc import Iterable
from random import Random

import pytest

from protocol import limits as lim
from swarm.effects import Dial, Effect, JoinFailed, Notify
from swarm.finding.contacts import ASKED_MAX, BRIEF_DOUBLINGS, DIAL_LIMIT_S, FAILURES_MAX, JITTER, Contacts
from swarm.finding.places import PER_PLACE_MAX
from swarm.settings import Settings
from swarm.values import Contact
from tests.swarm.samples import ADA, BOB, CYD, DAN, NOW, node_id

SETTINGS = Settings()
AT_BOB = Contact(BOB, ("/memory/bob",))
SOMEWHERE = Contact(None, ("/memory/somewhere",))
LONG_AFTER = NOW + 10 * SETTINGS.dial_retry_max_s


def contacts_of(source: str, *contacts: Contact, settings: Settings = SETTINGS) -> Contacts:
    found = Contacts(ADA, settings, Random(1))
    found.learn(source, contacts)
    return found


def dialled(effects: Iterable[Effect]) -> list[Contact]:
    return [effect.contact for effect in effects if isinstance(effect, Dial)]


def many(count: int) -> list[Contact]:
    return [Contact(node_id(100 + number), (f"/memory/{number}",)) for number in range(count)]


@pytest.mark.parametrize("contact", [AT_BOB, SOMEWHERE])
@pytest.mark.parametrize("source", ["join", "mdns", "dht", "saved", "advert"])
def test_a_known_address_is_dialled_once_while_neighbours_are_missing(source: str, contact: Contact) -> None:
    contacts = contacts_of(source, contact)
    assert dialled(contacts.wanted([], NOW)) == [contact]
    assert not contacts.wanted([], NOW), "it is being dialled"


@pytest.mark.parametrize("contact", [Contact(ADA, ("/memory/ada",)), Contact(BOB, ())], ids=["self", "no address"])
def test_what_cannot_be_dialled_is_not_learned(contact: Contact) -> None:
    contacts = contacts_of("mdns", contact)
    assert not contacts.wanted([], NOW)


def test_neighbours_are_not_dialled_again() -> None:
    contacts = contacts_of("mdns", AT_BOB)
    assert not contacts.wanted([BOB], NOW)


def test_dials_under_way_are_bounded() -> None:
    contacts = contacts_of("dht", *many(20))
    assert len(contacts.wanted([], NOW)) == SETTINGS.dials_max
    assert not contacts.wanted([], NOW)


def test_only_as_many_are_dialled_as_neighbours_are_missing() -> None:
    contacts = contacts_of("dht", *many(20))
    linked = [node_id(number) for number in range(2, SETTINGS.neighbours_target)]
    assert len(contacts.wanted(linked, NOW)) == SETTINGS.neighbours_target - len(linked)
    assert not contacts.wanted([*linked, CYD, DAN], NOW)


def test_whom_to_dial_among_equals_is_drawn() -> None:
    chosen = {dialled(contacts_of("dht", *many(20)).wanted([], NOW))[0] for _ in range(3)}
    assert len(chosen) == 1, "the same dice draw the same"
    others = Contacts(ADA, SETTINGS, Random(2))
    others.learn("dht", many(20))
    assert dialled(others.wanted([], NOW))[0] not in chosen


# --- Failures ---------------------------------------------------------------------------------------------------------


def test_waits_between_dials_double_up_to_their_limit_with_jitter() -> None:
    contacts = contacts_of("join", AT_BOB)
    now = NOW
    for expected_s in (1, 2, 4, 8, 16, 32, 60, 60):
        assert dialled(contacts.wanted([], now)) == [AT_BOB]
        contacts.failed(AT_BOB, "no answer", now)
        assert not contacts.wanted([], now + JITTER[0] * expected_s - 0.01)
        now += JITTER[1] * expected_s


def test_an_address_that_nobody_asked_for_is_forgotten_after_some_failures() -> None:
    contacts = contacts_of("dht", AT_BOB)
    now = NOW
    for _ in range(FAILURES_MAX):
        assert dialled(contacts.wanted([], now)) == [AT_BOB]
        assert contacts.failed(AT_BOB, "no answer", now) == []
        now += 100
    assert not contacts.wanted([], now)
    assert contacts.addresses(BOB) == ()


def test_the_users_address_is_tried_for_ever_and_told_once() -> None:
    contacts = contacts_of("join", SOMEWHERE)
    now, told = NOW, []
    for _ in range(1_100):  # A day and a night; two to this power is more than a float holds.
        assert dialled(contacts.wanted([], now)) == [SOMEWHERE]
        told += contacts.failed(SOMEWHERE, "no answer", now)
        now += 100
    assert told == [Notify(JoinFailed("/memory/somewhere", "no answer"))]
    contacts.learn("join", [SOMEWHERE])  # The user tries again, and is told again.
    assert contacts.failed(SOMEWHERE, "no answer", now) == told


def test_a_link_clears_the_failures_before_it() -> None:
    contacts = contacts_of("dht", AT_BOB)
    for number in range(FAILURES_MAX - 1):
        contacts.failed(AT_BOB, "no answer", NOW + number)
    contacts.linked(BOB, ("/memory/bob",), "", NOW)
    contacts.unlinked(BOB, False, NOW + 10)
    assert not contacts.wanted([], NOW + 10), "not in step with everybody who lost the same node"
    assert dialled(contacts.wanted([], NOW + 10 + JITTER[1])) == [AT_BOB]
    contacts.failed(AT_BOB, "no answer", NOW + 12)
    assert contacts.addresses(BOB)


def test_a_peer_without_room_for_us_is_asked_ever_more_rarely_until_a_link_has_lasted() -> None:
    contacts, now, waits = contacts_of("join", AT_BOB), NOW, []
    for _ in range(9):
        contacts.linked(BOB, ("/memory/bob",), "", NOW)
        contacts.unlinked(BOB, True, now)
        began = now
        while not contacts.wanted([CYD], now):
            now += 0.25
        waits.append(now - began)
    assert waits[1] > 1.4 * waits[0] or waits[2] > 1.4 * waits[0]
    assert SETTINGS.dial_retry_max_s * JITTER[0] <= waits[-1] <= SETTINGS.dial_retry_max_s * JITTER[1] + 0.25
    contacts.linked(BOB, ("/memory/bob",), "", NOW)
    contacts.unlinked(BOB, False, now)
    assert contacts.wanted([CYD], now + SETTINGS.dial_retry_first_s * JITTER[1])


def test_a_link_that_does_not_last_is_dialled_more_rarely_up_to_a_bound() -> None:
    """Two nodes with one identity would take each other's links for ever; a bad network should not cost more than it must."""
    contacts, now, waits = contacts_of("mdns", AT_BOB), NOW, []
    for _ in range(12):
        contacts.linked(BOB, (), "/memory/bob", now)
        contacts.unlinked(BOB, False, now + 1)
        wait_s = next(after for after in range(200) if contacts.wanted([CYD], now + 1 + after))
        waits.append(wait_s)
        now += 1 + wait_s
    longest_s = SETTINGS.dial_retry_first_s * 2**BRIEF_DOUBLINGS
    assert waits[0] <= 2 and all(JITTER[0] * longest_s <= wait_s <= JITTER[1] * longest_s + 1 for wait_s in waits[6:])
    contacts.linked(BOB, (), "/memory/bob", now)
    contacts.unlinked(BOB, False, now + 60)
    assert contacts.wanted([CYD], now + 62), "after one that has lasted, as soon as ever"


def test_failures_and_links_of_strangers_change_nothing() -> None:
    contacts = contacts_of("dht", AT_BOB)
    contacts.linked(CYD, ("/memory/cyd",), "", NOW)
    contacts.unlinked(CYD, False, NOW)
    contacts.forget(CYD)
    assert contacts.failed(Contact(CYD, ("/memory/cyd",)), "no answer", NOW) == []
    assert dialled(contacts.wanted([], NOW)) == [AT_BOB]


def test_a_dial_that_never_ends_is_given_up() -> None:
    """A dial that leads to a neighbour whose link is up already ends in nothing at all."""
    settings = Settings(dials_max=1)
    contacts = contacts_of("join", SOMEWHERE, settings=settings)
    contacts.learn("mdns", [AT_BOB])
    assert dialled(contacts.wanted([CYD], NOW)) == [SOMEWHERE]
    assert not contacts.wanted([CYD], NOW + DIAL_LIMIT_S - 1)
    assert dialled(contacts.wanted([CYD], NOW + DIAL_LIMIT_S)) == [AT_BOB], "its place is free"
    contacts.linked(BOB, ("/memory/bob",), "", NOW)
    later = NOW + DIAL_LIMIT_S + SETTINGS.dial_retry_max_s
    assert dialled(contacts.wanted([BOB, CYD], later)) == [SOMEWHERE], "and the user's address is tried again"


# --- What the user gave ------------------------------------------------------------------------------------------------


def test_an_address_without_id_is_known_by_its_node_once_it_has_answered() -> None:
    contacts = contacts_of("join", SOMEWHERE)
    contacts.wanted([], NOW)
    contacts.linked(BOB, ("/memory/bob",), "/memory/somewhere", NOW)
    contacts.unlinked(BOB, False, NOW)
    assert dialled(contacts.wanted([], LONG_AFTER)) == [Contact(BOB, ("/memory/somewhere", "/memory/bob"))]


def test_an_advert_does_not_replace_the_address_that_the_user_gave() -> None:
    """A node behind a NAT or in a container advertises addresses that lead nowhere from here."""
    contacts = contacts_of("join", AT_BOB)
    contacts.learn("advert", [Contact(BOB, ("/memory/inside",))])
    assert contacts.addresses(BOB) == ("/memory/bob", "/memory/inside")
    contacts.learn("advert", [Contact(BOB, ("/memory/moved",))])
    assert contacts.addresses(BOB) == ("/memory/bob", "/memory/moved")


def test_an_advert_does_not_replace_the_address_that_has_led_there() -> None:
    contacts = contacts_of("join", SOMEWHERE)
    contacts.linked(BOB, ("/memory/inside",), "/memory/somewhere", NOW)
    contacts.learn("advert", [Contact(BOB, ("/memory/inside",))])
    assert contacts.addresses(BOB) == ("/memory/somewhere", "/memory/inside")


def test_an_advert_replaces_addresses_that_others_told() -> None:
    contacts = contacts_of("dht", Contact(BOB, ("/memory/old",)))
    contacts.learn("advert", [AT_BOB])
    assert contacts.addresses(BOB) == ("/memory/bob",)


def test_addresses_of_one_contact_are_bounded() -> None:
    contacts = contacts_of("join", AT_BOB)
    contacts.learn("advert", [Contact(BOB, tuple(f"/memory/{number}" for number in range(lim.ADDRESSES_MAX)))])
    addresses = contacts.addresses(BOB)
    assert len(addresses) == lim.ADDRESSES_MAX
    assert addresses[0] == "/memory/bob"


def test_another_way_to_a_node_that_the_user_gave_leaves_it_the_users() -> None:
    contacts = contacts_of("join", AT_BOB)
    contacts.learn("mdns", [SOMEWHERE])
    contacts.linked(BOB, ("/memory/bob",), "/memory/somewhere", NOW)
    contacts.forget(BOB)
    assert contacts.addresses(BOB) == ("/memory/bob", "/memory/somewhere")


def test_a_node_that_others_told_of_becomes_the_users_when_the_user_gives_it() -> None:
    contacts = contacts_of("dht", AT_BOB)
    contacts.failed(AT_BOB, "no answer", NOW)
    assert not contacts.wanted([], NOW)
    contacts.learn("join", [AT_BOB])
    assert dialled(contacts.wanted([], NOW)) == [AT_BOB]
    contacts.forget(BOB)
    assert contacts.addresses(BOB)


def test_what_the_user_gives_is_dialled_though_there_are_neighbours_enough() -> None:
    linked = [node_id(number) for number in range(100, 100 + SETTINGS.neighbours_target)]
    contacts = contacts_of("join", AT_BOB)
    assert dialled(contacts.wanted(linked, NOW)) == [AT_BOB]
    contacts.failed(AT_BOB, "no answer", NOW)
    assert not contacts.wanted(linked, LONG_AFTER), "but only once: nobody is missed"
    assert dialled(contacts.wanted([], LONG_AFTER)) == [AT_BOB]


def test_what_the_user_has_just_given_comes_first() -> None:
    contacts = contacts_of("join", *many(SETTINGS.dials_max))
    assert len(contacts.wanted([], NOW)) == SETTINGS.dials_max
    contacts.learn("join", [AT_BOB])
    assert not contacts.wanted([], NOW), "there is no room"
    for contact in many(SETTINGS.dials_max):
        contacts.failed(contact, "no answer", NOW)
    assert dialled(contacts.wanted([], LONG_AFTER))[0] == AT_BOB


# --- Bounds ------------------------------------------------------------------------------------------------------------


def test_addresses_remembered_are_bounded_and_the_oldest_goes() -> None:
    settings = Settings(contacts_max=3)
    contacts = contacts_of("dht", *many(5), settings=settings)
    remembered = [contact for contact in many(5) if contact.node and contacts.addresses(contact.node)]
    assert remembered == many(5)[2:]


def test_the_users_addresses_are_evicted_last() -> None:
    contacts = contacts_of("join", AT_BOB, settings=Settings(contacts_max=2))
    contacts.learn("dht", many(5))
    assert contacts.addresses(BOB)
    contacts = contacts_of("join", *many(5), settings=Settings(contacts_max=2))
    remembered = [contact for contact in many(5) if contact.node and contacts.addresses(contact.node)]
    assert remembered == many(5)[3:]


def test_whoever_has_led_somewhere_is_not_flushed_by_strangers() -> None:
    """However many names they make up in one burst."""
    contacts = contacts_of("saved", AT_BOB, settings=Settings(contacts_max=4))
    contacts.learn("advert", [Contact(CYD, ("/memory/cyd",))])
    contacts.linked(CYD, (), "/memory/cyd", NOW)
    contacts.learn("mdns", [Contact(DAN, ("/memory/dan",))])
    contacts.learn("advert", [Contact(node_id(100 + number), (f"/dns4/n{number}.org/tcp/1",)) for number in range(600)])
    assert all(contacts.addresses(node) for node in (BOB, CYD, DAN)) and len(contacts) == 4
    contacts.learn("mdns", many(1))
    contacts.learn("mdns", many(2)[1:])
    assert all(contacts.addresses(node) for node in (BOB, CYD)) and not contacts.addresses(DAN)


def test_names_below_one_domain_are_one_place() -> None:
    crowd = [Contact(node_id(100 + number), (f"/dns4/n{number}.example.org/tcp/1",)) for number in range(100)]
    contacts = contacts_of("advert", *crowd)
    assert len(contacts) == PER_PLACE_MAX


# --- What a task asks for -----------------------------------------------------------------------------------------------


def test_providers_that_a_task_needs_are_dialled_though_there_are_neighbours_enough() -> None:
    contacts = contacts_of("dht", *many(20))
    linked = [many(20)[0].node, BOB]
    assert dialled(contacts.asked_for(many(20), linked, NOW)) == many(20)[1 : 1 + ASKED_MAX]
    assert not contacts.asked_for(many(20), linked, NOW)


def test_providers_that_are_dialled_or_unknown_are_left_alone() -> None:
    contacts = contacts_of("dht", AT_BOB)
    assert dialled(contacts.wanted([], NOW)) == [AT_BOB]
    assert not contacts.asked_for([AT_BOB, Contact(CYD, ("/memory/cyd",))], [], NOW)
    assert dialled(contacts.asked_for([AT_BOB], [], NOW + DIAL_LIMIT_S)) == [AT_BOB]


# --- Whom to believe --------------------------------------------------------------------------------------------------------


def test_strangers_send_nobody_to_private_addresses_and_the_user_does() -> None:
    inside = ("/ip4/192.168.1.1/tcp/80", "/ip4/8.8.8.8/tcp/1")
    contacts = contacts_of("advert", Contact(BOB, inside), Contact(CYD, inside[:1]))
    contacts.learn("join", (Contact(DAN, inside[:1]),))
    assert [contacts.addresses(node) for node in (BOB, CYD, DAN)] == [inside[1:], (), inside[:1]]
    assert contacts.refused == 2
    contacts.settle(("/ip4/192.168.1.7/tcp/4976",))
    contacts.learn("dht", (Contact(CYD, inside[:1]),))
    assert contacts.addresses(CYD) == inside[:1], "a neighbour in the same network"


def test_what_the_user_gave_may_lead_anywhere() -> None:
    """And what the local network tells; what strangers add to it may not, even after it has led to somebody: names change."""
    inside, name, local = "/ip4/192.168.1.1/tcp/80", "/dns4/router.lan/tcp/80", "/ip4/10.0.0.1/tcp/1"
    contacts = contacts_of("join", Contact(BOB, (inside, name)))
    contacts.learn("advert", (Contact(BOB, ("/dns4/printer.lan/tcp/80",)), Contact(CYD, (name,))))
    contacts.learn("mdns", (Contact(CYD, (local,)), Contact(DAN, (name, "/ip4/8.8.8.8/tcp/1"))))
    assert {each.contact.node: each.trusted for each in contacts.wanted((), NOW) if isinstance(each, Dial)} == {
        BOB: (inside, name), CYD: (local,)
    }  # fmt: skip
    assert contacts.dial(Contact(DAN, (name,))).trusted == ()
    contacts.linked(CYD, (), name, NOW)
    assert contacts.dial(Contact(CYD, (name,))).trusted == (local,)


def test_the_local_network_adds_to_what_is_known_and_replaces_nothing() -> None:
    """Anybody in it can name any node."""
    true, false = ("/ip4/8.8.8.8/tcp/1",), ("/ip4/192.168.1.66/tcp/1",)
    contacts = contacts_of("advert", Contact(BOB, true))
    contacts.learn("mdns", (Contact(BOB, false),))
    assert contacts.addresses(BOB) == (*true, *false)
    contacts = contacts_of("mdns", Contact(BOB, ("/ip4/192.168.1.5/tcp/1",)))
    contacts.linked(BOB, (), "/ip4/192.168.1.5/tcp/1", NOW)
    contacts.learn("mdns", (Contact(BOB, false),))
    assert contacts.addresses(BOB) == ("/ip4/192.168.1.5/tcp/1", *false), "what has led there stays"
    contacts.linked(BOB, (), false[0], NOW)
    contacts.learn("advert", (Contact(BOB, true),))
    assert contacts.addresses(BOB) == (*false, *true), "until something else has"
    assert contacts.is_known(BOB, true)


def test_strangers_at_one_public_place_do_not_take_all_the_room() -> None:
    crowd = [Contact(node_id(100 + number), (f"/ip4/8.8.8.{number}/tcp/1",)) for number in range(100)]
    contacts = contacts_of("dht", *crowd)
    assert sum(bool(contacts.addresses(contact.node)) for contact in crowd) == PER_PLACE_MAX
    for contact in crowd[:PER_PLACE_MAX]:
        contacts.forget(contact.node)
    contacts.learn("dht", crowd[50:51])
    assert contacts.addresses(crowd[50].node)


def test_places_are_dialled_one_after_another() -> None:
    """Or whoever has many addresses is every neighbour."""
    crowd = [Contact(node_id(100 + number), (f"/ip4/8.8.8.{number}/tcp/1",)) for number in range(12)]
    others = [Contact(node_id(200 + number), (f"/ip4/8.8.{number}.1/tcp/1",)) for number in range(3)]
    contacts = contacts_of("dht", *crowd, *others, settings=Settings(dials_max=4))
    found = dialled(contacts.wanted((), NOW))
    assert len(found) == 4
    assert all(contact in found for contact in others)


def test_what_was_saved_is_dialled_before_what_strangers_say() -> None:
    contacts = contacts_of("dht", *[Contact(node_id(100 + number), (f"/memory/{number}",)) for number in range(50)])
    contacts.learn("saved", (AT_BOB,))
    assert dialled(contacts.wanted((), NOW))[0] == AT_BOB


def test_the_best_contacts_are_those_that_led_to_a_link_the_latest_first() -> None:
    contacts = contacts_of("mdns", AT_BOB, Contact(CYD, ("/memory/cyd",)), Contact(DAN, ("/memory/dan",)))
    contacts.linked(BOB, (), "", NOW)
    contacts.linked(DAN, (), "", NOW + 1)
    assert [contact.node for contact in contacts.best()] == [DAN, BOB]


def test_a_provider_record_adds_to_what_is_known_and_replaces_nothing() -> None:
    """Nobody knows who wrote it; adverts are signed."""
    true, false = ("/memory/bob",), tuple(f"/memory/{number}" for number in range(20))
    contacts = contacts_of("advert", AT_BOB)
    contacts.learn("dht", (Contact(BOB, false),))
    assert contacts.addresses(BOB) == (*true, *false)[: lim.ADDRESSES_MAX]
    contacts = contacts_of("dht", Contact(BOB, false))
    contacts.learn("dht", (AT_BOB,))
    assert contacts.addresses(BOB) == true, "of two records the newer one counts"
    assert contacts.is_untried_record(AT_BOB)
    contacts.failed(AT_BOB, "nothing answers", NOW)
    assert not contacts.is_untried_record(AT_BOB)


def test_room_for_what_tasks_ask_for_comes_back_when_dials_end() -> None:
    contacts = contacts_of("dht", *many(20))
    contacts.asked_for(many(20), [], NOW)
    assert contacts.room(NOW) == 0
    contacts.failed(many(1)[0], "nothing answers", NOW)
    assert contacts.room(NOW) == 1
    assert contacts.room(NOW + DIAL_LIMIT_S) == ASKED_MAX
