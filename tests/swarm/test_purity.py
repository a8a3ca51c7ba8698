"""A member is a function of its events, their times and its dice: played twice, everything comes out the same."""

from collections.abc import Iterator
from random import Random

from protocol.notary import Notary
from protocol.parts import Sampling, TaskId, Turn
from swarm.effects import Effect
from swarm.events import Asked, ContactsFound, Event, GenerationFinished, PieceGenerated
from swarm.member import Member
from swarm.settings import Settings
from swarm.values import MEMBERSHIP, Contact, Privacy, Task
from tests.swarm.samples import USAGE
from tests.swarm.small_world import SWARM, Node, SmallWorld, address, capability, identity

STEPS = 200
SETTINGS = Settings(queue_max=1, gossip_copies=2)
OFFERS = {
    "ada": (),
    "bob": (capability("chat", "small"),),
    "cyd": (capability("chat", "small", slots=2), capability("code", "coder")),
}

Told = tuple[str, float, Event, list[Effect]]


def history(seed: int) -> Iterator[list[Told]]:
    """A world whose every step is drawn from one seed; yields all that was told and wanted so far, step by step."""
    dice = Random(seed)
    told: list[Told] = []

    def observe(node: Node, event: Event, effects: list[Effect]) -> None:
        told.append((node.name, world.now, event, list(effects)))

    world = SmallWorld(observe)
    nodes = [world.start(name, SETTINGS, offered) for name, offered in OFFERS.items()]
    for node in nodes[1:]:
        world.post(nodes[0], ContactsFound("join", MEMBERSHIP, (Contact(None, (address(node.name),)),)))
    for step in range(STEPS):
        running = [(node, attempt) for node in nodes for attempt in node.generations]
        pending = world.pending()
        roll = dice.randrange(10)
        if roll < 2:
            task = Task(
                TaskId(step.to_bytes(16, "big")), "chat", (Turn("user", "hi"),), "", 8, Sampling(), (), 20.0,
                Privacy.SWARM, None,
            )  # fmt: skip
            world.post(dice.choice(nodes), Asked(task))
        elif roll < 4 and running:
            node, attempt = dice.choice(running)
            world.post(node, PieceGenerated(attempt, f"{step} "))
            if dice.random() < 0.5:
                world.end_generation(node, GenerationFinished(attempt, USAGE))
        elif roll < 9 and pending:
            for _ in range(5):
                if pending := world.pending():
                    world.let(dice.choice(pending))
        else:
            world.fire_next_timer()
        yield told


def last(steps: Iterator[list[Told]]) -> list[Told]:
    told: list[Told] = []
    for so_far in steps:
        told = so_far
    return told


def test_the_same_events_and_dice_give_the_same_effects() -> None:
    once, again = last(history(1)), last(history(1))
    assert once == again
    assert len(once) > STEPS, "something has happened"
    assert once != last(history(2))


def test_members_share_nothing_but_messages() -> None:
    """Another world in between changes nothing: there is no state outside of a member."""
    other = history(2)
    beside: list[Told] = []
    for so_far in history(1):
        next(other)
        beside = so_far
    assert beside == last(history(1))


def test_a_member_needs_no_world_to_decide_the_same() -> None:
    """What one member was told, told to another with the same dice, without anything around it."""
    told = last(history(3))
    for number, name in enumerate(OFFERS, start=1):
        who, dice = identity(name), Random(f"{name} {number}")
        member = Member(who.node, name, SETTINGS, Notary(who, SWARM, dice), dice)
        mine = [entry for entry in told if entry[0] == name]
        assert [member.handle(event, at) for _, at, event, _ in mine] == [effects for _, _, _, effects in mine]


def test_what_a_member_has_said_does_not_change_afterwards() -> None:
    """Effects are performed later, elsewhere, perhaps in a log: no part may keep a hold of them."""
    written: list[str] = []
    told: list[Told] = []
    for so_far in history(4):
        written += [repr(entry) for entry in so_far[len(written) :]]
        told = so_far
    assert [repr(entry) for entry in told] == written
