"""Every exit code that can occur, and the object that tells it in JSON mode."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from node.cli import ask
from node.exits import MEANINGS, ExitCode, exit_for
from node.store.home import Home
from protocol.errors import ERROR_CODES
from tests.node.cli.conftest import Ran, Run, bounded
from tests.node.cli.control_api import Answer, Control
from tests.processes import ROOT

NOT_YET = {ExitCode.NOT_IN_SWARM}
"""Comes with private swarms; until then a node is always in one."""

ELSEWHERE = {ExitCode.ALREADY_HELD, ExitCode.INTERRUPTED, ExitCode.TERMINATED}
"""Tested with `swarm up`, and below with real signals."""


def ends(swarm: Run, control: Control, code: ExitCode, monkeypatch: pytest.MonkeyPatch) -> Ran:
    """One way to each exit code."""
    match code:
        case ExitCode.DONE:
            return swarm("status", "--json")
        case ExitCode.FAILED:
            control.fail("GET /status", "too_many_tasks", "too much", 429)
            return swarm("status", "--json")
        case ExitCode.USAGE:
            return swarm("stauts", "--json")
        case ExitCode.NOT_RUNNING:
            return swarm("status", "--json", "--home", "/nonexistent/home")
        case ExitCode.NO_CAPABLE_PEER:
            control.fail("POST /ask", "no_capable_peer", "nobody offers that", 503)
            return swarm("ask", "hi", "--json")
        case ExitCode.REFUSED:
            control.fail("POST /ask", "not_allowed", "you may not", 403)
            return swarm("ask", "hi", "--json")
        case ExitCode.DEADLINE_PASSED:
            control.fail("POST /ask", "deadline_exceeded", "too late", 504)
            return swarm("ask", "hi", "--json")
        case ExitCode.CONFIG_INVALID:
            monkeypatch.setenv("SWARM_API__LISEN", "x")
            return swarm("config", "show", "--json")
        case ExitCode.BUG:
            monkeypatch.setattr(ask, "body_of", lambda **task: 1 / 0)
            return swarm("ask", "hi", "--json")
        case _:
            raise AssertionError(code)


@pytest.mark.parametrize("code", sorted(set(ExitCode) - NOT_YET - ELSEWHERE))
def test_every_exit_code_is_reached_and_told(
    swarm: Run, control: Control, code: ExitCode, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = ends(swarm, control, code, monkeypatch)
    assert ran.code == code
    if code is not ExitCode.DONE:
        assert ran.err == ""
        assert ran.json["schema"] == "swarm.error/1"
        assert ran.json["exit"] == code
        assert ran.json["message"]


def test_the_codes_are_those_of_the_table() -> None:
    assert [int(code) for code in ExitCode] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 70, 130, 143]
    assert set(MEANINGS) == set(ExitCode)


def test_every_error_of_the_wire_has_an_exit_code() -> None:
    assert {exit_for(code.name) for code in ERROR_CODES.values()} <= set(ExitCode)
    assert exit_for("something_new") == ExitCode.FAILED


def test_a_bug_leaves_its_traceback_under_its_id(
    swarm: Run, control: Control, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = ends(swarm, control, ExitCode.BUG, monkeypatch)
    log = (home.logs / "bugs.log").read_text()
    identifier = ran.json["message"].partition("error id ")[2].rstrip(")")
    assert identifier in log
    assert "ZeroDivisionError" in log
    assert (home.logs / "bugs.log").stat().st_mode & 0o077 == 0
    assert "Traceback" in swarm("ask", "hi", "--debug").err
    assert "Traceback" not in swarm("ask", "hi").err


def test_a_command_that_is_almost_one_is_guessed(swarm: Run, home: Home) -> None:
    assert "status" in swarm("stauts").err


def command(*arguments: str) -> subprocess.Popen[str]:
    """The command as a process."""
    return subprocess.Popen(
        [sys.executable, "-m", "node.cli", *arguments],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, ExitCode.INTERRUPTED), (signal.SIGTERM, ExitCode.TERMINATED)]
)
def test_a_signal_while_following_the_log_ends_it_quietly(home: Home, number: signal.Signals, code: ExitCode) -> None:
    home.create()
    home.log_file.write_text("one\n")
    with bounded(command("logs", "-f")) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == "one\n"
        follower.send_signal(number)
        _, err = follower.communicate(timeout=60)
    assert (follower.returncode, err.strip()) == (code, "")


def test_ctrl_c_before_the_question_is_complete_sends_nothing(home: Home, control: Control, tmp_path: Path) -> None:
    fifo = tmp_path / "question"
    os.mkfifo(fifo)
    # Once the pipe is open at both ends, the command waits for text, and the interrupt finds it in the middle.
    with bounded(command("ask", "-f", str(fifo))) as asking, open(fifo, "w"):
        asking.send_signal(signal.SIGINT)
        _, err = asking.communicate(timeout=60)
    assert (asking.returncode, "Traceback" in err) == (ExitCode.INTERRUPTED, False)
    assert control.asked == []


def test_ctrl_c_while_an_answer_comes_keeps_what_came_and_hangs_up(home: Home, control: Control) -> None:
    begun = Answer(stream=b'event: text\ndata: {"text":"half\\n"}\n\n', stays_open=True)
    control.answers["POST /ask"] = begun
    with bounded(command("ask", "hi")) as asking:
        assert asking.stdout is not None
        assert asking.stdout.readline() == "half\n"
        asking.send_signal(signal.SIGINT)
        out, err = asking.communicate(timeout=60)
    assert (asking.returncode, out, err.strip()) == (ExitCode.INTERRUPTED, "", "")
    assert begun.left.wait(60), "the node learns that nobody listens any more"


def test_a_reader_that_has_enough_ends_it_quietly(home: Home, control: Control) -> None:
    control.answers["GET /peers"] = Answer({"peers": [], "padding": "x" * 1_000_000})
    with bounded(command("peers", "--json")) as talking:
        assert talking.stdout is not None
        talking.stdout.read(10)
        talking.stdout.close()
        assert talking.stderr is not None
        err = talking.stderr.read()
        assert talking.wait(60) == ExitCode.FAILED
    assert err == ""
