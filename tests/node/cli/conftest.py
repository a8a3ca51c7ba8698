"""Runs the command in this process, in a home of its own."""

import io
import json
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from node.cli.program import run
from node.store.home import Home, find_home
from tests.node.cli.control_api import Control, control_api


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command did: its exit code, and what it wrote to stdout and stderr."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one line of JSON on stdout."""
        (line,) = self.out.splitlines()
        return json.loads(line)


Run = Callable[..., Ran]


@contextmanager
def bounded(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """A process that is killed after a minute, so that a test which waits for its words in vain fails."""
    limit = threading.Timer(60, process.kill)
    limit.start()
    try:
        with process:
            yield process
    finally:
        limit.cancel()


class _Input(io.TextIOWrapper):
    """stdin with something in it, or a terminal where nobody types."""

    def __init__(self, content: bytes | None) -> None:
        super().__init__(io.BytesIO(content or b""), encoding="utf-8")
        self._typed = content is None

    def isatty(self) -> bool:
        return self._typed


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """A home of its own in SWARM_HOME, with a path short enough for a socket."""
    folder = tempfile.mkdtemp(prefix="sw")
    monkeypatch.setenv("SWARM_HOME", folder)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("NO_COLOR", raising=False)
    home = find_home()
    yield home
    shutil.rmtree(folder)


@pytest.fixture
def swarm(home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`swarm("ask", "hi")` runs the command; `typed` is what comes on stdin, None a silent terminal."""

    def command(*arguments: str, typed: bytes | None = None) -> Ran:
        monkeypatch.setattr(sys, "stdin", _Input(typed))
        capsys.readouterr()
        code = run(arguments)
        said = capsys.readouterr()
        return Ran(code, said.out, said.err)

    return command


@pytest.fixture
def control(home: Home) -> Iterator[Control]:
    """The control API of a node in `home`."""
    with control_api(home.socket) as control:
        yield control
