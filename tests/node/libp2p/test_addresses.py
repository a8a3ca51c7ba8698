"""What may be listened on, what others are told, and what a text means that somebody calls an address."""

import socket
from contextlib import suppress
from types import SimpleNamespace

import pytest
import trio
from libp2p.network.exceptions import SwarmDialAllFailedError
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from node.libp2p import addresses
from node.libp2p.host import network_of, peer_of
from node.libp2p.lookup import contact_of
from node.libp2p.reserving import Reservations
from node.transport import ListenError
from node.transport_bench import ALICE, BOB, SWARM, Watched, running
from protocol.identity import Identity
from swarm.effects import Dial
from swarm.events import DialFailed, NeighbourUp
from swarm.values import Contact
from tests.node.libp2p.strangers import LoopbackBench, free_port, node_on_loopback

PEER = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"


def test_address_is_split_from_its_peer() -> None:
    address, peer = addresses.split(f"/ip4/192.0.2.7/tcp/4976/p2p/{PEER}")
    assert (str(address), str(peer)) == ("/ip4/192.0.2.7/tcp/4976", PEER)
    assert addresses.split("/dns4/example.org/tcp/1")[1] is None


@pytest.mark.parametrize(
    "text",
    ["hello", "192.0.2.7:4976", "/ip4/999.0.0.1/tcp/1", "/ip4/1.2.3.4/tcp/1/p2p/x", "/ip4/1.2.3.4/tcp/" * 30,
     "/dns4/" + "ü" * 60 + "/tcp/" + "0" * 70 + "1"],
)  # fmt: skip
def test_what_is_no_address_is_said(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a multiaddress such as|is too long"):
        addresses.split(text)


@pytest.mark.parametrize("text", ["/ip4/0.0.0.0", "/ip4/0.0.0.0/udp/1", "/dns4/x/tcp/1", "x", "/ip4/0.0.0.0/tcp/1/ws"])
def test_what_cannot_be_listened_on_is_said(text: str) -> None:
    with pytest.raises(ListenError, match=r"cannot be listened on|is not a multiaddress"):
        addresses.parse_listen([text])


def test_taken_port_names_the_next_step() -> None:
    with socket.socket() as taker:
        taker.bind(("127.0.0.1", 0))
        taker.listen()
        port = taker.getsockname()[1]
        with pytest.raises(ListenError, match=rf"Port {port} is taken .* choose another port with --port"):
            addresses.check_free([Multiaddr(f"/ip4/127.0.0.1/tcp/{port}")])


def test_address_of_another_machine_cannot_be_listened_on() -> None:
    with pytest.raises(ListenError, match="--listen"):
        addresses.check_free([Multiaddr("/ip4/192.0.2.7/tcp/4976")])


def test_interfaces_stand_in_for_all_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    ips = ["127.0.0.1", "192.0.2.7", ("::1", 0, 0), ("fe80::1", 0, 3), ("2001:db8::7", 0, 0)]
    adapters = [SimpleNamespace(ips=[SimpleNamespace(ip=ip) for ip in ips])]
    monkeypatch.setattr(addresses.ifaddr, "get_adapters", lambda: adapters)
    bound = [Multiaddr("/ip4/0.0.0.0/tcp/7"), Multiaddr("/ip6/::/tcp/7")]
    assert [str(each) for each in addresses.reachable(bound)] == ["/ip4/192.0.2.7/tcp/7", "/ip6/2001:db8::7/tcp/7"]
    adapters[0].ips = adapters[0].ips[:1]
    assert [str(each) for each in addresses.reachable(bound)] == ["/ip4/127.0.0.1/tcp/7"], "better than none"
    adapters[0].ips = [SimpleNamespace(ip=f"192.0.2.{n}") for n in range(1, 100)]
    assert len(addresses.reachable(bound)) == 8


async def test_names_are_dialled() -> None:
    async with running(LoopbackBench(), ALICE) as alice, running(LoopbackBench(), BOB) as bob:
        port = bob.addresses[0].split("/")[4]
        alice.transport.dial(Dial(Contact(None, (f"/dns4/localhost/tcp/{port}",))))
        assert (await alice.next(NeighbourUp)).node == bob.node


async def test_a_strangers_name_does_not_lead_into_a_network_that_this_node_is_not_in() -> None:
    """Nor does its address. What the user has given may."""
    transport = node_on_loopback(ALICE, SWARM)
    transport._announce = ["/ip4/8.8.8.8/tcp/4976"]
    async with running(_One(transport), ALICE) as alice, running(LoopbackBench(), BOB) as bob:
        port = bob.addresses[0].split("/")[4]
        for host in ("dns4/localhost", "dns/127.0.0.1", "ip4/127.0.0.1"):
            contact = Contact(bob.node, (f"/{host}/tcp/{port}",))
            alice.transport.dial(Dial(contact))
            assert "only strangers have named it" in (await alice.next(DialFailed)).cause
        host = network_of(transport._host)
        host.peerstore.add_addrs(peer_of(bob.node), [Multiaddr(f"/dns4/localhost/tcp/{port}")], 600)
        with pytest.raises(SwarmDialAllFailedError, match="only strangers have named it"):
            await host.dial_peer(peer_of(bob.node))
        alice.transport.dial(Dial(contact, trusted=contact.addresses))
        assert (await alice.next(NeighbourUp)).node == bob.node


async def test_both_families_share_a_port() -> None:
    with suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        port = free_port()
        transport = node_on_loopback(ALICE, SWARM)
        transport._listen = [f"/ip4/127.0.0.1/tcp/{port}", f"/ip6/::1/tcp/{port}"]
        async with running(_One(transport), ALICE) as alice, running(LoopbackBench(), BOB) as bob:
            assert len(alice.addresses) == 2
            there = (f"/ip6/::1/tcp/{port}",)
            bob.transport.dial(Dial(Contact(alice.node, there), trusted=there))
            assert (await bob.next(NeighbourUp)).node == alice.node
        return
    pytest.skip("no IPv6 on the loopback interface")


class _One(LoopbackBench):
    """A bench of one transport that is made already."""

    def __init__(self, transport: object) -> None:
        super().__init__()
        self._transport = transport

    def transport(self, *_: object) -> object:  # type: ignore[override]
        return self._transport


async def test_address_that_nobody_could_dial_is_not_announced() -> None:
    transport = node_on_loopback(ALICE, SWARM)
    transport._announce = ["/ip4/192.0.2.7/udp/4976/quic-v1"]
    with pytest.raises(ListenError, match="cannot be announced"):
        await transport.run(print, task_status=trio.TASK_STATUS_IGNORED)


async def test_name_that_is_too_long_to_be_told_is_not_announced() -> None:
    """The node's id comes behind it."""
    transport = node_on_loopback(ALICE, SWARM)
    transport._announce = [f"/dns4/{'.'.join(['n' * 60] * 2)}/tcp/4976"]
    addresses.split(transport._announce[0])
    with pytest.raises(ListenError, match=r"too long.*cannot be announced"):
        await transport.run(print, task_status=trio.TASK_STATUS_IGNORED)


async def test_what_is_no_address_is_not_announced_and_the_node_lives() -> None:
    async with running(LoopbackBench(), ALICE) as alice, running(LoopbackBench(), BOB) as bob:
        good = alice.addresses[0]
        alice.transport.announce(("/ip4/x/tcp/4976", f"/ip4/x/tcp/1/p2p/{PEER}/p2p-circuit{good}", "é" * 192, good))
        alice.dial(bob)
        assert (await bob.next(NeighbourUp)).addresses == (good,)
        assert list(map(str, alice.transport._reachable)) == [good.partition("/p2p/")[0]]  # type: ignore[attr-defined]


def test_addresses_that_others_tell_are_counted_in_bytes() -> None:
    """What servers and relays name is told on, where there is room for 192 bytes."""
    name = f"/dns4/{'ü' * 50}.{'ü' * 20}/tcp/1"
    relay = Multiaddr(f"/dns4/{'ü' * 30}/tcp/1")
    assert len(f"{name}/p2p/{PEER}") < 192
    assert contact_of(ID.from_base58(PEER), [Multiaddr(name)]) is None
    reservations = Reservations(SimpleNamespace(get_peer_id=lambda: PEER), print, None)  # type: ignore[arg-type]
    assert reservations._circuits([relay.to_bytes()], ID.from_base58(PEER)) == ()


async def test_one_address_that_leads_nowhere_does_not_spoil_the_others() -> None:
    """A server of the DHT, or an advert, may have named it."""
    async with running(LoopbackBench(), ALICE) as alice, running(LoopbackBench(), BOB) as bob:
        wrong = (f"/ip4/127.0.0.1/tcp/1/p2p/{PEER}", "garbage", f"/ip4/127.0.0.1/tcp/1/p2p-circuit/p2p/{PEER}")
        alice.transport.dial(Dial(Contact(bob.node, (*wrong, *bob.addresses))))
        assert (await alice.next(NeighbourUp)).node == bob.node
        alice.transport.dial(Dial(Contact(Identity(b"x" * 32).node, wrong[:1])))
        assert "names another node" in (await alice.next(DialFailed)).cause


def test_an_address_that_names_another_node_is_none_of_this_one() -> None:
    other = f"/p2p/{ID.from_base58(PEER)}"
    peer = peer_of(Identity(BOB).node)
    found = contact_of(peer, [Multiaddr(f"/ip4/9.9.9.9/tcp/1{other}"), Multiaddr("/ip4/8.8.8.8/tcp/1")])
    assert found is not None and found.addresses == (f"/ip4/8.8.8.8/tcp/1/p2p/{peer}",)
    circuit = f"/ip4/8.8.8.8/tcp/1{other}/p2p-circuit"
    for text in (circuit, f"{circuit}/p2p/{peer}"):
        found = contact_of(peer, [Multiaddr(text)])
        assert found is not None and found.addresses == (f"{circuit}/p2p/{peer}",)
    assert contact_of(peer, [Multiaddr(f"{circuit}{other}")]) is None


async def test_announced_addresses_replace_the_bound_ones() -> None:
    transport = node_on_loopback(ALICE, SWARM)
    transport._announce = ["/dns4/swarm.example.org/tcp/4976"]
    async with running(_One(transport), ALICE) as alice, running(LoopbackBench(), BOB) as bob:
        assert alice.addresses[0].startswith("/dns4/swarm.example.org/tcp/4976/p2p/")
        alice.dial(bob)
        assert (await bob.next(NeighbourUp)).addresses == alice.addresses


def test_seed_and_identity_name_one_node() -> None:
    assert node_on_loopback(ALICE, SWARM).node == Identity(ALICE).node
    assert isinstance(Watched(node_on_loopback(ALICE, SWARM), Identity(ALICE).node), Watched)
