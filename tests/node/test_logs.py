"""The daemon's log: bounded, private, one line for one event, no prompts."""

import json
import logging
import resource
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from node import logs
from node.settings import LogSettings


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Puts the process's logging back as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers = []
    yield
    for handler in root.handlers:
        handler.close()
    root.handlers = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    logging.raiseExceptions = True


def test_lines_are_private_and_carry_their_fields(tmp_path: Path) -> None:
    logs.configure(LogSettings(), tmp_path)
    logging.getLogger("node.driver").info("link up", extra={"peer": "wren"})
    file = tmp_path / "node.log"
    assert file.read_text().endswith(" INFO    node.driver: link up peer=wren\n")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_json_lines_are_json(tmp_path: Path) -> None:
    logs.configure(LogSettings(format="json"), tmp_path)
    try:
        raise ValueError("why")
    except ValueError:
        logging.getLogger("node").exception("it broke", extra={"peer": "wren"})
    line = json.loads((tmp_path / "node.log").read_text())
    assert (line["level"], line["logger"], line["message"], line["peer"]) == ("error", "node", "it broke", "wren")
    assert "ValueError: why" in line["exception"]


@pytest.mark.parametrize("form", ["text", "json"])
def test_prompts_are_written_only_if_wanted(tmp_path: Path, form: str) -> None:
    for wanted in (False, True):
        logs.configure(LogSettings(prompts=wanted, format=form), tmp_path)  # type: ignore[arg-type]
        logging.getLogger("node").info("asked", extra={"prompt": "my secret"})
        assert ("my secret" in (tmp_path / "node.log").read_text()) is wanted


def test_a_peers_name_cannot_forge_a_line_or_a_screen(tmp_path: Path) -> None:
    logs.configure(LogSettings(), tmp_path)
    logging.getLogger("node").info("link up with %s", "x\n2026 ERROR\x1b[2J", extra={"peer": "a\rb"})
    text = (tmp_path / "node.log").read_text()
    assert text.count("\n") == 1
    assert "\x1b" not in text
    assert "\r" not in text


def test_the_log_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "LOG_BYTES_MAX", 1000)
    logs.configure(LogSettings(), tmp_path)
    for number in range(200):
        logging.getLogger("node").info("line %d", number)
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["node.log", "node.log.1"]
    assert all(file.stat().st_size <= 1000 and stat.S_IMODE(file.stat().st_mode) == 0o600 for file in files)


def test_libraries_speak_only_of_warnings(tmp_path: Path) -> None:
    logs.configure(LogSettings(level="debug"), tmp_path)
    logging.getLogger("libp2p.network").info("chatter")
    logging.getLogger("libp2p.network").warning("trouble")
    text = (tmp_path / "node.log").read_text()
    assert "chatter" not in text
    assert "trouble" in text


def test_configuring_twice_writes_once(tmp_path: Path) -> None:
    logs.configure(LogSettings(), tmp_path)
    logs.configure(LogSettings(), tmp_path)
    logging.getLogger("node").info("once")
    assert (tmp_path / "node.log").read_text().count("once") == 1


def test_a_disk_without_room_loses_lines_and_nothing_else(tmp_path: Path) -> None:
    # A limit on the size of files makes the kernel refuse writes, as a full disk does.
    program = (
        "import logging, resource, sys; from pathlib import Path; from node import logs;"
        "from node.settings import LogSettings;"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, (500, {resource.RLIM_INFINITY}));"
        "logs.configure(LogSettings(), Path(sys.argv[1]))\n"
        "for number in range(5000): logging.getLogger('node').info('line %d', number)\n"
        "print('alive')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path], capture_output=True, text=True, timeout=60, check=True
    )
    assert (done.stdout, done.stderr) == ("alive\n", "")
    assert "line 0" in (tmp_path / "node.log").read_text()
