"""`swarm sim`: everything after it belongs to the simulator."""

from importlib import metadata

import pytest

from node.cli import sim
from node.exits import ExitCode
from node.store.home import Home
from tests.node.cli.conftest import Run

seen: list[list[str]] = []


def main(arguments: list[str]) -> int:
    """Stands where the simulator's command is registered."""
    seen.append(arguments)
    return 3


def test_arguments_and_exit_code_pass_through(swarm: Run, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    point = metadata.EntryPoint("sim", f"{__name__}:main", sim.GROUP)
    monkeypatch.setattr(metadata, "entry_points", lambda **wanted: [point])
    seen.clear()
    assert swarm("sim", "run", "--seed", "7", "-x", "--help").code == 3
    assert seen == [["run", "--seed", "7", "-x", "--help"]]


def test_without_a_simulator_it_says_so(swarm: Run, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "entry_points", lambda **wanted: [])
    monkeypatch.setattr(sim, "_BY_NAME", "no_such_simulations.command")
    ran = swarm("sim", "run")
    assert ran.code == ExitCode.FAILED
    assert "the simulator is not installed" in ran.err
