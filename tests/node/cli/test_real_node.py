"""The command and the real daemon together, on loopback."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.exits import ExitCode
from node.store.home import Home
from node.store.keys import identity_seed
from node.store.lock import held
from tests.node.cli.conftest import Run, bounded
from tests.node.cli.test_up import wait_gone
from tests.processes import ROOT

UP = ["up", "--offline", "--listen", "/ip4/127.0.0.1/tcp/0", "--api", "127.0.0.1:0"]


@pytest.fixture(autouse=True)
def ended(home: Home) -> Iterator[None]:
    """No node outlives its test."""
    yield
    holder = held(home)
    if holder is not None:
        os.kill(holder.pid, signal.SIGKILL)


def test_a_node_is_started_asked_and_stopped(swarm: Run, home: Home) -> None:
    begun = swarm(*UP, "--model", "echo:", "--model", "no-such-model", "--name", "wren")
    assert (begun.code, begun.out) == (ExitCode.DONE, "")
    assert "Model echo: is ready." in begun.err
    assert "! model no-such-model failed: " in begun.err
    assert 'Next: swarm ask "…"' in begun.err
    assert "Made this node's identity: wren" in begun.err
    assert "● ready in " in begun.err
    assert "running already" in swarm("up").err
    assert swarm("ask", "good day", "to you").out == "good day to you\n"
    explained = swarm("ask", "good day", "--why", "--local")
    assert explained.out == "good day\n"
    assert "— wren (echo)" in explained.err
    assert "← taken" in explained.err
    assert swarm("ask", "-", typed="schön\nhier\n".encode()).out == "schön\nhier\n"
    assert swarm("status", "--json").json["answered"] == 3
    assert swarm("route", "hi", "--json").json["candidates"][0]["name"] == "wren"
    assert swarm("models", "add", "echo:model=second").code == ExitCode.DONE
    assert swarm("ask", "hi", "--model", "second", "--json").json["model"] == "second"
    assert "second" in swarm("skills").out
    assert "wren*" in swarm("peers").out
    assert swarm("logs").out
    assert "good day" not in home.log_file.read_text(), "what users ask is not logged"
    assert swarm("models", "add", "echo:model=slow,delay_ms=60000").code == ExitCode.DONE
    for arguments, code in (
        (["ask", "hi", "--model", "nobody-has-this"], ExitCode.NO_CAPABLE_PEER),
        (["ask", "hi", "--skill", "x-nobody-can"], ExitCode.NO_CAPABLE_PEER),
        (["ask", "hi", "--peer", "nobody"], ExitCode.NO_CAPABLE_PEER),
        (["models", "add", "no-such-backend:"], ExitCode.FAILED),
        (["join", "/ip4/127.0.0.1/tcp/1"], ExitCode.FAILED),
        (["ask", "one two three", "--model", "slow", "--deadline", "300ms"], ExitCode.DEADLINE_PASSED),
    ):
        assert swarm(*arguments).code == code, arguments
    assert swarm("down").code == ExitCode.DONE
    assert swarm("status").code == ExitCode.NOT_RUNNING
    assert not home.socket.exists()


@pytest.mark.slow
def test_two_nodes_meet_by_join(swarm: Run, home: Home, tmp_path: Path) -> None:
    other = ["--home", str(tmp_path / "o")]
    try:
        begun = swarm(*UP, *other, "--name", "otter", "--model", "echo:model=far", "--json")
        listening = next(event for event in map(json.loads, begun.out.splitlines()) if event["event"] == "listening")
        assert swarm(*UP, "--no-models").code == ExitCode.DONE
        joined = swarm("join", listening["addresses"][0])
        assert (joined.code, "connected to otter" in joined.err) == (ExitCode.DONE, True)
        assert swarm("join", listening["addresses"][0], "--json").json["name"] == "otter"
    finally:
        assert swarm("down", *other).code == ExitCode.DONE
    assert swarm("down").code == ExitCode.DONE


def test_in_the_foreground_it_is_the_daemon(home: Home) -> None:
    with bounded(foreground("--json")) as node:
        assert node.stdout is not None
        events = []
        while not events or events[-1]["event"] != "ready":
            events.append(json.loads(node.stdout.readline()))
        holder = held(home)
        assert holder is not None
        assert holder.pid == node.pid
        node.send_signal(signal.SIGTERM)
        _, err = node.communicate(timeout=60)
    assert node.returncode == ExitCode.DONE
    assert "ready; API at" in err, "the log goes to stderr too"
    assert events[0]["event"] == "identity"
    assert held(home) is None


@pytest.mark.parametrize("json_mode", [False, True])
def test_in_the_foreground_a_wrong_setting_is_told_once(home: Home, json_mode: bool) -> None:
    home.config_file.write_text("[api]\nlisen = 1\n")
    with bounded(foreground(*(["--json"] if json_mode else []))) as node:
        out, err = node.communicate(timeout=60)
    assert node.returncode == ExitCode.CONFIG_INVALID
    if json_mode:
        assert json.loads(out)["code"] == "config_invalid"
    else:
        assert out == ""
    assert err.count("Did you mean") == 1
    assert "Traceback" not in err


def foreground(*flags: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "node.cli", *UP, "--foreground", "--no-models", *flags],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_wrong_setting_is_told_and_nothing_is_lost(swarm: Run, home: Home) -> None:
    home.config_file.write_text("[api]\nlisen = 1\n")
    ran = swarm(*UP)
    assert ran.code == ExitCode.CONFIG_INVALID
    assert f"{home.config_file}, line 2" in ran.err
    assert 'Did you mean "listen"?' in ran.err
    assert home.config_file.read_text() == "[api]\nlisen = 1\n"


def test_a_key_that_others_can_read_keeps_the_node_from_starting(swarm: Run, home: Home) -> None:
    identity_seed(home.identity_key)
    before = home.identity_key.read_text()
    home.identity_key.chmod(0o644)
    ran = swarm(*UP)
    assert ran.code == ExitCode.FAILED
    assert f"chmod 600 {home.identity_key}" in ran.err
    assert home.identity_key.read_text() == before


@pytest.mark.parametrize("which", ["node", "api"])
def test_a_port_that_is_taken_is_named(swarm: Run, home: Home, which: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        port = taken.getsockname()[1]
        flags = ["--listen", f"/ip4/127.0.0.1/tcp/{port}"] if which == "node" else ["--api", f"127.0.0.1:{port}"]
        ran = swarm(*UP, *flags)
    assert ran.code == ExitCode.ALREADY_HELD
    assert str(port) in ran.err
    assert held(home) is None


@pytest.mark.slow
def test_ctrl_c_during_a_real_start_leaves_nothing_and_the_next_start_works(swarm: Run, home: Home) -> None:
    arguments = [sys.executable, "-m", "node.cli", *UP, "--model", "echo:", "--json"]
    process = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with bounded(process) as command:
        assert command.stdout is not None
        assert json.loads(command.stdout.readline())["event"] == "identity"
        holder = held(home)
        command.send_signal(signal.SIGINT)
        assert command.wait(60) in (ExitCode.INTERRUPTED, ExitCode.DONE)
    if command.returncode == ExitCode.INTERRUPTED:
        assert holder is not None
        wait_gone([holder.pid])
        assert held(home) is None
    assert swarm(*UP, "--model", "echo:").code == ExitCode.DONE
    assert swarm("down").code == ExitCode.DONE
