"""`swarm doctor --net` and `swarm ping`: who can reach this node, by which ways, and what to do about it."""

from dataclasses import asdict, replace
from typing import Any

import pytest

from node.cli import ping as ping_command
from node.exits import ExitCode
from node.views import PeerView, ReachView, SightingView
from tests.node.cli import control_api as canned
from tests.node.cli.conftest import Run
from tests.node.cli.control_api import Answer, Control

WORLD = SightingView("/ip4/203.0.113.7", 0, 2)
HOME = SightingView("/ip4/192.168.1.5", 2, 0)
CIRCUIT = f"/ip4/198.51.100.9/tcp/4976/p2p/{canned.WREN}/p2p-circuit/p2p/{canned.KESTREL}"


def linked(*paths: str) -> list[PeerView]:
    return [replace(canned.peers()[1], name=f"peer-{n}", rtt_ms=10.0 * (n + 1), path=path) for n, path in enumerate(paths)]


def doctor(swarm: Run, control: Control, **changes: Any) -> dict[str, dict[str, Any]]:
    control.answers["GET /status"] = Answer(asdict(replace(canned.status(), **changes)))
    checks = swarm("doctor", "--net", "--json").json["checks"]
    return {check["name"]: check for check in checks}


def test_a_node_that_does_not_run_is_reached_by_nobody(swarm: Run) -> None:
    ran = swarm("doctor", "--net")
    assert ran.code == ExitCode.FAILED
    assert "swarm up" in ran.out


def test_a_node_that_others_can_dial(swarm: Run, control: Control) -> None:
    found = doctor(swarm, control, reach=ReachView("open", [HOME], router="none"), peers=linked("direct"))
    assert found["reachable"]["state"] == "ok"
    assert "at 192.168.1.5 2 of 2 got in" in found["reachable"]["finding"]
    assert found["paths"]["finding"].startswith("1 nodes connected directly; 10 to 10 ms away")


def test_a_node_behind_a_closed_router_is_told_which_port(swarm: Run, control: Control) -> None:
    reach = ReachView("closed", [HOME, WORLD], ["wren"])
    addresses = [*canned.status().addresses, CIRCUIT]
    found = doctor(swarm, control, reach=reach, addresses=addresses, peers=linked("direct", "relay wren"))
    check = found["reachable"]
    assert (check["state"], "0 of 2 got in" in check["finding"]) == ("warning", True)
    assert "they come through wren" in check["finding"]
    assert "forward TCP port 4976 to this machine" in check["hint"]
    assert "peer-1 (relay wren)" in found["paths"]["finding"]
    assert "p2p-circuit" not in found["listening"]["finding"]


def test_without_a_relay_it_says_what_is_left(swarm: Run, control: Control) -> None:
    found = doctor(swarm, control, reach=ReachView("closed", [WORLD]))
    assert "node.relay = serve" in found["reachable"]["hint"]


@pytest.mark.parametrize(
    ("router", "words"), [("mapped", "lets others in"), ("refused", "does not let others in"), ("none", "no router")]
)
def test_what_the_router_said(swarm: Run, control: Control, router: str, words: str) -> None:
    assert words in doctor(swarm, control, reach=ReachView(router=router))["router"]["finding"]


def test_a_relay_says_for_how_many(swarm: Run, control: Control) -> None:
    assert "carries links to 5 nodes" in doctor(swarm, control, reach=ReachView(relaying=True, carried=5))["relaying"]["finding"]


def test_nobody_near_is_a_warning_with_a_way_out(swarm: Run, control: Control) -> None:
    check = doctor(swarm, control, peers=[], reach=ReachView(mdns=False))["paths"]
    assert (check["state"], "swarm join" in check["hint"], "node.mdns" in check["hint"]) == ("warning", True, True)


def test_loopback_only_is_a_warning(swarm: Run, control: Control) -> None:
    assert doctor(swarm, control, addresses=["/ip4/127.0.0.1/tcp/1"])["listening"]["state"] == "warning"


def test_a_second_node_with_this_identity_is_a_failure_and_shown_without_net_too(swarm: Run, control: Control) -> None:
    assert doctor(swarm, control, twin=["/ip4/192.168.1.6/tcp/4976"])["twin"]["state"] == "failed"
    ran = swarm("doctor")
    assert ran.code == ExitCode.FAILED
    assert "/ip4/192.168.1.6/tcp/4976" in ran.out


def test_status_names_a_closed_router(swarm: Run, control: Control) -> None:
    reach = ReachView("closed", [WORLD], ["wren"])
    control.answers["GET /status"] = Answer(asdict(replace(canned.status(), reach=reach)))
    assert "others cannot dial this node, they come through wren: swarm doctor --net" in swarm("status").out


def test_ping_tells_the_way_and_stops_when_it_is_direct(swarm: Run, control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ping_command, "PAUSE_S", 0.0)
    control.answers["POST /ping"] = Answer(asdict(replace(canned.pong(), path="relay otter", address=CIRCUIT)))
    assert swarm("ping", "heron", "-c", "2").out == "pong from heron in 4.2 ms, via relay otter\n" * 2
    assert control.asked[-1] == ("POST /ping", {"peer": "heron"})
    control.answers["POST /ping"] = Answer(asdict(canned.pong()))
    assert swarm("ping", "heron", "--until-direct").out == "pong from heron in 4.2 ms, direct, at /ip4/192.168.1.9/tcp/4976\n"


def test_a_node_that_does_not_answer_is_named(swarm: Run, control: Control) -> None:
    control.fail("POST /ping", "ping_failed", "heron does not answer: Nothing answers there.", 502)
    ran = swarm("ping", "heron")
    assert (ran.code, "Nothing answers there" in ran.err) == (ExitCode.FAILED, True)
