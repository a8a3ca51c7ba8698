"""Nodes of one swarm find each other by multicast DNS, and those of another swarm do not. Loopback alone is used."""

import socket
from functools import partial

import pytest
import trio
from zeroconf import ServiceInfo, Zeroconf

from node.libp2p.mdns import Mdns, service_of
from node.transport_bench import ALICE, BOB, CAROL, OTHER_SWARM, running
from protocol.identity import Identity, node_text
from swarm.effects import Dial
from swarm.events import ContactsFound, NeighbourUp
from swarm.values import Contact
from tests.node.libp2p.strangers import LoopbackBench


@pytest.fixture(autouse=True)
def multicast() -> None:
    """Skips where the loopback interface carries no multicast."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        group, interface = socket.inet_aton("224.0.0.251"), socket.inet_aton("127.0.0.1")
        try:
            receiver.bind(("", 0))
            receiver.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group + interface)
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, interface)
            sender.sendto(b"?", ("224.0.0.251", receiver.getsockname()[1]))
            receiver.settimeout(2)
            receiver.recv(1)
        except OSError as error:
            pytest.skip(f"no multicast on the loopback interface: {error}")


async def test_nodes_of_one_swarm_find_each_other() -> None:
    bench = LoopbackBench(mdns=True)
    async with (
        running(bench, CAROL, swarm=OTHER_SWARM) as carol,
        running(bench, ALICE) as alice,
        running(bench, BOB) as bob,
    ):
        for seeker, sought in ((alice, bob), (bob, alice)):
            found = await seeker.next(ContactsFound)
            assert (found.source, found.contacts) == ("mdns", (sought.contact,))
        alice.transport.dial(Dial(alice.all(ContactsFound)[0].contacts[0]))
        assert (await alice.next(NeighbourUp)).node == bob.node
        assert not carol.all(ContactsFound)


async def test_records_that_make_no_sense_are_ignored() -> None:
    alice, bob = Identity(ALICE).node, Identity(BOB).node
    good = f"/ip4/127.0.0.1/tcp/7/p2p/{node_text(bob)}"
    records = {
        "nothing": {},
        "noise": {"a0": b"\xff\xfe"},
        "no address": {"a0": "hello"},
        "no peer": {"a0": "/ip4/127.0.0.1/tcp/7"},
        "two peers": {"a0": good, "a1": f"/ip4/127.0.0.1/tcp/7/p2p/{node_text(alice)}"},
        "good": {"a0": good, "x": "y"},
    }
    found: list[Contact] = []
    service = service_of(bytes(32))
    speaker = await trio.to_thread.run_sync(lambda: Zeroconf(interfaces=["127.0.0.1"]))
    try:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                listener = Mdns(bytes(32), alice, ("/ip4/127.0.0.1/tcp/1/p2p/" + node_text(alice),), found.append)
                nursery.start_soon(listener.run)
                for name, properties in records.items():  # The good one last.
                    info = ServiceInfo(
                        service,
                        f"{name}.{service}",
                        port=7,
                        addresses=[socket.inet_aton("127.0.0.1")],
                        properties=properties,
                        server="x.local.",
                    )
                    # Without asking three times whether the name is taken.
                    await trio.to_thread.run_sync(partial(speaker.register_service, info, cooperating_responders=True))
                while not found:
                    await trio.sleep(0.05)
                nursery.cancel_scope.cancel()
    finally:
        await trio.to_thread.run_sync(speaker.close)
    assert set(found) == {Contact(bob, (good,))}


async def test_stopping_while_it_starts_leaves_nothing_behind() -> None:
    node = Identity(ALICE).node
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Mdns(bytes(32), node, (f"/ip4/127.0.0.1/tcp/1/p2p/{node_text(node)}",), print).run)
            await trio.sleep(0.05)
            nursery.cancel_scope.cancel()
