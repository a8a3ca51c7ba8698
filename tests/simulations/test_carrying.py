"""What the world promises of links through relays: how they come about, what ends them, and when a direct one takes their place."""

import pytest

from protocol.messages import Ping
from simulations.network import RELAY_GONE, REPLACED
from swarm.effects import Dial, DialBack, Send, UseRelays
from swarm.events import CarriedChanged, DialFailed, DialledBack, NeighbourDown, NeighbourUp, Received, RelayChanged
from swarm.values import Contact
from tests.simulations.small import Pair

HIDDEN = """
about = "one who asks, one who is hidden, and a relay"
seconds = 60
start_s = 0
[[members]]
name = "node"
count = 1
[[members]]
name = "hidden"
count = 1
hidden = true
[[members]]
name = "relay"
count = 1
carries = 1
[network]
jitter = 0
"""
CIRCUIT = "/sim/2/p2p-circuit/sim/1"


class Carried(Pair):
    """`far` is hidden, and has a link with the relay."""

    def __init__(self, text: str = HIDDEN) -> None:
        super().__init__(text)
        self.relay = self.world.machines[2]
        self.do(self.far, Dial(Contact(self.relay.node, self.relay.addresses)))
        self.wait(2.0)

    def reserve(self) -> None:
        self.do(self.far, UseRelays((self.relay.node,)))
        self.wait(1.0)

    def link_through(self) -> None:
        self.reserve()
        self.do(self.near, Dial(Contact(self.far.node, (*self.far.addresses, CIRCUIT))))
        self.wait(2.0)


def test_nobody_gets_to_a_hidden_machine_directly() -> None:
    carried = Carried()
    carried.dial()
    carried.wait(10.0)
    assert len(carried.log.of(carried.near, DialFailed)) == 1
    carried.do(carried.near, DialBack(carried.far.node, carried.far.addresses))
    carried.do(carried.far, DialBack(carried.near.node, carried.near.addresses))
    carried.wait(10.0)
    assert carried.log.of(carried.near, DialledBack) == [DialledBack(carried.far.node, ())]
    assert carried.log.of(carried.far, DialledBack) == [DialledBack(carried.near.node, carried.near.addresses)]


def test_a_relay_leads_to_a_hidden_machine() -> None:
    carried = Carried()
    carried.link_through()
    assert carried.log.of(carried.far, RelayChanged) == [RelayChanged(carried.relay.node, (CIRCUIT,))]
    assert carried.log.of(carried.relay, CarriedChanged) == [CarriedChanged((carried.far.node,))]
    (up,) = carried.log.of(carried.near, NeighbourUp)
    assert (up.node, up.dialled, up.relay, up.seen) == (carried.far.node, CIRCUIT, carried.relay.node, "")
    carried.say(7)
    carried.wait(1.0)
    assert carried.heard() == [7]


def test_a_relay_is_for_those_who_asked_and_for_so_many_only() -> None:
    carried = Carried()
    carried.do(carried.near, Dial(Contact(carried.far.node, (CIRCUIT,))))
    carried.wait(10.0)
    assert len(carried.log.of(carried.near, DialFailed)) == 1
    carried.reserve()
    carried.do(carried.near, Dial(Contact(carried.relay.node, carried.relay.addresses)))
    carried.wait(2.0)
    carried.do(carried.near, UseRelays((carried.relay.node,)))
    carried.wait(1.0)
    assert carried.log.of(carried.near, RelayChanged) == [RelayChanged(carried.relay.node, ())]


@pytest.mark.parametrize("how", ["crash", "link", "release"])
def test_what_a_relay_carried_ends_with_it(how: str) -> None:
    carried = Carried()
    carried.link_through()
    if how == "crash":
        carried.world.crash(carried.relay)
    elif how == "link":
        carried.do(carried.far, UseRelays(()))
    else:
        assert carried.relay.process is not None
        carried.world.network.disconnect(carried.relay.process, carried.far.node, "enough")
    carried.wait(2.0)
    assert NeighbourDown(carried.far.node, RELAY_GONE) in carried.log.of(carried.near, NeighbourDown)
    assert NeighbourDown(carried.near.node, RELAY_GONE) in carried.log.of(carried.far, NeighbourDown)


def test_a_relay_that_stands_still_holds_up_what_it_carries() -> None:
    carried = Carried()
    carried.link_through()
    carried.world.freeze(carried.relay)
    carried.say(7)
    carried.wait(5.0)
    assert carried.heard() == []
    carried.world.thaw(carried.relay)
    carried.world.network.mended()
    carried.wait(10.0)
    assert carried.heard() == [7]


def test_the_hidden_one_can_replace_the_link_by_a_direct_one() -> None:
    carried = Carried()
    carried.link_through()
    carried.do(carried.near, Dial(Contact(carried.far.node, carried.far.addresses), upgrade=True))
    carried.wait(10.0)
    assert not carried.log.of(carried.near, DialFailed, NeighbourDown)
    carried.do(carried.far, Dial(Contact(carried.near.node, carried.near.addresses), upgrade=True))
    carried.wait(2.0)
    for one, other in ((carried.near, carried.far), (carried.far, carried.near)):
        assert carried.log.of(one, NeighbourDown)[-1] == NeighbourDown(other.node, REPLACED)
        assert carried.log.of(one, NeighbourUp)[-1].relay is None
    carried.do(carried.near, Send(carried.far.node, Ping(9)))
    carried.wait(1.0)
    assert carried.log.of(carried.far, Received)[-1].message == Ping(9)
