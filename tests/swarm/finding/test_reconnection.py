"""Former neighbours that are taken for dead are dialled now and then: the halves of a swarm that was cut find each other again."""

from collections.abc import Callable
from random import Random

import pytest

from protocol.identity import NodeId
from swarm.finding.contacts import FAILURES_MAX, LOST_MAX, LOST_S, Contacts
from swarm.settings import Settings
from swarm.values import Contact
from tests.swarm.finding.test_contacts import LONG_AFTER, dialled
from tests.swarm.samples import ADA, BOB, CYD, NOW, node_id

SETTINGS = Settings()
PERIOD_S = SETTINGS.reconnect_period_s
AT_BOB = Contact(BOB, ("/memory/bob",))


def nobody(node: NodeId) -> bool:
    return False


def after_loss(*contacts: Contact, was_linked: bool = True) -> Contacts:
    """These were neighbours, and others have said that they are dead."""
    found = Contacts(ADA, SETTINGS, Random(1))
    found.learn("advert", contacts)
    for contact in contacts:
        assert contact.node is not None
        if was_linked:
            found.linked(contact.node, contact.addresses, contact.addresses[0], NOW)
            found.unlinked(contact.node, False, NOW)
        found.lose(contact.node, NOW)
    return found


def dials(contacts: Contacts, seconds: float, count: int, is_known: Callable[[NodeId], bool] = nobody) -> list[Contact]:
    """What is dialled in so many seconds, with as many nodes known; none of it leads anywhere."""
    made = []
    for second in range(round(seconds)):
        for contact in dialled(contacts.reconnection(is_known, count, NOW + second)):
            made.append(contact)
            contacts.failed(contact, "no answer", NOW + second)
    return made


def test_a_former_neighbour_is_dialled_in_every_period_while_as_many_are_lost_as_are_there() -> None:
    contacts = after_loss(AT_BOB)
    made = dials(contacts, 100 * PERIOD_S, 1)
    assert set(made) == {AT_BOB}
    assert len(made) == pytest.approx(100, abs=10)


def test_the_fewer_are_lost_the_rarer_they_are_dialled() -> None:
    """All who miss it together dial it about once in a period."""
    made = dials(after_loss(AT_BOB), 400 * PERIOD_S, 20)
    assert len(made) == pytest.approx(20, abs=12)


def test_with_nobody_left_it_is_dialled_all_the_same() -> None:
    assert dials(after_loss(AT_BOB), 2 * PERIOD_S, 0)


def test_whoever_never_was_a_neighbour_or_has_left_is_not_dialled() -> None:
    assert not dials(after_loss(AT_BOB, was_linked=False), 10 * PERIOD_S, 1)
    contacts = after_loss(AT_BOB)
    contacts.forget(BOB)
    assert not dials(contacts, 10 * PERIOD_S, 1)


def test_whoever_is_known_again_or_was_lost_long_ago_is_not_dialled() -> None:
    assert not dials(after_loss(AT_BOB), 10 * PERIOD_S, 1, lambda node: node == BOB)
    assert not dialled(after_loss(AT_BOB).reconnection(nobody, 1, NOW + LOST_S))


def test_a_neighbour_that_does_not_answer_any_more_is_lost() -> None:
    contacts = Contacts(ADA, SETTINGS, Random(1))
    contacts.learn("mdns", [AT_BOB])
    contacts.linked(BOB, AT_BOB.addresses, AT_BOB.addresses[0], NOW)
    contacts.unlinked(BOB, False, NOW)
    for number in range(FAILURES_MAX):
        assert dialled(contacts.wanted([], LONG_AFTER * (number + 1))) == [AT_BOB]
        contacts.failed(AT_BOB, "no answer", NOW)
    assert len(contacts) == 0
    assert dials(contacts, 2 * PERIOD_S, 1)


def test_one_that_answers_is_a_contact_as_before() -> None:
    contacts = after_loss(AT_BOB)
    while not (made := dialled(contacts.reconnection(nobody, 1, NOW + PERIOD_S))):
        pass
    contacts.linked(BOB, AT_BOB.addresses, AT_BOB.addresses[0], NOW + PERIOD_S)
    assert made == [AT_BOB] and contacts.addresses(BOB) == AT_BOB.addresses
    assert not dials(contacts, 10 * PERIOD_S, 1)


def test_one_dial_at_a_time_and_none_where_one_is_under_way() -> None:
    contacts = after_loss(AT_BOB)
    assert dialled(contacts.reconnection(nobody, 0, NOW + PERIOD_S)) == [AT_BOB]
    assert contacts.is_dialling(BOB)
    assert not contacts.reconnection(nobody, 0, NOW + 3 * PERIOD_S)


def test_the_lost_are_bounded_and_are_kept_over_a_restart() -> None:
    lost = [Contact(node_id(100 + number), (f"/memory/{number}",)) for number in range(LOST_MAX + 1)]
    contacts = after_loss(*lost)
    assert set(contacts.best()) == set(lost[1:])
    contacts.learn("advert", [Contact(CYD, ("/memory/cyd",))])
    assert len(contacts) == 1, "they take no room from others"
