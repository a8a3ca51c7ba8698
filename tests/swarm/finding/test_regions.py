"""Keys of a subject in several regions, and answers of which one may be a lie."""

import pytest

from protocol import limits as lim
from swarm.finding.regions import PROVIDERS_MAX, REGIONS, joined, key_of
from swarm.values import MEMBERSHIP, Contact, Subject
from tests.swarm.samples import BOB, CYD, DAN, capability, node_id

SWARMS = (b"s" * 32, b"t" * 32)
SUBJECTS = (MEMBERSHIP, Subject("chat"), Subject("embed"), Subject(model="chat"), Subject(digest=b"d" * 32))


def at(node: bytes, *places: str) -> Contact:
    return Contact(node, places or (f"/memory/{node.hex()[-4:]}",))


def lies(count: int, first: int = 1000) -> list[Contact]:
    return [at(node_id(first + number)) for number in range(count)]


def test_keys_differ_by_swarm_region_and_subject() -> None:
    """[DHT-1] And are the same for everybody."""
    keys = [key_of(swarm, subject, region) for swarm in SWARMS for subject in SUBJECTS for region in range(REGIONS)]
    assert len(set(keys)) == len(keys) == 2 * 5 * REGIONS
    assert keys[0] == key_of(SWARMS[0], Subject(), 0)


@pytest.mark.parametrize("poisoned", [[0], [1], [2], [0, 1], [1, 2], [0, 2]])
def test_regions_full_of_lies_do_not_hide_who_is_there(poisoned: list[int]) -> None:
    """[DHT-6] Whichever they are, and though the liars bear each other out."""
    answers = [[*lies(200), at(BOB)] if region in poisoned else [at(BOB)] for region in range(REGIONS)]
    assert BOB in [contact.node for contact in joined(answers)][: REGIONS + 1]


def test_those_that_several_regions_name_come_first() -> None:
    """[DHT-6]"""
    answers = [[*lies(50), at(BOB)], [*lies(50, 2000), at(BOB)], [at(CYD), at(BOB)]]
    nodes = [contact.node for contact in joined(answers)]
    assert nodes[0] == BOB
    assert CYD in nodes[:4]
    assert len(nodes) == PROVIDERS_MAX


def test_the_addresses_of_a_node_are_taken_from_each_answer() -> None:
    """[DHT-6] False ones do not shut out the true one."""
    false = [f"/ip4/5.5.5.5/tcp/{port}" for port in range(1, 20)]
    [contact] = joined([[at(DAN, *false)], [at(DAN, "/memory/dan", false[0])], []])
    assert "/memory/dan" in contact.addresses[:2]
    assert len(contact.addresses) == lim.ADDRESSES_MAX


def test_who_has_no_id_is_nobody() -> None:
    assert joined([[Contact(None, ("/memory/x",))], [], [at(BOB)]]) == (at(BOB),)


@pytest.mark.parametrize(
    ("subject", "offers"),
    [
        (Subject("chat"), True),
        (Subject("embed"), False),
        (Subject(model="smollm2"), True),
        (Subject(model="chat"), False),
        (Subject(digest=b"d" * 32), True),
        (Subject(digest=b"e" * 32), False),
        (MEMBERSHIP, True),
    ],
)
def test_what_keeps_a_promise(subject: Subject, offers: bool) -> None:
    assert subject.is_offered(capability(digest=b"d" * 32)) is offers
