"""What the world promises of links: order, one for each pair, silence in a partition, a word after a crash but not a freeze."""

import pytest

from protocol.messages import Ping
from simulations.faults import Faults
from simulations.network import CLOSED_BY_PEER, NOT_READING, REPLACED, RESET, STALLED_MAX
from simulations.news import News
from simulations.world import World
from swarm.effects import Dial, Send
from swarm.events import DialFailed, LoopLate, NeighbourDown, NeighbourUp, Received, Undelivered
from swarm.values import Contact
from tests.simulations.small import PAIR, Chatterer, Log, Pair, scenario

LOSSY = PAIR.replace("jitter = 0", "jitter = 1\nloss = 0.3")


def test_a_dial_ends_in_a_link_that_both_sides_hear_of() -> None:
    pair = Pair()
    pair.link()
    (up,) = pair.log.of(pair.near, NeighbourUp)
    assert (up.node, up.name, up.addresses, up.dialled) == (
        pair.far.node,
        "node-1",
        pair.far.addresses,
        pair.far.addresses[0],
    )
    (up,) = pair.log.of(pair.far, NeighbourUp)
    assert (up.node, up.dialled) == (pair.near.node, "")


def test_dials_that_cross_make_one_link() -> None:
    pair = Pair()
    pair.dial()
    pair.do(pair.far, Dial(Contact(pair.near.node, pair.near.addresses)))
    pair.wait(2.0)
    assert len(pair.log.of(pair.near, NeighbourUp)) == len(pair.log.of(pair.far, NeighbourUp)) == 1
    assert not pair.log.of(pair.near, DialFailed, NeighbourDown) + pair.log.of(pair.far, DialFailed, NeighbourDown)


def test_a_dial_of_a_neighbour_makes_nothing() -> None:
    pair = Pair()
    pair.link()
    before = len(pair.log.all)
    pair.dial()
    pair.wait(10.0)
    assert len(pair.log.all) == before


def test_what_is_sent_during_a_dial_arrives_once_the_link_is_up() -> None:
    pair = Pair()
    pair.dial()
    pair.say(7)
    pair.wait(2.0)
    assert [type(event) for event in pair.log.of(pair.far, NeighbourUp, Received)] == [NeighbourUp, Received]


def test_what_is_sent_without_link_or_dial_is_undelivered() -> None:
    pair = Pair()
    pair.say(7)
    pair.wait(1.0)
    assert pair.log.of(pair.near, Undelivered) == [Undelivered(pair.far.node, Ping(7))]


@pytest.mark.parametrize("contact", [Contact(None, ("/sim/99",)), Contact(b"x" * 32, ("/sim/1",))])  # type: ignore[arg-type]
def test_a_dial_that_leads_nowhere_fails(contact: Contact) -> None:
    pair = Pair()
    pair.do(pair.near, Dial(contact))
    pair.wait(10.0)
    assert [event.contact for event in pair.log.of(pair.near, DialFailed)] == [contact]


def test_a_dial_into_silence_fails_after_its_limit_and_what_waited_for_it_is_undelivered() -> None:
    pair = Pair()
    pair.split()
    pair.dial()
    pair.say(7)
    pair.wait(4.9)
    assert not pair.log.of(pair.near, DialFailed, Undelivered)
    pair.wait(0.2)
    assert [type(event) for event in pair.log.of(pair.near, DialFailed, Undelivered)] == [Undelivered, DialFailed]


def test_messages_of_a_link_arrive_once_and_in_order_though_some_are_lost() -> None:
    pair = Pair(LOSSY)
    pair.link()
    for nonce in range(300):
        pair.say(nonce)
        pair.wait(0.01)
    pair.wait(5.0)
    assert pair.heard() == list(range(300))


def test_a_loss_shows_as_delay() -> None:
    delays = []
    for text in (PAIR, LOSSY):
        pair = Pair(text)
        pair.link()
        sent_at = pair.world.agenda.now
        for nonce in range(100):
            pair.say(nonce)
        pair.wait(5.0)
        delays.append(pair.log.times(pair.far, Received)[-1] - sent_at)
    assert delays[1] > delays[0] + 0.1


def test_both_sides_hear_of_a_disconnect_the_other_one_behind_what_was_sent_before() -> None:
    pair = Pair()
    pair.link()
    pair.say(7)
    pair.hang_up()
    pair.wait(1.0)
    assert pair.log.of(pair.near, NeighbourDown) == [NeighbourDown(pair.far.node, "enough")]
    assert [type(event) for event in pair.log.of(pair.far, Received, NeighbourDown)] == [Received, NeighbourDown]
    assert pair.log.of(pair.far, NeighbourDown)[0].cause == CLOSED_BY_PEER


def test_nothing_arrives_over_a_link_that_is_down() -> None:
    pair = Pair()
    pair.link()
    pair.do(pair.far, Send(pair.near.node, Ping(9)))
    pair.hang_up()
    pair.wait(1.0)
    assert not pair.log.of(pair.near, Received)


def test_a_crash_is_heard_soon() -> None:
    pair = Pair()
    pair.link()
    pair.world.crash(pair.far)
    pair.wait(1.0)
    assert pair.log.of(pair.near, NeighbourDown) == [NeighbourDown(pair.far.node, RESET)]


def test_a_machine_without_a_process_refuses_dials_at_once() -> None:
    pair = Pair()
    pair.world.crash(pair.far)
    pair.dial()
    pair.wait(1.0)
    assert len(pair.log.of(pair.near, DialFailed)) == 1


def test_a_machine_that_vanished_says_nothing_until_it_is_back_and_spoken_to() -> None:
    pair = Pair()
    pair.link()
    pair.world.crash(pair.far, silently=True)
    pair.say(1)
    pair.wait(20.0)
    assert not pair.log.of(pair.near, NeighbourDown)
    pair.world.start(pair.far)
    pair.wait(1.0)
    assert not pair.log.of(pair.near, NeighbourDown)
    pair.say(2)
    pair.wait(1.0)
    assert pair.log.of(pair.near, NeighbourDown) == [NeighbourDown(pair.far.node, RESET)]
    assert not pair.heard()


def test_a_new_process_knows_nothing_of_the_links_and_timers_of_the_old_one() -> None:
    pair = Pair()
    pair.link()
    pair.say(1)
    pair.world.crash(pair.far, silently=True)
    pair.world.start(pair.far)
    pair.wait(10.0)
    assert not pair.heard()


def test_a_partition_is_silence_and_healing_brings_everything_in_order() -> None:
    pair = Pair()
    pair.link()
    pair.say(1)
    pair.wait(1.0)
    pair.split()
    for nonce in (2, 3, 4):
        pair.say(nonce)
        pair.wait(5.0)
    assert pair.heard() == [1]
    assert not pair.log.of(pair.near, NeighbourDown) + pair.log.of(pair.far, NeighbourDown)
    pair.heal()
    pair.say(5)
    pair.wait(20.0)
    assert pair.heard() == [1, 2, 3, 4, 5]


def test_who_gives_up_a_link_in_a_partition_is_told_at_once_and_the_other_after_healing() -> None:
    pair = Pair()
    pair.link()
    pair.split()
    pair.say(2)
    pair.hang_up()
    pair.wait(30.0)
    assert len(pair.log.of(pair.near, NeighbourDown)) == 1
    assert not pair.log.of(pair.far, NeighbourDown)
    pair.heal()
    pair.wait(20.0)
    assert [type(event) for event in pair.log.of(pair.far, Received, NeighbourDown)] == [Received, NeighbourDown]


def test_a_peer_that_dials_again_replaces_the_link_that_only_we_still_had() -> None:
    pair = Pair()
    pair.link()
    pair.split()
    pair.hang_up()
    pair.wait(1.0)
    pair.far.island = 0  # The way is free, but what was stalled has not been sent again yet.
    pair.dial()
    pair.wait(2.0)
    changes = pair.log.of(pair.far, NeighbourUp, NeighbourDown)
    assert [type(event) for event in changes] == [NeighbourUp, NeighbourDown, NeighbourUp]
    assert changes[1].cause == REPLACED
    pair.heal()
    pair.say(3)
    pair.wait(30.0)
    assert pair.heard() == [3]
    assert pair.log.of(pair.far, NeighbourUp, NeighbourDown) == changes


def test_a_stalled_link_holds_only_so_much() -> None:
    pair = Pair()
    pair.link()
    pair.split()
    for nonce in range(STALLED_MAX + 10):
        pair.say(nonce)
    pair.wait(1.0)
    assert pair.log.of(pair.near, NeighbourDown) == [NeighbourDown(pair.far.node, NOT_READING)]
    assert pair.log.of(pair.near, Undelivered)


def test_a_frozen_process_keeps_its_links_and_catches_up_in_order() -> None:
    pair = Pair()
    pair.link()
    pair.world.freeze(pair.far)
    for nonce in (1, 2, 3):
        pair.say(nonce)
        pair.wait(4.0)
    assert not pair.heard()
    assert not pair.log.of(pair.near, NeighbourDown)
    pair.world.thaw(pair.far)
    pair.wait(1.0)
    assert pair.heard() == [1, 2, 3]
    assert [type(event) for event in pair.log.of(pair.far, LoopLate, Received)] == [
        LoopLate,
        Received,
        Received,
        Received,
    ]
    assert pair.log.of(pair.far, LoopLate)[0].late_s == pytest.approx(12.0)


@pytest.mark.parametrize("seed", range(4))
def test_links_come_and_go_in_turn_whatever_happens(seed: int) -> None:
    faults = """
[[members]]
name = "node"
count = 24
[network]
loss = 0.05
""" + "".join(
        f'[[faults]]\nkind = "{kind}"\nat_s = {2 + number}\nevery_s = 3\ncount = 4\nfor_s = {for_s}\n'
        for number, (kind, for_s) in enumerate(
            [("crash", 2), ("vanish", 4), ("freeze", 5), ("partition", 4), ("blackhole", 7), ("leave", 3)]
        )
    )
    small = scenario(faults, seconds=60)
    world = World(small, seed, Chatterer)
    Faults(world, News(world))
    log = Log(world)
    world.run(80.0)
    ups: dict[tuple[object, object], int] = {}
    processes: dict[object, int] = {}
    for _, machine, event in log.all:
        match event:
            case LoopLate() | DialFailed() | Undelivered():
                continue
        if type(event).__name__ == "Started":
            processes[machine.node] = processes.get(machine.node, 0) + 1
        peer = getattr(event, "node", getattr(event, "sender", None))
        pair = ((machine.node, processes[machine.node]), peer)
        if isinstance(event, NeighbourUp):
            assert not ups.get(pair), "up twice"
            ups[pair] = 1
        elif isinstance(event, NeighbourDown):
            assert ups.get(pair), "down without up"
            ups[pair] = 0
        elif isinstance(event, Received):
            assert ups.get(pair), "a message without a link"
    assert sum(ups.values()) > 24
