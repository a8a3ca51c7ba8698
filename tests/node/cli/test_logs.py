"""`swarm logs`: the last lines, and new ones as they come, also when the log is begun anew."""

import os
import subprocess
import sys
from pathlib import Path

from node.exits import ExitCode
from node.store.home import Home
from tests.node.cli.conftest import Run, bounded
from tests.processes import ROOT


def write(file: Path, *lines: str) -> None:
    with open(file, "a", encoding="utf-8") as opened:
        opened.writelines(f"{line}\n" for line in lines)


def test_the_last_lines_are_shown(swarm: Run, home: Home) -> None:
    home.create()
    write(home.log_file, *(f"line {number}" for number in range(100)))
    assert swarm("logs", "-n", "2").out == "line 98\nline 99\n"
    assert len(swarm("logs").out.splitlines()) == 50
    assert swarm("logs", "-n", "0").out == ""


def test_lines_from_before_the_log_was_begun_anew_are_shown_too(swarm: Run, home: Home) -> None:
    home.create()
    write(home.logs / "node.log.1", "one", "two")
    write(home.log_file, "three")
    assert swarm("logs", "-n", "2").out == "two\nthree\n"


def test_a_line_that_is_still_being_written_is_not_shown(swarm: Run, home: Home) -> None:
    home.create()
    home.log_file.write_text("whole\nhal")
    assert swarm("logs").out == "whole\n"


def test_without_a_log_it_says_where_it_would_be(swarm: Run, home: Home) -> None:
    ran = swarm("logs")
    assert ran.code == ExitCode.FAILED
    assert str(home.log_file) in ran.err


def test_new_lines_are_followed_through_a_fresh_file(home: Home) -> None:
    home.create()
    write(home.log_file, "one")
    program = [sys.executable, "-m", "node.cli", "logs", "-f", "-n", "1"]
    with bounded(subprocess.Popen(program, cwd=ROOT, stdout=subprocess.PIPE, text=True)) as follower:
        try:
            assert follower.stdout is not None
            assert follower.stdout.readline() == "one\n"
            write(home.log_file, "two")
            assert follower.stdout.readline() == "two\n"
            write(home.log_file, "three")
            os.rename(home.log_file, home.logs / "node.log.1")
            write(home.log_file, "four")
            assert [follower.stdout.readline(), follower.stdout.readline()] == ["three\n", "four\n"]
        finally:
            follower.terminate()
