"""`swarm up` and `swarm down`: what is told, and that a start that comes to nothing leaves nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from node.cli import down, launch
from node.exits import ExitCode
from node.store.home import Home
from node.store.lock import held
from tests.conftest import Golden
from tests.node.cli.conftest import Run, bounded
from tests.processes import ROOT

STAND_IN = Path(__file__).with_name("stand_in.py")


@pytest.fixture
def played(home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Whatever holds the home after the test is ended."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    yield monkeypatch
    holder = held(home)
    if holder is not None:
        os.kill(holder.pid, signal.SIGKILL)


def play(played: pytest.MonkeyPatch, mode: str) -> None:
    played.setattr(launch, "PROGRAM", [sys.executable, str(STAND_IN), mode])


def test_a_start_is_told_as_it_goes_and_the_node_goes_on(
    swarm: Run, home: Home, played: pytest.MonkeyPatch, golden: Golden
) -> None:
    play(played, "ready")
    ran = swarm("up")
    assert (ran.code, ran.out) == (ExitCode.DONE, "")
    lines = ran.err.replace(str(home.data), "HOME").splitlines()
    ready = next(number for number, line in enumerate(lines) if line.startswith("● ready in "))
    lines[ready] = "● ready in …"
    golden("up.txt", "\n".join(lines) + "\n")
    holder = held(home)
    assert holder is not None
    assert os.getsid(holder.pid) == holder.pid, "a daemon in the terminal's session would get its Ctrl-C"
    assert swarm("down").err == "Stopped.\n"
    assert held(home) is None


def test_json_events_carry_schema_and_time(swarm: Run, home: Home, played: pytest.MonkeyPatch) -> None:
    play(played, "ready")
    ran = swarm("up", "--json", "--name", "wren")
    events = [json.loads(line) for line in ran.out.splitlines()]
    assert [event["event"] for event in events] == ["identity", "listening", *["model"] * 5, "ready"]
    assert {event["schema"] for event in events} == {"swarm.event/1"}
    assert all(event["t"].endswith("Z") for event in events)
    assert ran.err == ""


def test_flags_reach_the_daemon_as_settings(swarm: Run, home: Home, played: pytest.MonkeyPatch, tmp_path: Path) -> None:
    play(played, "ready")
    played.chdir(tmp_path)
    (tmp_path / "x.gguf").touch()
    flags = "--name wren --offline --swarm attic --api 127.0.0.1:1 --model x.gguf --model echo: --listen /ip4/127.0.0.1/tcp/0"
    ran = swarm("up", "--json", *flags.split(), "--join", "/ip4/127.0.0.1/tcp/9")
    assert json.loads(json.loads(ran.out.splitlines()[-1])["overrides"]) == {
        "node.name": "wren",
        "node.offline": True,
        "node.listen": ["/ip4/127.0.0.1/tcp/0"],
        "node.join": ["/ip4/127.0.0.1/tcp/9"],
        "swarm.current": "attic",
        "api.listen": "127.0.0.1:1",
        "offer.models": [str(tmp_path / "x.gguf"), "echo:"],
    }


def test_no_models_clears_those_of_the_config(swarm: Run, home: Home, played: pytest.MonkeyPatch) -> None:
    play(played, "ready")
    ran = swarm("up", "--json", "--no-models")
    assert json.loads(json.loads(ran.out.splitlines()[-1])["overrides"]) == {"offer.models": []}


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--join", "example.org"], ExitCode.USAGE),
        (["--model", "echo:", "--no-models"], ExitCode.USAGE),
        (["--model", "missing.gguf"], ExitCode.FAILED),
    ],
)
def test_flags_that_cannot_work_start_nothing(
    swarm: Run, home: Home, played: pytest.MonkeyPatch, arguments: list[str], code: ExitCode
) -> None:
    play(played, "ready")
    assert swarm("up", *arguments).code == code
    assert held(home) is None
    assert not home.logs.exists()


def test_up_twice_is_up_once(swarm: Run, home: Home, played: pytest.MonkeyPatch) -> None:
    play(played, "ready")
    assert swarm("up").code == ExitCode.DONE
    first = held(home)
    ran = swarm("up", "--name", "other")
    assert ran.code == ExitCode.DONE
    assert "running already" in ran.err
    assert "not changed, because it runs: node.name" in ran.err
    assert held(home) == first
    assert json.loads(swarm("up", "--json").out)["already_running"] is True


def test_whoever_starts_it_a_moment_later_finds_it_running(swarm: Run, home: Home, played: pytest.MonkeyPatch) -> None:
    play(played, "beaten")
    ran = swarm("up")
    assert (ran.code, "running already" in ran.err) == (ExitCode.DONE, True)


def test_what_the_daemon_refuses_is_told_with_its_exit_code(swarm: Run, home: Home, played: pytest.MonkeyPatch) -> None:
    play(played, "refuses")
    ran = swarm("up")
    assert (ran.code, ran.out) == (ExitCode.CONFIG_INVALID, "")
    assert ran.err == "swarm: config.toml, line 3: no\nDo yes.\n"
    error = swarm("up", "--json").json
    assert (error["schema"], error["code"], error["exit"]) == ("swarm.error/1", "config_invalid", 8)


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("crashes", ["with exit code 1", "Traceback: something broke"]),
        ("crashes_by_signal", ["by signal 9"]),
        ("nonsense", ["reports nonsense"]),
    ],
)
def test_a_daemon_that_fails_without_a_word_is_told_by_its_last_lines(
    swarm: Run, home: Home, played: pytest.MonkeyPatch, mode: str, said: list[str]
) -> None:
    play(played, mode)
    ran = swarm("up")
    assert ran.code == ExitCode.FAILED
    for text in said:
        assert text in ran.err


def test_a_program_that_cannot_be_started_is_told(swarm: Run, home: Home, played: pytest.MonkeyPatch) -> None:
    played.setattr(launch, "PROGRAM", [str(home.data / "no-python")])
    ran = swarm("up")
    assert (ran.code, "cannot be started" in ran.err) == (ExitCode.FAILED, True)


def test_a_start_that_takes_too_long_is_stopped(swarm: Run, home: Home, played: pytest.MonkeyPatch) -> None:
    play(played, "mute")
    ran = swarm("up", "--timeout", "3s", "--json")
    *begun, error = (json.loads(line) for line in ran.out.splitlines())
    assert (ran.code, error["code"]) == (ExitCode.FAILED, "start_timeout")
    for identity in begun:  # None, on a machine so loaded that the stand-in did not get that far.
        wait_gone(identity["pids"])


@pytest.mark.parametrize("mode", ["mute", "stubborn"])
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, ExitCode.INTERRUPTED), (signal.SIGTERM, ExitCode.TERMINATED)]
)
def test_an_interrupted_start_leaves_no_process(
    home: Home, played: pytest.MonkeyPatch, mode: str, number: signal.Signals, code: ExitCode
) -> None:
    program = (
        "import sys; from node.cli import launch, main; launch.STOP_S = 0.5;"
        f"launch.PROGRAM = {[sys.executable, str(STAND_IN), mode]!r}; sys.argv = ['swarm', 'up', '--json']; main()"
    )
    command = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    with bounded(command):
        assert command.stdout is not None
        identity = json.loads(command.stdout.readline())
        assert not any(is_gone(pid) for pid in identity["pids"])
        command.send_signal(number)
        assert command.wait(60) == code
    wait_gone(identity["pids"])


def test_down_ends_a_node_that_does_not_answer(swarm: Run, home: Home, played: pytest.MonkeyPatch) -> None:
    play(played, "ready_and_deaf")
    assert swarm("up").code == ExitCode.DONE
    ran = swarm("down")
    assert ran.code == ExitCode.DONE
    assert "ending its process" in ran.err
    assert held(home) is None


def test_down_says_what_to_do_about_a_node_that_cannot_be_ended(
    swarm: Run, home: Home, played: pytest.MonkeyPatch
) -> None:
    play(played, "ready_and_immortal")
    played.setattr(down, "FIRM_S", 0.2)
    assert swarm("up").code == ExitCode.DONE
    holder = held(home)
    assert holder is not None
    ran = swarm("down")
    assert ran.code == ExitCode.FAILED
    assert f"kill -9 {holder.pid}" in ran.err


def test_down_waits_politely_and_then_ends_it(swarm: Run, home: Home, played: pytest.MonkeyPatch) -> None:
    play(played, "ready_and_slow")
    assert swarm("up").code == ExitCode.DONE
    ran = swarm("down", "--timeout", "200ms")
    assert ran.code == ExitCode.DONE
    assert "Still stopping" in ran.err


def test_up_of_a_home_that_is_held_by_a_silent_process_names_it(
    swarm: Run, home: Home, played: pytest.MonkeyPatch
) -> None:
    play(played, "ready_and_deaf")
    swarm("up")
    holder = held(home)
    assert holder is not None
    ran = swarm("up", "--timeout", "200ms")
    assert ran.code == ExitCode.ALREADY_HELD
    assert f"process {holder.pid}" in ran.err


def wait_gone(pids: list[int]) -> None:
    """A process that was killed takes a moment to be gone."""
    until = time.monotonic() + 30
    while not all(is_gone(pid) for pid in pids):
        assert time.monotonic() < until, "a process was left behind"
        time.sleep(0.01)


def is_gone(pid: int) -> bool:
    """Dead, or dead and waiting for a parent that may never look."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
