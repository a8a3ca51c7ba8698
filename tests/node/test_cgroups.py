"""What the groups of a process allow it, as Linux writes it down for containers and services."""

from pathlib import Path

import pytest

from node import cgroups

UNLIMITED = 9223372036854771712  # As version 1 says it.
VERSION_2 = "0::/app/node"
VERSION_1 = "7:cpu,cpuacct:/app\n4:memory:/app/node\n0::/"


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cgroups, "ROOT", tmp_path / "groups")
    monkeypatch.setattr(cgroups, "GROUPS", tmp_path / "own")
    return tmp_path


def write(system: Path, own: str, **files: object) -> None:
    """Files by their names, with `__` for the slash and `_DOT_` for the dot."""
    (system / "own").write_text(own)
    for name, value in files.items():
        place = system / "groups" / name.replace("__", "/").replace("_DOT_", ".")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(f"{value}\n")


def test_each_group_on_the_way_up_counts(system: Path) -> None:
    write(
        system, VERSION_2,
        app__node__memory_DOT_max="max", app__node__memory_DOT_current=10,
        app__memory_DOT_max=2_000, app__memory_DOT_current=900, app__memory_DOT_stat="anon 100\ninactive_file 700",
        memory_DOT_max=5_000, memory_DOT_current=1_000,
        app__node__cpu_DOT_max="150000 100000", app__cpu_DOT_max="max 100000", cpu_DOT_max="300000 100000",
    )  # fmt: skip
    assert list(cgroups.memory_limits()) == [(2_000, 200), (5_000, 1_000)], "without files that nobody has read for a while"
    assert cgroups.processors() == 1.5


def test_version_1_has_a_tree_for_each_controller(system: Path) -> None:
    write(
        system, VERSION_1,
        memory__app__node__memory_DOT_limit_in_bytes=2_000, memory__app__node__memory_DOT_usage_in_bytes=1_500,
        memory__app__node__memory_DOT_stat="inactive_file 1\ntotal_inactive_file 500",
        memory__memory_DOT_limit_in_bytes=UNLIMITED, memory__memory_DOT_usage_in_bytes=9_000,
        cpu__app__cpu_DOT_cfs_quota_us=50_000, cpu__app__cpu_DOT_cfs_period_us=100_000, cpu__cpu_DOT_cfs_quota_us=-1,
    )  # fmt: skip
    assert list(cgroups.memory_limits()) == [(2_000, 1_000), (UNLIMITED, 9_000)]
    assert cgroups.processors() == 0.5


@pytest.mark.parametrize("own", ["", "nonsense", VERSION_1, VERSION_2])
def test_where_nothing_is_said_nothing_is_limited(own: str, system: Path) -> None:
    write(system, own, cpu_DOT_max="garbage", memory_DOT_max="garbage", memory_DOT_current="1")
    assert (list(cgroups.memory_limits()), cgroups.processors()) == ([], None)


def test_this_machine_can_be_asked() -> None:
    assert all(limit > 0 and used >= 0 for limit, used in cgroups.memory_limits())
    assert cgroups.processors() is None or cgroups.processors() > 0
