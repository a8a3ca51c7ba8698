"""What --help says, held by golden files, and that every way to it works."""

import click
import pytest

from node.cli.program import COMMANDS, Program
from node.exits import ExitCode
from tests.conftest import Golden
from tests.node.cli.conftest import Run

NAMES = [name for section in COMMANDS.values() for name in section]
PATHS = ["", *(name for name in NAMES if name != "sim"), "models ls", "models add", "models bench", "config show", "config path"]


@pytest.mark.parametrize("path", PATHS)
def test_help_stays_as_it_was(swarm: Run, golden: Golden, path: str) -> None:
    ran = swarm(*path.split(), "--help")
    assert (ran.code, ran.err) == (ExitCode.DONE, "")
    golden(f"help{'-' if path else ''}{path.replace(' ', '-')}.txt", ran.out)
    assert swarm(*path.split(), "-h").out == ran.out


@pytest.mark.parametrize("name", NAMES)
def test_the_list_of_commands_says_what_each_says_of_itself(name: str) -> None:
    command = Program("swarm").get_command(click.Context(Program("swarm")), name)
    (sentence,) = (section[name][1] for section in COMMANDS.values() if name in section)
    assert command is not None
    assert (command.help or "").split("\n\n")[0].replace("\n", " ") == sentence


def test_without_a_command_the_help_is_shown_as_wrong_usage(swarm: Run) -> None:
    ran = swarm()
    assert (ran.code, ran.out) == (ExitCode.USAGE, "")
    assert "Usage: swarm" in ran.err
