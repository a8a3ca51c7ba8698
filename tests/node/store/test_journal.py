"""The journal keeps what it was told over kill -9, broken files and full disks, and does not grow without end."""

import os
import signal
import sqlite3
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from node.store.journal import BAD_FILES_KEPT, Entry, Journal, JournalError
from tests.processes import ROOT

DAY_MS = 86_400_000


def entry(number: int = 1, state: str = "done", **more: object) -> Entry:
    plain = Entry(
        number.to_bytes(16, "big"), number, state, "chat", "", "swarm", False, "", "", 1, "", "", "12D3", "heron", "echo", 3, 2,
        0.1, 0.2, f"question {number}", b"request", b"{}", f"answer {number}",
    )  # fmt: skip
    return replace(plain, **more)  # type: ignore[arg-type]


def journal(folder: Path, **limits: int) -> Journal:
    bounds = {"keep_days": 30, "entries_max": 10_000} | limits
    return Journal(folder / "journal.db", **bounds)


def numbers(entries: list[Entry]) -> list[int]:
    return [int.from_bytes(found.id, "big") for found in entries]


def test_what_was_written_is_there_for_the_next_process(tmp_path: Path) -> None:
    first = journal(tmp_path)
    first.write([entry(1), entry(2, "open", detached=True)])
    first.close()
    second = journal(tmp_path)
    assert second.find(f"{1:032x}") == [entry(1)]
    assert second.open_entries() == [entry(2, "open", detached=True)]


def test_a_later_state_replaces_the_earlier_one(tmp_path: Path) -> None:
    kept = journal(tmp_path)
    kept.write([entry(1, "open")])
    kept.write([entry(1, "failed", code="exhausted")])
    assert kept.open_entries() == []
    assert [found.state for found in kept.newest(10)] == ["failed"]


def test_the_newest_come_first_and_without_what_is_large(tmp_path: Path) -> None:
    kept = journal(tmp_path)
    kept.write([entry(number) for number in (2, 3, 1)])
    found = kept.newest(2)
    assert numbers(found) == [3, 2]
    assert {(one.request, one.account, one.text) for one in found} == {(b"", b"", "")}


@pytest.mark.parametrize(("prefix", "found"), [("0a", [1]), ("0", [1, 2]), ("0b0", [2]), ("1", []), ("0A", [1])])
def test_a_prefix_of_the_id_finds_the_task(tmp_path: Path, prefix: str, found: list[int]) -> None:
    kept = journal(tmp_path)
    kept.write([entry(1, id=b"\x0a" + bytes(15)), entry(2, id=b"\x0b" + bytes(15))])
    assert [one.asked_at_ms for one in kept.find(prefix)] == found


def test_an_item_of_a_batch_is_found_by_its_latest_task(tmp_path: Path) -> None:
    kept = journal(tmp_path)
    kept.write([entry(1, batch="b", item="x"), entry(2, batch="b", item="x"), entry(3, batch="c", item="x"), entry(4)])
    found = kept.of_item("b", "x")
    assert found is not None and found.asked_at_ms == 2
    assert kept.of_item("b", "y") is None
    assert kept.of_item("", "") is None
    assert numbers(kept.newest(10, "b")) == [2, 1]


def test_answers_of_a_batch_are_the_latest_that_were_kept(tmp_path: Path) -> None:
    kept = journal(tmp_path)
    kept.write([
        entry(1, batch="b", item="x"), entry(3, batch="b", item="x"), entry(2, batch="b", item="x"),
        entry(4, "interrupted", batch="b", item="x"), entry(5, "failed", batch="b", item="y"), entry(6, batch="b", item="z"),
        entry(7, batch="b", item="v", request=b"", text=""), entry(8, batch="c", item="w"), entry(9),
    ])  # fmt: skip
    assert kept.answers("b") == {"x": "answer 3", "z": "answer 6"}
    assert kept.answers("") == {}


def test_only_the_user_may_read_it(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        kept = journal(tmp_path)
        kept.write([entry()])
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    finally:
        os.umask(before)
    assert set(modes) == {"journal.db", "journal.db-wal", "journal.db-shm"}
    assert set(modes.values()) == {0o600}


_WRITER = """
import os, sys, signal
from pathlib import Path
from tests.node.store.test_journal import entry, journal
kept = journal(Path(sys.argv[1]))
number = 0
while True:
    number += 1
    kept.write([entry(number, "open")])
    print(number, flush=True)
"""


def test_what_was_told_to_be_written_survives_kill_9(tmp_path: Path) -> None:
    for _ in range(5):
        writer = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, env=_environment()
        )
        assert writer.stdout is not None
        for told in range(1, 40):
            assert int(writer.stdout.readline()) == told
        writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read().split()
        writer.wait()
        writer.stdout.close()
        kept = journal(tmp_path)
        found = kept.open_entries()
        assert len(found) >= int(rest[-1] if rest and rest[-1] == str(39 + len(rest)).encode() else 39)
        assert numbers(found) == list(range(1, len(found) + 1))
        assert kept.lost == ""
        kept.close()
        (tmp_path / "journal.db").unlink()
        for side in ("-wal", "-shm"):
            (tmp_path / f"journal.db{side}").unlink(missing_ok=True)


@pytest.mark.parametrize("damage", ["garbage", "torn header", "middle", "empty table", "newer"])
def test_a_file_that_cannot_be_understood_is_set_aside(tmp_path: Path, damage: str) -> None:
    file = tmp_path / "journal.db"
    first = journal(tmp_path)
    first.write([entry(number, text="x" * 5000) for number in range(1, 50)])
    first.close()
    spoil(file, damage)
    spoiled = file.read_bytes()
    second = journal(tmp_path)
    second.write([entry(77)])
    assert numbers(second.newest(100)) == [77]
    (aside,) = second.bad_files()
    assert aside.name == "journal.db.bad-1"
    assert aside.read_bytes()[100:] == spoiled[100:]  # SQLite counts its openings in the header.
    assert str(aside) in second.lost


def spoil(file: Path, damage: str) -> None:
    content = file.read_bytes()
    if damage == "garbage":
        file.write_bytes(os.urandom(len(content)))
    elif damage == "torn header":
        file.write_bytes(content[:50])
    elif damage == "middle":
        file.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
    else:
        db = sqlite3.connect(file)
        db.executescript("DROP TABLE tasks" if damage == "empty table" else "PRAGMA user_version = 99")
        db.close()


def test_a_file_that_breaks_while_it_is_open_is_set_aside(tmp_path: Path) -> None:
    kept = journal(tmp_path)
    kept.write([entry(number, text="x" * 200_000) for number in range(1, 101)])  # More than SQLite holds in memory.
    kept.close()
    assert numbers(kept.newest(1)) == [100]
    spoil(tmp_path / "journal.db", "middle")
    assert kept.find(f"{50:032x}") == []
    assert "journal.db.bad-1" in kept.lost
    kept.write([entry(301)])
    assert numbers(kept.newest(1000)) == [301]


def test_only_the_last_broken_files_are_kept(tmp_path: Path) -> None:
    for _ in range(BAD_FILES_KEPT + 2):
        (tmp_path / "journal.db").write_bytes(b"no journal" * 1000)
        kept = journal(tmp_path)
        kept.write([entry()])
        kept.close()
    assert [path.name for path in kept.bad_files()] == ["journal.db.bad-3", "journal.db.bad-4"]


_FULL = """
import resource, sys
from pathlib import Path
from node.store.journal import JournalError
from tests.node.store.test_journal import entry, journal
kept = journal(Path(sys.argv[1]))
kept.write([entry(1)])
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
failed = 0
for number in range(2, 40):
    try:
        kept.write([entry(number, text="x" * 100_000)])
    except JournalError as error:
        failed += 1
        assert "journal.db" in str(error), error
assert failed, "the disk was not full"
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
kept.write([entry(100)])
print(failed, len(kept.newest(100)))
"""


def test_a_full_disk_is_told_and_what_was_there_stays(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _FULL, str(tmp_path)], cwd=ROOT, env=_environment(), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    failed, kept = map(int, done.stdout.split())
    assert kept == 38 - failed + 2
    reopened = journal(tmp_path)
    assert {1, 100} <= set(numbers(reopened.newest(100)))
    assert reopened.lost == ""


def test_a_file_that_another_program_holds_is_told_and_left_alone(tmp_path: Path) -> None:
    kept = journal(tmp_path)
    kept.write([entry(1)])
    other = sqlite3.connect(tmp_path / "journal.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(JournalError, match="locked"):
        kept.write([entry(2)])
    other.execute("ROLLBACK")
    other.close()
    kept.write([entry(3)])
    assert numbers(kept.newest(10)) == [3, 1]
    assert kept.lost == ""


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="No such file"):
        journal(tmp_path / "gone").write([entry()])
    (tmp_path / "elsewhere").write_bytes(b"")
    (tmp_path / "journal.db").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(JournalError):
        journal(tmp_path).write([entry()])


def test_the_old_the_many_and_the_large_are_pruned_and_the_open_stay(tmp_path: Path) -> None:
    kept = journal(tmp_path, keep_days=2, entries_max=5)
    kept.write([entry(number, asked_at_ms=DAY_MS * (number // 10)) for number in range(1, 60)])
    kept.write([entry(99, "open", asked_at_ms=0)])
    assert kept.prune(DAY_MS * 6) == 54
    assert numbers(kept.newest(100)) == [59, 58, 57, 56, 55, 99]
    assert kept.prune(DAY_MS * 9) == 5
    assert numbers(kept.newest(100)) == [99]


def test_what_is_pruned_is_in_no_file_any_more(tmp_path: Path) -> None:
    kept = journal(tmp_path)
    kept.write([entry(1, text="a secret")])
    assert kept.prune(DAY_MS * 100) == 1
    assert not any(b"secret" in path.read_bytes() for path in tmp_path.iterdir())
    kept.close()


def test_files_that_were_set_aside_are_removed_when_they_are_too_old(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"journal.db.bad-{number}").write_bytes(b"no journal")
        os.utime(tmp_path / f"journal.db.bad-{number}", (0, 0))
    (tmp_path / "journal.db.bad-2-wal").write_bytes(b"written later")
    os.utime(tmp_path / "journal.db.bad-2-wal", (86_400 * 5, 86_400 * 5))
    kept = journal(tmp_path)
    kept.prune(DAY_MS * 31)
    assert [path.name for path in kept.bad_files()] == ["journal.db.bad-2"]
    kept.prune(DAY_MS * 36)
    kept.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["journal.db"]


def test_the_file_shrinks_when_large_entries_are_pruned(tmp_path: Path) -> None:
    kept = Journal(tmp_path / "journal.db", keep_days=30, entries_max=10_000, bytes_max=1_000_000)
    kept.write([entry(number, text="x" * 20_000) for number in range(1, 201)])
    kept.prune(1000)
    assert 0 < len(kept.newest(1000)) < 60
    assert kept.newest(1)[0].asked_at_ms == 200
    kept.close()
    assert (tmp_path / "journal.db").stat().st_size < 1_500_000


def test_ten_thousand_entries_are_kept_and_listed(tmp_path: Path) -> None:
    kept = journal(tmp_path)
    for start in range(0, 10_500, 500):
        kept.write([entry(number) for number in range(start + 1, start + 501)])
    assert kept.prune(20_000) == 500
    assert numbers(kept.newest(20_000)) == list(range(10_500, 500, -1))
    assert kept.find(f"{9_000:032x}") == [entry(9_000)]


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}
