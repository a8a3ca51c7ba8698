"""Secrets on disk: made once, private, never replaced."""

import os
import stat
from pathlib import Path

import pytest

from node.exits import Failure
from node.store.keys import api_key, check_key_file, identity_seed


def test_an_identity_is_made_once_and_stays(tmp_path: Path) -> None:
    file = tmp_path / "identity.key"
    seed, created = identity_seed(file)
    assert (len(seed), created) == (32, True)
    assert identity_seed(file) == (seed, False)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_two_homes_have_two_identities(tmp_path: Path) -> None:
    assert identity_seed(tmp_path / "a")[0] != identity_seed(tmp_path / "b")[0]


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o622, 0o601])
def test_a_key_that_others_can_reach_is_refused_with_the_command_that_mends_it(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "identity.key"
    identity_seed(file)
    file.chmod(mode)
    for use in (identity_seed, api_key, check_key_file):
        with pytest.raises(Failure) as caught:
            use(file)
        assert str(file) in caught.value.message
        assert caught.value.hint == f"chmod 600 {file}"


def _spoilt(text: str) -> list[bytes]:
    digit = text.splitlines()[1][5]
    other = "0" if digit != "0" else "1"
    line = text.splitlines()[1]
    return [
        b"",
        b"\0" * 200,
        os.urandom(300),
        text.splitlines()[0].encode(),
        text.replace(line, line[:5] + other + line[6:]).encode(),
        text.replace(line, line[:-1]).encode(),
        (text + "more\n").encode(),
        b"-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk\n",
    ]


@pytest.mark.parametrize("case", range(8))
def test_a_file_that_is_no_identity_is_refused_and_left_as_it_is(tmp_path: Path, case: int) -> None:
    file = tmp_path / "identity.key"
    identity_seed(file)
    content = _spoilt(file.read_text())[case]
    file.write_bytes(content)
    with pytest.raises(Failure, match="not an identity") as caught:
        identity_seed(file)
    assert str(file) in caught.value.message
    assert file.read_bytes() == content


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    identity_seed(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(Failure, match="not a plain file"):
        identity_seed(tmp_path / "link")


def test_a_pipe_in_place_of_the_key_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "identity.key", 0o600)
    with pytest.raises(Failure, match="not a plain file"):
        identity_seed(tmp_path / "identity.key")


def test_an_api_key_is_made_once_and_can_be_replaced_by_hand(tmp_path: Path) -> None:
    file = tmp_path / "api.key"
    key = api_key(file)
    assert key.startswith("sk-swarm-")
    assert api_key(file) == key
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.write_text("my-own-key-0123456789\n")
    assert api_key(file) == "my-own-key-0123456789"


@pytest.mark.parametrize("text", ["", "short", "two words that are long enough", "ключ-ключ-ключ-ключ"])
def test_an_api_key_that_could_be_guessed_or_not_sent_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "api.key"
    file.touch(0o600)
    file.write_text(text)
    with pytest.raises(Failure, match="does not hold an API key"):
        api_key(file)
