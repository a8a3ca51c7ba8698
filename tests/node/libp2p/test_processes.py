"""Nodes that are killed, frozen and thawed: their neighbours notice, drop them and take them back."""

import signal

from tests.node.libp2p.solo import solo

ALICE, BOB = b"a" * 32, b"b" * 32


def test_killed_peer_is_noticed() -> None:
    with solo(BOB) as bob, solo(ALICE, bob.addresses[0]) as alice:
        bob.next("NeighbourUp")
        alice.process.send_signal(signal.SIGKILL)
        assert bob.next("NeighbourDown")["cause"] == "The peer closed the connection."


def test_frozen_peer_is_dropped_and_comes_back() -> None:
    with solo(BOB) as bob:
        with solo(ALICE, bob.addresses[0]) as alice:
            bob.next("NeighbourUp")
            alice.next("NeighbourUp")
            alice.process.send_signal(signal.SIGSTOP)
            assert bob.next("NeighbourDown")["cause"] == "The peer gave no sign of life for 7 s."
            alice.process.send_signal(signal.SIGCONT)
            alice.next("NeighbourDown")
        with solo(ALICE, bob.addresses[0]):
            bob.next("NeighbourUp")
