"""What the parent says of a file before any engine sees it."""

import hashlib
import os
from pathlib import Path

import pytest

from node.backends import BackendError
from node.backends.llama_cpp.model_file import absolute, check_header, digest, parts, split_argument
from tests.node.backends.llama_cpp.gguf_files import DAMAGED, SMOLLM2


@pytest.mark.parametrize(
    ("argument", "name", "path"),
    [
        ("/models/tiny.Q4_1.gguf", "tiny.Q4_1", "/models/tiny.Q4_1.gguf"),
        ("tiny=/models/x.gguf", "tiny", "/models/x.gguf"),
        ("/odd=name/x.gguf", "x", "/odd=name/x.gguf"),
        ("=x.gguf", "=x", "=x.gguf"),
        ("my model\n.gguf", "my-model-", "my model\n.gguf"),
        ("é" * 100 + ".gguf", "é" * 48, "é" * 100 + ".gguf"),
    ],
)
def test_argument_is_a_path_with_perhaps_a_name(argument: str, name: str, path: str) -> None:
    assert split_argument(argument) == (name, path)


def test_paths_become_absolute_and_names_stay() -> None:
    assert absolute("tiny=x.gguf") == f"tiny={Path.cwd() / 'x.gguf'}"
    assert absolute("~/x.gguf") == str(Path.home() / "x.gguf")


def test_a_model_passes() -> None:
    check_header(SMOLLM2)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("empty", "is empty"),
        ("text", "is not a GGUF file (it starts with b'<!DOCTYP')"),
        ("cut in the header", "is cut off after 13 bytes"),
        ("version 99", "version 99"),
        ("big-endian", "version 50331648"),
        ("endless metadata", "is damaged"),
    ],
)
def test_what_is_no_model_is_said_to_be_none(damage: str, says: str, tmp_path: Path) -> None:
    path = DAMAGED[damage](tmp_path / "x.gguf")
    with pytest.raises(BackendError) as raised:
        check_header(path)
    assert says in str(raised.value) and str(path) in str(raised.value)
    assert not raised.value.retryable


def test_missing_files_folders_pipes_and_impossible_names_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path, says in (
        (tmp_path / "none.gguf", "does not exist"),
        (tmp_path, "is not a file"),
        (tmp_path / "fifo", "is not a file"),
        (Path("/dev/zero"), "is not a file"),
        (tmp_path / ("x" * 300), "cannot be read: File name too long"),
        (Path("nul\0"), "cannot be read"),
    ):
        with pytest.raises(BackendError, match=says) as raised:
            check_header(path)
        assert not raised.value.retryable


def no_check() -> None:
    pass


def test_digest_is_remembered_until_the_file_changes(tmp_path: Path) -> None:
    path, cache = tmp_path / "x.gguf", tmp_path / "digests.json"
    path.write_bytes(b"one")
    assert digest(path, cache, no_check) == hashlib.sha256(b"one").digest()
    state = path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    # Same size and time: the remembered digest is given, and the file is not read.
    assert digest(path, cache, no_check) == hashlib.sha256(b"one").digest()
    path.write_bytes(b"three")
    assert digest(path, cache, no_check) == hashlib.sha256(b"three").digest()


def test_a_model_in_several_files_is_all_of_them(tmp_path: Path) -> None:
    files = [tmp_path / f"big[1]-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    for number, file in enumerate([*files, tmp_path / "big[1]-00002-of-00004.gguf"]):
        file.write_bytes(bytes([number]))
    assert parts(files[0]) == files
    assert digest(files[0], tmp_path / "digests.json", no_check) == hashlib.sha256(bytes([0, 1, 2])).digest()
    files[2].write_bytes(b"other")
    assert digest(files[0], tmp_path / "digests.json", no_check) == hashlib.sha256(bytes([0, 1]) + b"other").digest()


@pytest.mark.parametrize("damage", ["", "[1, 2]", "{", '{"x": 1}', "\x00"])
def test_a_damaged_cache_only_costs_time(damage: str, tmp_path: Path) -> None:
    path, cache = tmp_path / "x.gguf", tmp_path / "digests.json"
    path.write_bytes(b"one")
    cache.write_text(damage)
    assert digest(path, cache, no_check) == hashlib.sha256(b"one").digest()
    assert digest(path, cache, no_check) == hashlib.sha256(b"one").digest()


def test_a_disk_that_takes_no_cache_only_costs_time(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(b"one")
    assert digest(path, path / "digests.json", no_check) == hashlib.sha256(b"one").digest()


def test_hashing_can_be_stopped(tmp_path: Path) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    path = tmp_path / "x.gguf"
    path.write_bytes(b"one")
    with pytest.raises(KeyboardInterrupt):
        digest(path, tmp_path / "digests.json", stop)
