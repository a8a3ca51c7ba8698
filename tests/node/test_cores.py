"""How many threads a model takes: by cores, by what this process may use, by what its container may."""

import os
from pathlib import Path

import pytest

from node import cgroups, cores


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cores, "CPUS", tmp_path / "cpu")
    monkeypatch.setattr(cgroups, "ROOT", tmp_path)
    monkeypatch.setattr(cgroups, "GROUPS", tmp_path / "groups")
    (tmp_path / "groups").write_text("0::/service\n")
    return tmp_path


def has(machine: Path, monkeypatch: pytest.MonkeyPatch, processors: int, siblings: int, quota: str = "max 100000") -> None:
    """A machine of so many processors, of which so many share a core, and what the container may use."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(processors)), raising=False)
    for number in range(processors):
        topology = machine / f"cpu/cpu{number}/topology"
        topology.mkdir(parents=True)
        first = number // siblings * siblings
        (topology / "thread_siblings_list").write_text(f"{first}-{first + siblings - 1}\n")
    (machine / "cpu.max").write_text(quota)  # The service has none of its own.


@pytest.mark.parametrize(
    ("processors", "siblings", "quota", "threads"),
    [
        (1, 1, "max 100000", 1),
        (2, 2, "max 100000", 1),
        (4, 1, "max 100000", 3),
        (8, 2, "max 100000", 4),
        (64, 2, "max 100000", 8),
        (16, 1, "200000 100000", 2),
        (16, 1, "150000 100000", 2),
        (16, 1, "garbage", 8),
    ],
)
def test_one_thread_for_each_core_and_one_processor_left_for_others(
    machine: Path, monkeypatch: pytest.MonkeyPatch, processors: int, siblings: int, quota: str, threads: int
) -> None:
    has(machine, monkeypatch, processors, siblings, quota)
    assert cores.model_threads() == threads


def test_where_nothing_is_told_there_is_at_least_one(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores.model_threads() == 1
