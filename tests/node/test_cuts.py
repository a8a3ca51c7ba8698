"""A network that is cut in two for a while, with real nodes in network namespaces."""

import time

import pytest

from tests.networks import Network, can_make_networks
from tests.processes import RealNode, Starter

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not can_make_networks(), reason="network namespaces need Linux, root, iproute2 and nftables"),
]

EACH = 9  # Nodes on each side: with eight neighbours nobody looks for more.
CUT_S = 20.0


def known(node: RealNode) -> set[str]:
    return {str(peer["name"]) for peer in node.control("GET", "peers")["peers"]}


def wait_for_all(nodes: list[RealNode], names: set[str]) -> None:
    """Until each knows these and nobody else."""
    for node in nodes:
        node.wait_until(lambda node=node: known(node) == names)  # type: ignore[misc]


def test_two_halves_that_have_given_each_other_up_find_each_other_again(net: Network, start: Starter) -> None:
    sides: dict[str, list[RealNode]] = {"left": [], "right": []}
    for side, nodes in sides.items():
        address = net.place(side)
        for number in range(EACH):
            listen = {"node.listen": [f"/ip4/{address}/tcp/{4976 + number}"]}
            join = sides["left"][0].addresses[:1] if sides["left"] else ()
            nodes.append(start.start(f"{side}-{number}", inside=net.inside(side), join=join, **listen))
    names = {side: {node.name for node in nodes} for side, nodes in sides.items()}
    wait_for_all(start.nodes, names["left"] | names["right"])

    net.cut("right")
    for side, nodes in sides.items():
        wait_for_all(nodes, names[side])
    time.sleep(CUT_S)
    net.plug("right")
    wait_for_all(start.nodes, names["left"] | names["right"])
