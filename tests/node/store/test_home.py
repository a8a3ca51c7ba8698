"""Where the files of a node are, and that its folders are private."""

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.exits import Failure
from node.store.home import SOCKET_PATH_BYTES_MAX, find_home


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose path leaves room for a socket, which that of tmp_path does not always."""
    folder = Path(tempfile.mkdtemp(prefix="sw"))
    yield folder
    shutil.rmtree(folder)


def test_everything_is_under_swarm_home(tmp_path: Path) -> None:
    home = find_home({"SWARM_HOME": str(tmp_path)})
    files = [home.config_file, home.identity_key, home.models, home.api_key, home.lock, home.log_file]
    assert all(file.is_relative_to(tmp_path) for file in files)


def test_a_relative_home_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_home({"SWARM_HOME": "here"}).data == tmp_path / "here"


def test_without_swarm_home_the_platforms_folders_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    home = find_home({})
    assert home.data.name == "swarm"
    assert home.data.is_relative_to(tmp_path)
    assert home.runtime == home.state, "the temporary folder is shared; without XDG_RUNTIME_DIR the state folder serves"
    assert find_home({"XDG_RUNTIME_DIR": str(tmp_path)}).socket == tmp_path / "swarm" / "control.sock"


def test_swarm_config_names_another_file(tmp_path: Path) -> None:
    home = find_home({"SWARM_HOME": str(tmp_path), "SWARM_CONFIG": str(tmp_path / "other.toml")})
    assert home.config_file == tmp_path / "other.toml"


def test_a_long_home_gets_a_short_private_socket_folder_of_its_own(tmp_path: Path, short: Path) -> None:
    homes = [
        find_home({"SWARM_HOME": str(tmp_path / (letter * 60)), "XDG_RUNTIME_DIR": str(short)}) for letter in ("a", "b")
    ]
    assert len({home.socket for home in homes}) == 2
    for home in homes:
        assert len(os.fsencode(home.socket)) <= SOCKET_PATH_BYTES_MAX
        home.create()
        assert stat.S_IMODE(home.runtime.stat().st_mode) == 0o700


def test_folders_are_made_private(tmp_path: Path) -> None:
    home = find_home({"SWARM_HOME": str(tmp_path / "new")})
    home.create()
    home.create()
    for folder in (home.data, home.models, home.logs):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_socket_folder_that_others_can_write_to_is_refused(tmp_path: Path, short: Path) -> None:
    home = find_home({"SWARM_HOME": str(tmp_path / ("a" * 60)), "XDG_RUNTIME_DIR": str(short)})
    home.runtime.mkdir()
    home.runtime.chmod(0o777)
    for use in (home.create, home.check_runtime):
        with pytest.raises(Failure, match="others can write to"):
            use()
    home.runtime.chmod(0o700)
    home.create()


def test_a_symbolic_link_as_socket_folder_is_refused(tmp_path: Path, short: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    home = find_home({"SWARM_HOME": str(tmp_path / ("a" * 60)), "XDG_RUNTIME_DIR": str(short)})
    home.runtime.symlink_to(theirs)
    with pytest.raises(Failure):
        home.create()


def test_a_home_that_cannot_be_made_names_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Failure) as caught:
        find_home({"SWARM_HOME": str(tmp_path / "file" / "home")}).create()
    assert str(tmp_path / "file" / "home") in caught.value.message
    assert "SWARM_HOME" in caught.value.hint
