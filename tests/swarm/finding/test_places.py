"""One operator's machines share a place."""

import pytest

from swarm.finding.places import place_of


@pytest.mark.parametrize(
    ("addresses", "place"),
    [
        (("/ip4/192.0.2.7/tcp/4976", "/ip4/8.8.8.8/tcp/1"), "/ip4/192.0.2"),
        (("/ip6/2001:db8:7:1::2/tcp/4976",), "/ip6/2001:db8:7"),
        (("/dns4/example.org/tcp/1",), "/dns4/example.org/tcp/1"),
        (("/sim/7",), "/sim/7"),
        (("",), ""),
        ((), ""),
    ],
)
def test_the_place_of_addresses(addresses: tuple[str, ...], place: str) -> None:
    assert place_of(addresses) == place
