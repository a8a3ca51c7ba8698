"""One operator's machines share a place."""

import pytest

from swarm.finding.places import PER_PLACE_MAX, Crowd, dialable, fits, is_public, local, place_of, public_place


@pytest.mark.parametrize(
    ("addresses", "place"),
    [
        (("/ip4/192.0.2.7/tcp/4976", "/ip4/8.8.8.8/tcp/1"), "/ip4/192.0.2"),
        (("/ip6/2001:db8:7:1::2/tcp/4976",), "/ip6/2001:db8:7"),
        (("/dns4/example.org/tcp/1",), "/dns/example.org"),
        (("/dns/a.b.Example.org./tcp/2",), "/dns/example.org"),
        (("/sim/7",), "/sim/7"),
        (("",), ""),
        ((), ""),
    ],
)
def test_the_place_of_addresses(addresses: tuple[str, ...], place: str) -> None:
    assert place_of(addresses) == place


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("/ip4/8.8.8.8/tcp/4976", True),
        ("/ip4/192.168.1.2/tcp/4976", False),
        ("/ip4/100.64.0.1/tcp/4976", False),
        ("/ip6/2a00:1450::1/tcp/4976", True),
        ("/ip6/fd00::1/tcp/4976", False),
        ("/dns4/example.org/tcp/1", False),
        ("/ip4/nonsense/tcp/1", False),
    ],
)
def test_what_is_public(address: str, expected: bool) -> None:
    assert is_public((address,)) is expected
    assert bool(public_place((address,))) is (expected or address.startswith("/dns"))


@pytest.mark.parametrize(
    ("address", "own", "expected"),
    [
        ("/ip4/8.8.8.8/tcp/1", (), True),
        ("/ip4/127.0.0.1/tcp/22", ("/ip4/8.8.4.4/tcp/1",), False),
        ("/ip4/127.0.0.1/tcp/22", ("/ip4/127.0.0.1/tcp/1",), True),
        ("/ip4/192.168.1.9/tcp/80", ("/ip4/192.168.7.2/tcp/1",), True),
        ("/ip4/192.168.1.9/tcp/80", ("/ip4/10.0.0.2/tcp/1",), False),
        ("/ip4/192.168.1.9/tcp/80", ("/ip4/127.0.0.1/tcp/1",), False),
        ("/ip4/0.0.0.0/tcp/80", ("/ip4/10.0.0.2/tcp/1",), False),
        ("/ip4/224.0.0.251/tcp/80", ("/ip4/10.0.0.2/tcp/1",), False),
        ("/ip6/fd00:1:2::9/tcp/80", ("/ip6/fd00:1:2:3::1/tcp/1",), True),
        ("/ip6/fd00:1:9::9/tcp/80", ("/ip6/fd00:1:2:3::1/tcp/1",), False),
        ("/ip6/::1/tcp/80", ("/ip4/127.0.0.1/tcp/1",), False),
        ("/dns4/example.org/tcp/1", (), True),
        ("/ip6/fe80::1%lo/tcp/1", ("/ip6/fe80::2/tcp/1",), False),
        ("/ip4/127.1/tcp/1", (), False),
        ("/memory/bob", (), True),
    ],
)
def test_a_stranger_sends_nobody_into_networks_that_are_not_its_own(
    address: str, own: tuple[str, ...], expected: bool
) -> None:
    assert bool(dialable((address,), own)) is expected


@pytest.mark.parametrize(
    ("address", "own", "expected"),
    [
        ("/ip4/192.168.1.9/tcp/80", ("/dns4/example.org/tcp/1",), True),
        ("/ip4/8.8.8.8/tcp/1", ("/ip4/192.168.1.2/tcp/1",), False),
        ("/ip4/127.0.0.1/tcp/22", ("/ip4/192.168.1.2/tcp/1",), False),
        ("/ip4/127.0.0.1/tcp/22", ("/ip4/127.0.0.1/tcp/1",), True),
        ("/ip6/2a00:1450:1:2::9/tcp/1", ("/ip6/2a00:1450:1::1/tcp/1",), True),
        ("/ip6/2a00:1450:2::9/tcp/1", ("/ip6/2a00:1450:1::1/tcp/1",), False),
        ("/ip4/0.0.0.0/tcp/80", ("/ip4/10.0.0.2/tcp/1",), False),
        ("/dns4/router.lan/tcp/80", ("/ip4/10.0.0.2/tcp/1",), False),
        ("/ip4/10.0.0.1/tcp/1/p2p/R/p2p-circuit/p2p/N", ("/ip4/10.0.0.2/tcp/1",), False),
        ("/memory/bob", (), True),
    ],
)
def test_what_may_be_in_the_same_network(address: str, own: tuple[str, ...], expected: bool) -> None:
    assert bool(local((address,), own)) is expected


def test_a_public_place_is_full_at_some_point_and_a_home_never_is() -> None:
    crowd = Crowd()
    for number in range(PER_PLACE_MAX):
        assert not crowd.is_full((f"/ip4/8.8.8.{number}/tcp/1",))
        crowd.add((f"/ip4/8.8.8.{number}/tcp/1",))
        crowd.add((f"/ip4/10.8.8.{number}/tcp/1",))
    assert crowd.is_full(("/ip4/8.8.8.200/tcp/1",))
    assert not crowd.is_full(("/ip4/8.8.9.200/tcp/1",))
    assert not crowd.is_full(("/ip4/10.8.8.200/tcp/1",))
    crowd.remove(("/ip4/8.8.8.1/tcp/1",))
    assert not crowd.is_full(("/ip4/8.8.8.200/tcp/1",))


@pytest.mark.parametrize(
    ("text", "expected"), [("/" * 192, True), ("/" * 193, False), ("é" * 96, True), ("é" * 97, False), ("\ud800", False)]
)
def test_what_a_message_can_hold_is_counted_in_bytes(text: str, expected: bool) -> None:
    assert fits(text) is expected
