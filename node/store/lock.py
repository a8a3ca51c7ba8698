"""One node per home: a lock that the kernel drops when its holder dies, taken before anything is bound.

It is a `flock` on node.lock, which also names the holder's process and socket. The file is never removed: two processes
could otherwise each hold a lock on a file of that name.
"""

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from node.exits import ExitCode, Failure
from node.store.home import Home

_PROBE_S = (
    1.0  # `held` holds the lock for microseconds to find out; a start waits that long before it believes in another.
)
_LOCK_FILE_BYTES_MAX = 4_096


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a home: `pid` is 0 for the moment between taking the lock and writing it down."""

    pid: int
    socket: Path


class HomeLocked(Failure):
    """Another node is running in this home. Nothing was touched."""

    def __init__(self, home: Home, holder: Holder | None) -> None:
        who = f"process {holder.pid}" if holder and holder.pid else "another process"
        super().__init__(
            "home_locked",
            f"{home.state} is held by a node that is running already ({who})",
            hint="Stop it with: swarm down. For a second node on this machine set SWARM_HOME to another folder.",
            exit=ExitCode.ALREADY_HELD,
        )


@contextmanager
def hold(home: Home) -> Iterator[None]:
    """Hold the home for as long as the block runs. Raises HomeLocked.

    The lock lives as long as any copy of its file descriptor: children must be started without inheriting it, as
    `subprocess` and multiprocessing's spawn do.
    """
    try:
        file = os.open(home.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise Failure("home_unusable", f"the lock {home.lock} cannot be opened: {error.strerror}") from None
    try:
        deadline = time.monotonic() + _PROBE_S
        while not _taken(file, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise HomeLocked(home, read_holder(home))
            time.sleep(0.02)
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}\n{home.socket}\n".encode("utf-8", "surrogateescape"), 0)
        try:
            yield
        finally:
            os.ftruncate(file, 0)
    finally:
        os.close(file)


def held(home: Home) -> Holder | None:
    """Who holds the home now; None if nobody does, whatever the file says."""
    try:
        file = os.open(home.lock, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:  # None there yet, or nothing that a node could hold.
        return None
    try:
        if _taken(file, fcntl.LOCK_SH):
            return None
    finally:
        os.close(file)
    return read_holder(home) or Holder(0, home.socket)


def read_holder(home: Home) -> Holder | None:
    """The latest holder that wrote itself down."""
    try:
        with open(home.lock, "rb") as file:
            lines = file.read(_LOCK_FILE_BYTES_MAX).decode("utf-8", "surrogateescape").split("\n")
        return Holder(int(lines[0]), Path(lines[1]))
    except (OSError, ValueError, IndexError):
        return None


def _taken(file: int, how: int) -> bool:
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EINTR):
            return False
        raise
    return True
