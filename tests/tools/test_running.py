"""Programs that the set-up runs: what they say is kept, and a failure says what came last."""

import sys
from pathlib import Path

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


def test_program_ends_when_its_listener_is_interrupted(tmp_path: Path) -> None:
    """A Ctrl-C at the second line must not leave a compiler behind."""

    def interrupt(line: str) -> None:
        raise KeyboardInterrupt

    script = "import time; print('begun', flush=True); time.sleep(600)"
    with pytest.raises(KeyboardInterrupt):  # Returns at all only because the program was ended.
        run([PYTHON, "-c", script], tmp_path / "log", "It", interrupt)
