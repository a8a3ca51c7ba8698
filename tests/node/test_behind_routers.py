"""Nodes behind home routers, real ones in network namespaces: a relay leads to them until there is a direct way."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.networks import Network, can_make_networks
from tests.processes import ROOT, RealNode, Starter

pytestmark = pytest.mark.skipif(not can_make_networks(), reason="network namespaces need Linux, root, iproute2 and nftables")

PORT = 4976


def at(net: Network, start: Starter, name: str, address: str, **settings: Any) -> RealNode:
    """A node at a place that has been made."""
    listen = {"node.listen": [f"/ip4/{address}/tcp/{PORT}"]}
    return start.start(name, inside=net.inside(name), **listen, **settings)


def path_to(node: RealNode, name: str) -> str:
    peers = node.control("GET", "peers")["peers"]
    return next((str(peer["path"]) for peer in peers if peer["name"] == name), "")


def reach(node: RealNode) -> dict[str, Any]:
    found: dict[str, Any] = node.control("GET", "status")["reach"]
    return found


def test_a_relay_leads_to_a_hidden_worker_until_there_is_a_direct_way(net: Network, start: Starter) -> None:
    """[RCH-1] [RCH-3] [RCH-5] The hidden one learns from a neighbour that it is hidden, and where."""
    relay = at(net, start, "relay", net.place("relay"), **{"node.relay": "serve"})
    hidden = at(net, start, "hidden", net.home("hidden"), models=("echo",), join=relay.addresses[:1])
    hidden.wait_until(lambda: reach(hidden)["relays"] == ["relay"])
    [sighting] = reach(hidden)["sightings"]
    assert (reach(hidden)["verdict"], sighting["seen"][:9], sighting["failed"]) == ("closed", "/ip4/5.5.", 1)
    relay.wait_until(lambda: reach(relay)["carried"] == 1)

    home = net.home("asker")
    asker = at(net, start, "asker", home, join=relay.addresses[:1])
    asker.wait_for("chat")
    text, answer = asker.ask("Can you hear me?")
    assert (text, answer["name"]) == ("Can you hear me?", "hidden")
    assert path_to(asker, "hidden") == "relay relay"
    assert asker.control("POST", "ping", {"peer": "hidden"})["path"] == "relay relay"
    asker.stop()

    net.forward("asker", home, PORT)
    asker = RealNode(asker.home, "asker", inside=net.inside("asker"), **{"node.listen": [f"/ip4/{home}/tcp/{PORT}"]})
    start.nodes.append(asker.wait_ready())
    asker.wait_until(lambda: reach(asker)["verdict"] == "open")
    assert any(address.startswith("/ip4/5.5.") for address in asker.control("GET", "status")["addresses"])
    asker.wait_until(lambda: path_to(asker, "hidden") == "direct")
    relay.kill()
    text, answer = asker.ask("Still there?")
    assert (text, answer["name"]) == ("Still there?", "hidden")


@pytest.fixture
def run(start: Starter) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    running: list[subprocess.Popen[str]] = []

    def begin(*command: str) -> subprocess.Popen[str]:
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT))
        return running[-1]

    yield begin
    for process in running:
        process.kill()
        process.communicate()


def test_a_router_that_speaks_upnp_lets_others_in_and_gets_its_port_back(
    net: Network, start: Starter, run: Callable[..., subprocess.Popen[str]]
) -> None:
    other = at(net, start, "other", net.place("other"))
    address = net.home("home")
    lan = address.rpartition(".")[0] + ".1"
    router = run(*net.at_router("home"), sys.executable, "-m", "tests.igd", lan)
    assert router.stdout is not None and router.stdout.readline() == "ready\n"
    node = at(net, start, "home", address, join=other.addresses[:1], **{"node.upnp": True})
    assert router.stdout.readline() == "added starlings 3600\n"
    node.wait_until(lambda: reach(node)["verdict"] == "open")
    assert reach(node)["router"] == "mapped"
    node.stop()
    assert router.stdout.readline() == f"deleted {PORT}\n"


def test_without_a_relay_a_hidden_node_still_asks(net: Network, start: Starter) -> None:
    worker = at(net, start, "worker", net.place("worker"), models=("echo",))
    hidden = at(net, start, "hidden", net.home("hidden"), join=worker.addresses[:1])
    hidden.wait_for("chat")
    assert hidden.ask("From behind a router.")[0] == "From behind a router."
    hidden.wait_until(lambda: reach(hidden)["verdict"] == "closed")
    assert reach(hidden)["relays"] == []
