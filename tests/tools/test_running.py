"""Programs that the set-up runs: what they say is kept, and a failure says what came last."""

import sys
import time
from pathlib import Path

import psutil
import pytest

from tools.running import LAST_LINES, SetupError, run

PYTHON = sys.executable


def test_output_goes_to_the_listener_and_to_the_log(tmp_path: Path) -> None:
    heard: list[str] = []
    script = "import sys; print('out'); print('err', file=sys.stderr)"
    run([PYTHON, "-u", "-c", script], tmp_path / "logs/log", "It", heard.append)
    assert heard == ["out\n", "err\n"]
    assert "out\nerr\n" in (tmp_path / "logs/log").read_text()


def test_failure_says_the_last_lines_and_where_all_of_it_is(tmp_path: Path) -> None:
    script = f"[print('line', n) for n in range({LAST_LINES + 5})]; raise SystemExit(3)"
    with pytest.raises(SetupError) as failed:
        run([PYTHON, "-c", script], tmp_path / "log", "Compiling")
    message = str(failed.value)
    assert message.startswith("Compiling failed (exit code 3)")
    assert "line 4\n" not in message
    assert f"line {LAST_LINES + 4}\n" in message
    assert str(tmp_path / "log") in message


def test_program_sees_no_input_and_the_added_environment(tmp_path: Path) -> None:
    heard: list[str] = []
    script = "import os, sys; print(repr(sys.stdin.read()), os.environ['ADDED'])"
    run([PYTHON, "-c", script], tmp_path / "log", "It", heard.append, {"ADDED": "yes"})
    assert heard == ["'' yes\n"]


STARTS_ANOTHER = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
child.wait()
"""


def ended(process: psutil.Process) -> bool:
    """Whether it runs no more. Where no init process reaps it, it stays as a zombie."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_interruption_ends_the_program_and_what_it_started(tmp_path: Path) -> None:
    """A Ctrl-C while pip runs a compiler must leave neither behind."""
    started: list[psutil.Process] = []

    def interrupt(line: str) -> None:
        started.append(psutil.Process(int(line)))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run([PYTHON, "-c", STARTS_ANOTHER], tmp_path / "log", "It", interrupt)
    deadline = time.monotonic() + 60
    while not ended(started[0]):
        assert time.monotonic() < deadline, "the compiler still runs"
        time.sleep(0.01)
