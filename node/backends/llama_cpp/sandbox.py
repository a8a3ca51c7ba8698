"""Takes from the child what it does not need, before it reads a hostile file. Each part is best effort; `Guard` names what holds.

Enforced where the kernel allows: no core dumps, no log beyond a size, no gain of privileges (Linux), death with the parent (Linux),
no network (an empty network namespace where namespaces are permitted; else Landlock from Linux 6.7 on denies TCP), and with
Landlock from Linux 5.13 on no writing to any file, and no reading beyond the model, the installation and the system's libraries.

Not enforced: a limit of memory or processor time; system calls as such (there is no seccomp filter); anything at all on macOS
but the first two and a cleared environment.
"""

import contextlib
import ctypes
import os
import resource
import signal
import struct
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

LOG_BYTES_MAX = 1 << 20  # What one child may write to its log; writes beyond it fail, which nobody minds.

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_LANDLOCK_CREATE_RULESET, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT_SELF = 444, 445, 446  # The same on every architecture.
_READ_FILE, _EXECUTE, _READ_DIR, _WRITE_FILE = 1 << 2, 1 << 0, 1 << 3, 1 << 1
_ALL_OF_ABI_1 = (1 << 13) - 1
_SYSTEM = ("/usr", "/lib", "/lib64", "/proc", "/sys", "/etc/ld.so.cache")

_libc = ctypes.CDLL(None, use_errno=True)


def restrict_process(parent: int) -> list[str]:
    """What can be had before any thread runs and before anything is imported. Returns the names of the guards that hold."""
    guards = ["no core dumps", f"log up to {LOG_BYTES_MAX >> 20} MiB"]
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LOG_BYTES_MAX, LOG_BYTES_MAX))
    if sys.platform != "linux":
        return guards
    if _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) == 0:
        guards.append("dies with its parent")
        if os.getppid() != parent:  # It has died before this was asked for.
            os._exit(0)
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0:
        guards.append("no new privileges")
    # A user namespace is needed only by those who may not make a network namespace otherwise.
    if _libc.unshare(_CLONE_NEWNET) == 0 or _libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0:
        guards.append("no network")
    return guards


def restrict_files(readable: Sequence[Path]) -> list[str]:
    """Landlock: from now on read these and the installation, write nothing. Binds this thread and those that it starts."""
    if sys.platform != "linux":
        return []
    abi = _libc.syscall(_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), 1)
    if abi < 1:
        return []
    files = _ALL_OF_ABI_1 | (1 << 13 if abi >= 2 else 0) | (1 << 14 if abi >= 3 else 0) | (1 << 15 if abi >= 5 else 0)
    tcp = 0b11 if abi >= 4 else 0
    scopes = 0b11 if abi >= 6 else 0  # Signals to others, and abstract sockets of others.
    attributes = struct.pack("=QQQ", files, tcp, scopes)[: 24 if abi >= 6 else 16 if abi >= 4 else 8]
    ruleset = _libc.syscall(_LANDLOCK_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    if ruleset < 0:
        return []
    try:
        for place in (*_SYSTEM, sys.prefix, sys.base_prefix, *map(str, readable)):
            _allow(ruleset, place, _READ_FILE | _READ_DIR | _EXECUTE)
        _allow(ruleset, "/dev/null", _READ_FILE | _WRITE_FILE)
        _allow(ruleset, "/dev/urandom", _READ_FILE)
        if _libc.syscall(_LANDLOCK_RESTRICT_SELF, ruleset, 0) != 0:
            return []
    finally:
        os.close(ruleset)
    return ["no foreign files", *(["no TCP"] if tcp else [])]


def _allow(ruleset: int, place: str, access: int) -> None:
    try:
        at = os.open(place, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # What is not there need not be allowed.
    try:
        if not Path(place).is_dir():
            access &= ~_READ_DIR
        _libc.syscall(_LANDLOCK_ADD_RULE, ruleset, 1, struct.pack("=Qi", access, at), 0)
    finally:
        os.close(at)


class Overdue(Exception):
    """The time for a bounded piece of work is over."""


@contextlib.contextmanager
def bounded(seconds: float, memory_bytes: int) -> Iterator[None]:
    """For Python that a hostile file supplied: raises Overdue after this time, MemoryError beyond this much more memory.

    Only on the main thread. Memory is bounded only on Linux, where /proc tells how much there is already.
    """

    def overdue(_number: int, _frame: object) -> None:
        raise Overdue

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGALRM, overdue)
    try:
        if sys.platform == "linux":
            pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
            resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + memory_bytes, hard))
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            yield
        finally:
            # The alarm may still ring here, but only once, so what follows is not interrupted.
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        if sys.platform == "linux":
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGALRM, before)
