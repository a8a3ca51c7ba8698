"""`swarm logs`: show the daemon's log, and follow it."""

import os
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import click

from node.cli.options import Verb, pass_terminal
from node.cli.terminal import Terminal, plain, short_path
from node.exits import Failure

_LOOK_S = 0.2
_TAIL_BYTES = 4_000_000  # Enough for -n 10000; the whole log is at most 10 MB.
_CHUNK_BYTES = 65_536


@click.command(cls=Verb)
@click.option("-f", "--follow", is_flag=True, help="Go on as lines come, until Ctrl-C.")
@click.option(
    "-n", "--lines", default=50, show_default=True, type=click.IntRange(0, 10_000), help="How many lines back."
)
@pass_terminal
def command(terminal: Terminal, follow: bool, lines: int) -> None:
    """Show the log of the daemon.

    Lines are text, or JSON with [log] format = "json".
    """
    file = terminal.home.log_file
    if not file.exists() and not follow:
        raise Failure("no_log", f"there is no log yet at {file}", hint="It begins with: swarm up")
    if not file.exists():
        terminal.say(f"Waiting for {short_path(file)} …")
    for line in _tail(file, lines, follow):
        # Into a file goes what was logged; the screen is protected from it.
        sys.stdout.write((plain(line, lines=True) if sys.stdout.isatty() else line) + "\n")
        sys.stdout.flush()


def _tail(file: Path, count: int, follow: bool) -> Iterator[str]:
    """The last lines, from the file before if this one was begun anew, then new ones as they come."""
    reader = _Reader(file)
    last: deque[str] = deque(maxlen=count)
    before = _Reader(file.with_name(file.name + ".1"))
    last.extend(before.lines(_TAIL_BYTES))
    before.close()
    last.extend(reader.lines(_TAIL_BYTES))
    yield from last
    while follow:
        yield from reader.lines(None)
        time.sleep(_LOOK_S)


class _Reader:
    """Complete lines of a file that grows, and that is moved aside and begun anew from time to time."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._opened: int | None = None
        self._rest = b""

    def lines(self, last_bytes: int | None) -> Iterator[str]:
        """What has come since the last call; with a number, only what is in the last so many bytes."""
        while True:
            if self._opened is None and not self._open(last_bytes):
                return
            assert self._opened is not None
            moved = self._moved()  # Looked at first: what was written until then is still read.
            while chunk := os.read(self._opened, _CHUNK_BYTES):
                *complete, self._rest = (self._rest + chunk).split(b"\n")
                for line in complete:
                    yield line.decode("utf-8", errors="replace")
            if not moved:
                return
            self.close()

    def close(self) -> None:
        if self._opened is not None:
            os.close(self._opened)
            self._opened = None

    def _open(self, last_bytes: int | None) -> bool:
        try:
            self._opened = os.open(self._file, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        size = os.fstat(self._opened).st_size
        if last_bytes is not None and size > last_bytes:
            os.lseek(self._opened, size - last_bytes, os.SEEK_SET)
            while (byte := os.read(self._opened, 1)) not in (b"\n", b""):
                del byte  # The first line is cut; the next one is whole.
        return True

    def _moved(self) -> bool:
        assert self._opened is not None
        try:
            return os.fstat(self._opened).st_ino != self._file.stat().st_ino
        except FileNotFoundError:
            return False
