"""Provider records: found a little late, replaced as a whole, forgotten when they are old."""

from swarm.effects import FindProviders, Provide
from swarm.events import ContactsFound
from tests.simulations.small import PAIR, Pair

SKILLS = ("chat", "embed")


def found(pair: Pair, skill: str) -> list[bytes]:
    """Whom `far` finds under a skill now."""
    before = len(pair.log.of(pair.far, ContactsFound))
    pair.do(pair.far, FindProviders(skill))
    pair.wait(2.0)
    (event,) = pair.log.of(pair.far, ContactsFound)[before:]
    assert (event.source, event.skill) == ("dht", skill)
    return [contact.node for contact in event.contacts]


def test_a_record_is_found_a_little_later_under_each_skill_and_as_a_member() -> None:
    pair = Pair()
    pair.do(pair.near, Provide(SKILLS))
    pair.do(pair.far, FindProviders("chat"))
    pair.wait(5.0)
    assert [found(pair, skill) for skill in ("chat", "embed", "", "paint")] == [[pair.near.node]] * 3 + [[]]


def test_what_is_provided_replaces_what_was() -> None:
    pair = Pair()
    for skills in (SKILLS, ("embed",), ("paint",)):
        pair.do(pair.near, Provide(skills))
        pair.wait(5.0)
    assert [found(pair, skill) for skill in ("chat", "embed", "paint", "")] == [
        [],
        [],
        [pair.near.node],
        [pair.near.node],
    ]


def test_nobody_finds_itself() -> None:
    pair = Pair()
    pair.do(pair.far, Provide(SKILLS))
    pair.wait(5.0)
    assert found(pair, "chat") == []


def test_the_record_of_a_node_that_has_gone_is_found_until_it_is_old() -> None:
    pair = Pair(PAIR + "record_lifetime_s = 30\n")
    pair.do(pair.near, Provide(SKILLS))
    pair.wait(5.0)
    pair.world.crash(pair.near)
    assert found(pair, "chat") == [pair.near.node]
    pair.wait(30.0)
    assert found(pair, "chat") == []


def test_an_answer_holds_only_a_few_and_not_always_the_same() -> None:
    pair = Pair(PAIR.replace("count = 2", "count = 60"))
    for machine in pair.world.machines:
        pair.do(machine, Provide(("chat",)))
    pair.wait(5.0)
    first, second = found(pair, "chat"), found(pair, "chat")
    assert 10 < len(first) <= 16 and first != second
