"""Whole files or nothing."""

import os
import resource
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from node.exits import Failure
from node.store.atomic import create_atomically, write_atomically


def test_content_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "x"
    write_atomically(file, b"one")
    write_atomically(file, b"two")
    assert file.read_bytes() == b"two"
    assert os.listdir(tmp_path) == ["x"]


def test_mode_holds_whatever_the_umask_is(tmp_path: Path) -> None:
    before = os.umask(0o000)
    try:
        write_atomically(tmp_path / "x", b"")
        create_atomically(tmp_path / "y", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "y").stat().st_mode) == 0o600


def test_creating_never_replaces(tmp_path: Path) -> None:
    create_atomically(tmp_path / "x", b"one")
    with pytest.raises(FileExistsError):
        create_atomically(tmp_path / "x", b"two")
    assert (tmp_path / "x").read_bytes() == b"one"
    assert os.listdir(tmp_path) == ["x"]


def test_creating_does_not_follow_a_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / "x").symlink_to(tmp_path / "target")
    with pytest.raises(FileExistsError):
        create_atomically(tmp_path / "x", b"secret")
    assert not (tmp_path / "target").exists()


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="nowhere"):
        write_atomically(tmp_path / "nowhere" / "x", b"")


def test_a_disk_without_room_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes(b"old")
    # A limit on the size of files makes the kernel refuse in the middle of the write, as a full disk does.
    program = (
        "import resource, sys; from pathlib import Path; from node.exits import Failure;"
        "from node.store.atomic import write_atomically;"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, (1000, {resource.RLIM_INFINITY}));"
        "file = Path(sys.argv[1])\n"
        "try: write_atomically(file, b'n' * 5000)\n"
        "except Failure as failure: print(failure.code, failure.message)"
    )
    done = subprocess.run([sys.executable, "-c", program, file], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("disk_full no room on the disk")
    assert file.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x"]


def test_an_interrupt_in_the_middle_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_atomically(tmp_path / "x", b"old")

    def interrupted(file: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "x", b"new")
    assert (tmp_path / "x").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x"]
