"""Provider records: found a little late, replaced as a whole, forgotten when they are old."""

from protocol.identity import NodeId
from swarm.effects import FindProviders, Provide
from swarm.events import ContactsFound
from swarm.finding.regions import REGIONS
from swarm.values import MEMBERSHIP, Contact, Subject
from tests.simulations.small import PAIR, Pair

CHAT, EMBED, PAINT = Subject("chat"), Subject("embed"), Subject("paint")
BOTH = (CHAT, EMBED)


def found(pair: Pair, subject: Subject) -> list[bytes]:
    """Whom `far` finds under a subject now."""
    before = len(pair.log.of(pair.far, ContactsFound))
    pair.do(pair.far, FindProviders(subject))
    pair.wait(2.0)
    (event,) = pair.log.of(pair.far, ContactsFound)[before:]
    assert (event.source, event.subject) == ("dht", subject)
    return [contact.node for contact in event.contacts]


def test_a_record_is_found_a_little_later_under_each_skill_and_as_a_member() -> None:
    pair = Pair()
    pair.do(pair.near, Provide(BOTH))
    pair.do(pair.far, FindProviders(CHAT))
    pair.wait(5.0)
    assert [found(pair, subject) for subject in (CHAT, EMBED, MEMBERSHIP, PAINT)] == [[pair.near.node]] * 3 + [[]]


def test_what_is_provided_replaces_what_was() -> None:
    pair = Pair()
    for subjects in (BOTH, (EMBED,), (PAINT,)):
        pair.do(pair.near, Provide(subjects))
        pair.wait(5.0)
    assert [found(pair, subject) for subject in (CHAT, EMBED, PAINT, MEMBERSHIP)] == [
        [],
        [],
        [pair.near.node],
        [pair.near.node],
    ]


def test_nobody_finds_itself() -> None:
    pair = Pair()
    pair.do(pair.far, Provide(BOTH))
    pair.wait(5.0)
    assert found(pair, CHAT) == []


def test_the_record_of_a_node_that_has_gone_is_found_until_it_is_old() -> None:
    pair = Pair(PAIR + "record_lifetime_s = 30\n")
    pair.do(pair.near, Provide(BOTH))
    pair.wait(5.0)
    pair.world.crash(pair.near)
    assert found(pair, CHAT) == [pair.near.node]
    pair.wait(30.0)
    assert found(pair, CHAT) == []


def test_an_answer_holds_only_a_few_and_not_always_the_same() -> None:
    pair = Pair(PAIR.replace("count = 2", "count = 60"))
    for machine in pair.world.machines:
        pair.do(machine, Provide((CHAT,)))
    pair.wait(5.0)
    first, second = found(pair, CHAT), found(pair, CHAT)
    assert 10 < len(first) <= 20 and first != second


def test_lies_in_one_region_hide_nobody_and_in_all_of_them_they_do() -> None:
    pair = Pair()
    pair.do(pair.near, Provide((PAINT,)))
    pair.wait(5.0)
    for region in range(REGIONS):
        if region == REGIONS - 1:
            assert pair.near.node in found(pair, PAINT)[: REGIONS + 1], "still in one region"
        for number in range(500):
            lie = Contact(NodeId(number.to_bytes(32, "big")), ("/ip4/5.5.5.5/tcp/1",))
            pair.world.registry.pretend(PAINT, lie, region)
        assert len(found(pair, PAINT)) > 16
    assert pair.near.node not in found(pair, PAINT), "sixteen of five hundred are drawn in each"


def test_a_machine_is_found_by_its_models_file() -> None:
    pair = Pair()
    [offered] = pair.near.capabilities
    file = Subject(digest=offered.digest)
    assert offered.digest
    pair.do(pair.near, Provide((file,)))
    pair.wait(5.0)
    assert found(pair, file) == [pair.near.node]
