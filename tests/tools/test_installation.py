"""The set-up does what is missing, no more: judged by its stamp, by the pins, and by what a machine lacks."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tools.installation import STAMP, Installation, Wishes, missing_parts, set_up
from tools.progress import Line
from tools.running import SetupError

ROOT = Path(__file__).resolve().parents[2]
NODE = Wishes(dev=False, engine=False, rebuild=False)
ALL = Wishes(dev=True, engine=True, rebuild=False)


@pytest.fixture
def project(tmp_path: Path) -> Installation:
    """A project whose packages are pinned and whose virtual environment is complete, as far as its stamp says."""
    for name in ("build", "node", "dev", "engine"):
        pins = tmp_path / "requirements" / f"{name}.txt"
        pins.parent.mkdir(exist_ok=True)
        pins.write_text(f"{name}==1\n")
    (tmp_path / "tools").symlink_to(ROOT / "tools")
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    installation = Installation(tmp_path)
    installation.python.parent.mkdir(parents=True)
    installation.python.symlink_to(sys.executable)
    installation.write_stamp(dict(installation.wanted(ALL)))
    return installation


def test_nothing_is_done_where_nothing_is_missing(project: Installation, capsys: pytest.CaptureFixture[str]) -> None:
    assert missing_parts(project, ALL) == []
    assert set_up(project.root, ALL) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("file", "part"),
    [
        ("requirements/node.txt", "node"),
        ("requirements/build.txt", "node"),
        ("requirements/dev.txt", "dev"),
        ("requirements/engine.txt", "engine"),
        ("pyproject.toml", "project"),
    ],
)
def test_what_changed_is_missing(project: Installation, file: str, part: str) -> None:
    (project.root / file).write_text("changed==2\n")
    assert missing_parts(project, ALL) == [part]


def test_new_cmake_arguments_ask_for_another_engine(project: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CMAKE_ARGS", "-DGGML_BLAS=ON")
    assert missing_parts(project, ALL) == ["engine"]


def test_what_is_not_wished_for_is_not_missing(project: Installation) -> None:
    stamp = project.read_stamp()
    del stamp["dev"], stamp["engine"]
    project.write_stamp(stamp)
    assert missing_parts(project, NODE) == []
    assert missing_parts(project, ALL) == ["dev", "engine"]


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "\x00"])
def test_damaged_stamp_is_no_stamp(project: Installation, text: str) -> None:
    (project.venv / STAMP).write_text(text)
    assert set(missing_parts(project, ALL)) == {"place", "node", "project", "dev", "engine"}


def test_environment_without_its_python_is_missing_whole(project: Installation) -> None:
    project.python.unlink()
    assert set(missing_parts(project, ALL)) == {"place", "node", "project", "dev", "engine"}


def test_environment_that_was_moved_is_missing(project: Installation, tmp_path: Path) -> None:
    moved = tmp_path.parent / f"{tmp_path.name}-moved"
    project.root.rename(moved)
    assert "place" in missing_parts(Installation(moved), ALL)


def test_somebody_elses_environment_is_not_removed(project: Installation) -> None:
    (project.venv / STAMP).unlink()
    (project.venv / "precious").touch()
    with pytest.raises(SetupError, match="Move it away"):
        project.make_venv()
    assert (project.venv / "precious").exists()


def test_own_environment_is_replaced_and_takes_only_what_is_pinned(project: Installation, tmp_path: Path) -> None:
    (project.venv / "leftover").touch()
    project.make_venv()
    assert not (project.venv / "leftover").exists()
    assert json.loads((project.venv / STAMP).read_text()) == {}

    # A package of the right name and version with other bytes is refused.
    package = tmp_path / "six_of_us-1.0-py3-none-any.whl"
    package.write_bytes(b"not what was pinned")
    project.pins("node").write_text(f"six-of-us @ {package.as_uri()} --hash=sha256:{'0' * 64}\n")
    with pytest.raises(SetupError, match=r"(?i)hash"):
        project.install("node", Line("packages"))


def test_failed_set_up_explains_itself_and_returns_one(
    project: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    (project.root / "requirements/node.txt").write_text("changed==2\n")
    (project.venv / STAMP).unlink()
    assert set_up(project.root, NODE) == 1
    assert "Move it away first" in capsys.readouterr().err


def test_entry_point_speaks_to_old_pythons() -> None:
    """`tools/setup.py` must parse where it is only good for saying that a newer Python is needed."""
    text = (ROOT / "tools/setup.py").read_text(encoding="utf-8")
    tree = ast.parse(text, feature_version=(3, 7))
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)], "f-strings came with 3.6"
    top = [node.module or "" for node in tree.body if isinstance(node, ast.ImportFrom)]
    assert not [module for module in top if module.startswith("tools")]


def test_help_is_there_before_anything_is_installed() -> None:
    told = subprocess.run(
        [sys.executable, "-S", "-E", "tools/setup.py", "--help"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert told.returncode == 0
    assert "--no-engine" in told.stdout
