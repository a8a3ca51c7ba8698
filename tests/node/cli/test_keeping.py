"""`swarm models add` and `rm` write what they added or dropped into config.toml, and nothing else."""

from pathlib import Path

import pytest

from node.cli.keeping import drop_model, keep_model
from node.exits import Failure
from node.settings import load
from node.store.home import find_home


def test_model_is_kept_in_a_file_that_was_not_there(tmp_path: Path) -> None:
    home = find_home({"SWARM_HOME": str(tmp_path)})
    assert keep_model(home.config_file, "language")
    assert load(home, {}, environ={}).offer.models == ("language",)


def test_comments_and_other_settings_stay(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('# mine\n[offer]\nmodels = ["echo"]  # for tests\nthreads = 3\n')
    assert keep_model(config, "language")
    assert config.read_text() == '# mine\n[offer]\nmodels = ["echo", "language"]  # for tests\nthreads = 3\n'


def test_model_is_kept_once(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    assert keep_model(config, "echo")
    before = config.read_text()
    assert not keep_model(config, "echo")
    assert config.read_text() == before


def test_what_is_dropped_leaves_the_rest_as_it_was(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('# mine\n[offer]\nmodels = ["echo", "language"]  # for tests\npinned = ["echo"]\nthreads = 3\n')
    assert drop_model(config, {"echo", "no such"})
    assert config.read_text() == '# mine\n[offer]\nmodels = ["language"]  # for tests\npinned = []\nthreads = 3\n'
    assert not drop_model(config, {"echo"})
    assert not drop_model(tmp_path / "none.toml", {"echo"})
    assert not (tmp_path / "none.toml").exists()


@pytest.mark.parametrize("text", ["[offer\n", "offer = 3\n", "[offer]\nmodels = 3\n"])
def test_broken_file_is_named_and_left_alone(tmp_path: Path, text: str) -> None:
    config = tmp_path / "config.toml"
    config.write_text(text)
    with pytest.raises(Failure, match=str(config)):
        keep_model(config, "echo")
    with pytest.raises(Failure, match=str(config)):
        drop_model(config, {"echo"})
    assert config.read_text() == text
