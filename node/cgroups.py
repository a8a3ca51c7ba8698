"""The control groups that this process is confined to, as containers and services have them, of version 2 and of version 1."""

from collections.abc import Iterator
from pathlib import Path

GROUPS = Path("/proc/self/cgroup")
ROOT = Path("/sys/fs/cgroup")


def memory_limits() -> Iterator[tuple[int, int]]:
    """Of each group that has a limit: how many bytes its processes may have together, and how many they have.

    The pages of files that were not read for a while do not count: they are given up before anything else is.
    """
    for place in _places("memory"):
        for limit, used, idle in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            most, now = _number(place / limit), _number(place / used)
            if most is not None and now is not None:
                yield most, max(0, now - _kept(place / "memory.stat", idle))


def processors() -> float | None:
    """How many processors' time the groups may have; None if there is no limit."""
    found = []
    for place in _places("cpu"):
        most, _, period = _text(place / "cpu.max").partition(" ")
        if not period:
            most, period = _text(place / "cpu.cfs_quota_us"), _text(place / "cpu.cfs_period_us")
        if most.isdecimal() and period.isdecimal() and int(period):  # Else "max", or "-1".
            found.append(int(most) / int(period))
    return min(found, default=None)


def _places(controller: str) -> Iterator[Path]:
    """The folders that a controller has for the groups of this process, the innermost first. Some may not exist."""
    for line in _text(GROUPS).splitlines():
        controllers, _, group = line.partition(":")[2].partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        root = ROOT / controller if controllers else ROOT
        place = root / group.lstrip("/")
        while place.is_relative_to(root):
            yield place
            place = place.parent


def _kept(stat: Path, name: str) -> int:
    """A number of a file that has one, with its name, on each line; 0 if it is not there."""
    found = dict(line.split(" ", 1) for line in _text(stat).splitlines() if " " in line)
    return int(found[name]) if found.get(name, "").isdecimal() else 0


def _number(file: Path) -> int | None:
    text = _text(file)
    return int(text) if text.isdecimal() else None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""
