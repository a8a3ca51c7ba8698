"""Real nodes as processes over real libp2p: what a user of several machines would see, on one."""

import json
import os
import shutil
import signal
import subprocess
import sys

import psutil
import pytest

from tests.node.libp2p.strangers import free_port
from tests.processes import ROOT, ControlError, RealNode, Starter, StartFailed


def test_peer_answers_and_the_reasons_are_told(start: Starter) -> None:
    worker = start.start("worker", models=("echo:",))
    asker = start.start("asker", join=worker.addresses[:1])
    asker.wait_for("chat")
    text, end = asker.ask("seven neighbours each")
    assert (text, end["code"], end["name"], end["model"]) == ("seven neighbours each", "", "worker", "echo")
    (route,) = end["routes"]
    assert [(found["name"], found["chosen"]) for found in route["candidates"]] == [("worker", True)]
    assert {name for name, _ in route["candidates"][0]["parts"]} >= {"distance", "first token", "speed", "load"}
    assert worker.control("GET", "status")["served"] == 1


def test_node_alone_answers_from_its_own_model(start: Starter) -> None:
    node = start.start("alone", models=("language",))
    text, end = node.ask("Wo ist der nächste Bahnhof, bitte?", skill="classify:language")
    assert text.startswith("German (de)")
    assert end["name"] == "alone"


def test_node_that_knows_one_bootstrap_peer_finds_a_worker_it_was_never_told_of(start: Starter) -> None:
    bootstrap = start.start("bootstrap")
    start.start("worker", models=("echo:",), join=bootstrap.addresses[:1])
    asker = start.start("asker", join=bootstrap.addresses[:1])
    asker.wait_for("chat")
    assert asker.ask("found you")[1]["name"] == "worker"


def test_worker_killed_before_its_first_token_is_replaced(start: Starter) -> None:
    asker = start.start("asker")
    workers = {
        name: start.start(name, models=("echo:first_ms=700",), join=asker.addresses[:1]) for name in ("left", "right")
    }
    asker.wait_for("chat", 2)
    victim = ""
    for event, data in asker.stream("whoever is left"):
        if event == "route" and not victim:
            victim = next(found["name"] for found in data["candidates"] if found["chosen"])
            workers[victim].kill()
        if event == "end":
            assert data["code"] == ""
            assert data["name"] in workers.keys() - {victim}
            assert len(data["attempts"]) == 2


def test_worker_killed_in_mid_answer_ends_the_stream_with_a_clear_error(start: Starter) -> None:
    asker = start.start("asker")
    worker = start.start("worker", models=("echo:delay_ms=200,words=100",), join=asker.addresses[:1])
    asker.wait_for("chat")
    events = []
    for event, data in asker.stream("tell me everything"):
        if event == "text" and "text" not in [name for name, _ in events]:
            worker.kill()
        events.append((event, data))
    assert events[-1][0] == "end"
    assert events[-1][1]["code"] == "stream_broken"
    assert "worker" in events[-1][1]["reason"]


def test_frozen_worker_leaves_the_routing(start: Starter) -> None:
    asker = start.start("asker")
    worker = start.start("worker", models=("echo:",), join=asker.addresses[:1])
    asker.wait_for("chat")
    worker.kill(signal.SIGSTOP)
    asker.wait_until(lambda: not asker.control("GET", "skills")["skills"])
    with pytest.raises(ControlError) as refused:
        asker.ask("anybody?")
    assert refused.value.status in (404, 503)


def test_worker_that_was_away_is_used_again(start: Starter) -> None:
    asker = start.start("asker")
    worker = start.start("worker", models=("echo:",), join=asker.addresses[:1])
    asker.wait_for("chat")
    worker.stop()
    asker.wait_until(lambda: not asker.control("GET", "skills")["skills"])
    start.start("worker", models=("echo:",), join=asker.addresses[:1])
    asker.wait_for("chat")
    assert asker.ask("welcome back")[1]["name"] == "worker"


def test_join_address_that_is_no_node_is_explained(start: Starter) -> None:
    node = start.start("node")
    nobody = "/ip4/127.0.0.1/tcp/9"
    with pytest.raises(ControlError) as failed:
        node.control("POST", "join", {"address": nobody})
    assert failed.value.answer["error"]["code"] == "join_failed"
    assert nobody in failed.value.answer["error"]["message"]


def test_nodes_of_two_swarms_stay_apart(start: Starter) -> None:
    ours = start.start("ours")
    theirs = start.start("theirs", **{"swarm.current": "another"})
    with pytest.raises(ControlError, match="another swarm"):
        ours.control("POST", "join", {"address": theirs.addresses[0]})
    assert len(ours.control("GET", "peers")["peers"]) == 1


def test_home_is_held_by_one_node(start: Starter) -> None:
    start.start("node")
    with pytest.raises(StartFailed) as failed:
        start.start("node")
    assert failed.value.report["code"] == "home_locked"
    assert failed.value.exit == 9


def test_port_that_is_taken_is_named(start: Starter) -> None:
    first = start.start("first")
    taken = first.addresses[0].partition("/p2p/")[0]
    with pytest.raises(StartFailed) as failed:
        start.start("second", **{"node.listen": [taken]})
    assert failed.value.report["code"] == "port_taken"
    assert taken.rpartition("/")[2] in failed.value.report["message"]
    assert failed.value.exit == 9


def test_key_that_others_can_read_is_refused(start: Starter) -> None:
    start.start("node").stop()
    key = start.folder / "node" / "identity.key"
    key.chmod(0o644)
    with pytest.raises(StartFailed) as failed:
        start.start("node")
    assert str(key) in failed.value.report["message"]
    assert "chmod 600" in failed.value.report["hint"] + failed.value.report["message"]


def test_identity_stays_over_restarts(start: Starter) -> None:
    first = start.start("node")
    identity = first.control("GET", "status")["node"]
    assert first.stop() == 0
    assert start.start("node").control("GET", "status")["node"] == identity


def test_a_node_meets_those_again_that_it_was_linked_with(start: Starter) -> None:
    """Without any address in its settings."""
    worker = start.start("worker", models=("echo",), **{"node.listen": [f"/ip4/127.0.0.1/tcp/{free_port()}"]})
    asker = start.start("asker", join=worker.addresses[:1])
    asker.wait_for("chat")
    asker.stop()
    again = RealNode(asker.home, "asker").wait_ready()
    start.nodes.append(again)
    again.wait_for("chat")
    assert again.ask("Still there?")[0] == "Still there?"


def test_two_nodes_with_one_identity_are_both_told(start: Starter) -> None:
    """And a third one still answers."""
    asker = start.start("asker", models=("echo",))
    one = start.start("one", join=asker.addresses[:1])
    (start.folder / "two").mkdir()
    shutil.copy(one.home / "identity.key", start.folder / "two" / "identity.key")
    two = start.start("two", join=asker.addresses[:1])
    for node in (one, two):
        node.wait_until(lambda node=node: bool(node.control("GET", "status")["twin"]))  # type: ignore[misc]
    assert one.control("GET", "status")["refused"]["gossip: own identity"] >= 1
    assert asker.ask("Who is who?")[0] == "Who is who?"


def test_ping_tells_the_way(start: Starter) -> None:
    worker = start.start("worker", models=("echo",))
    asker = start.start("asker", join=worker.addresses[:1])
    asker.wait_for("chat")
    pong = asker.control("POST", "ping", {"peer": "worker"})
    assert (pong["name"], pong["path"], pong["rtt_ms"] < 5_000) == ("worker", "direct", True)
    worker.kill()
    with pytest.raises(ControlError) as failed:
        while True:  # Until the link is known to be gone.
            asker.control("POST", "ping", {"peer": pong["node"]})
    assert failed.value.answer["error"]["code"] in ("ping_failed", "unknown_peer")


def test_nodes_know_whether_they_can_be_dialled(start: Starter) -> None:
    worker = start.start("worker", models=("echo",))
    asker = start.start("asker", join=worker.addresses[:1])
    for node in (worker, asker):
        node.wait_until(lambda node=node: node.control("GET", "status")["reach"]["verdict"] == "open")  # type: ignore[misc]
    assert worker.control("GET", "status")["reach"]["sightings"] == [{"seen": "/ip4/127.0.0.1", "reached": 1, "failed": 0}]


def test_missing_model_is_told_and_the_node_still_asks(start: Starter) -> None:
    worker = start.start("worker", models=("echo:",))
    node = start.start("node", models=("/nowhere/model.gguf",), join=worker.addresses[:1])
    (model,) = node.control("GET", "models")["models"]
    assert model["state"] == "failed"
    assert "/nowhere/model.gguf" in model["detail"]
    node.wait_for("chat")
    assert node.ask("still here")[0] == "still here"


def test_models_process_ends_with_its_node(start: Starter) -> None:
    node = start.start("node", models=("smollm2-135m",))
    children = psutil.Process(node.process.pid).children(recursive=True)
    assert children, "the engine runs in a process of its own"
    node.kill()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive


def test_real_model_summarises_through_a_peer(start: Starter) -> None:
    worker = start.start("worker", models=("smollm2-135m",))
    asker = start.start("asker", join=worker.addresses[:1])
    asker.wait_for("summarize")
    text, end = asker.ask(
        "The ferry to the island leaves every morning at seven and comes back in the evening at six. In winter it does "
        "not sail when the wind is strong.",
        skill="summarize",
    )
    assert end["code"] == ""
    assert "ferry" in text.lower()
    assert end["tokens_out"] > 5


def test_one_command_asks_from_the_shell(start: Starter) -> None:
    node = start.start("node", models=("echo:",))
    environment = os.environ | {"SWARM_HOME": str(node.home), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "node.cli"]
    asked = subprocess.run([*command, "ask", "from the shell"], env=environment, capture_output=True, text=True, timeout=60)
    assert (asked.returncode, asked.stdout) == (0, "from the shell\n")
    status = subprocess.run([*command, "status", "--json"], env=environment, capture_output=True, text=True, timeout=60)
    assert json.loads(status.stdout)["answered"] == 1


def test_node_that_is_stopped_while_its_models_load_leaves_nothing(start: Starter) -> None:
    node = start.begin("node", models=("smollm2-135m",))
    node.wait_report("model")
    children = psutil.Process(node.process.pid).children(recursive=True)
    assert node.stop() == 0
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive
