"""In a wired world every message crosses as bytes through real links, and members notice nothing of it."""

from collections.abc import Callable
from random import Random

import pytest

from protocol import envelope
from protocol.messages import Ping
from simulations.play import play
from simulations.world import World, WorldFailure
from swarm.events import NeighbourUp, Received
from tests.simulations.small import PAIR, Chatterer, Log, Pair, scenario

WIRED = PAIR.replace("start_s = 0", "start_s = 0\nwired = true")


def test_a_message_crosses_as_bytes_and_arrives_as_it_was_sent() -> None:
    pair = Pair(WIRED)
    pair.link()
    for nonce in range(100):
        pair.say(nonce)
    pair.wait(2.0)
    assert pair.heard() == list(range(100))
    assert pair.world.network.sent == {Ping: 100}
    assert pair.world.network.bytes > 100 * 5 + 2 * 200, "a hundred frames and two signed Hellos"


def test_both_sides_know_each_other_from_their_hellos() -> None:
    pair = Pair(WIRED)
    pair.link()
    (near,), (far,) = pair.log.of(pair.near, NeighbourUp), pair.log.of(pair.far, NeighbourUp)
    assert (near.node, near.name, near.addresses, near.dialled) == (pair.far.node, "node-1", ("/sim/1",), "/sim/1")
    assert (far.node, far.name, far.addresses, far.dialled) == (pair.near.node, "node-0", ("/sim/0",), "")


def test_a_new_link_is_made_after_a_crash() -> None:
    pair = Pair(WIRED)
    pair.link()
    pair.world.crash(pair.far)
    pair.wait(1.0)
    pair.world.start(pair.far)
    pair.wait(1.0)
    pair.dial()
    pair.say(7)
    pair.wait(1.0)
    assert pair.heard() == [7]
    assert len(pair.log.of(pair.near, NeighbourUp)) == 2


def test_members_do_the_same_with_and_without_the_wire() -> None:
    """Chatterers take no dice from the wire, so what they hear is the same to the message."""
    heard = []
    for wired in (False, True):
        world = World(scenario('[[members]]\nname = "node"\ncount = 6\n', wired=wired), 3, Chatterer)
        log = Log(world)
        world.run(20.0)
        heard.append({machine.name: len(log.of(machine, Received)) for machine in world.machines})
    assert heard[0] == heard[1]
    assert sum(heard[0].values()) > 500


def test_a_forged_envelope_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    honest: Callable[..., bytes] = envelope.seal
    dice = Random(1)

    def seal(*args: object) -> bytes:
        sealed = honest(*args)
        return sealed if dice.random() < 0.95 else sealed[:-1] + bytes([sealed[-1] ^ 1])

    monkeypatch.setattr(envelope, "seal", seal)
    with pytest.raises(WorldFailure, match="RemoteProtocolError: the signature does not hold"):
        play(scenario(seconds=12.0, wired=True), 1)
