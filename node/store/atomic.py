"""Writes whole files or nothing: a crash or a full disk leaves the old file as it was."""

import errno
import os
from contextlib import suppress
from pathlib import Path

from node.exits import Failure

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}


def write_atomically(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Replace the file's content, or raise Failure and leave what was there."""
    fresh = _written_beside(path, data, mode)
    try:
        os.replace(fresh, path)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise _unwritten(path, error) from None
    _sync_folder(path.parent)


def create_atomically(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Make a file that must not exist yet, symbolic links included. Raises FileExistsError, or Failure."""
    fresh = _written_beside(path, data, mode)
    try:
        os.link(fresh, path)  # Unlike a rename, a link never replaces what somebody else has just put there.
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in _NO_LINKS or os.path.lexists(path):
            raise _unwritten(path, error) from None
        os.rename(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _written_beside(path: Path, data: bytes, mode: int) -> Path:
    fresh = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    try:
        file = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        try:
            os.fchmod(file, mode)  # The umask may have taken bits away.
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(file, rest) :]
            os.fsync(file)
        finally:
            os.close(file)
    except OSError as error:
        with suppress(OSError):
            fresh.unlink()
        raise _unwritten(path, error) from None
    except BaseException:  # Ctrl-C in between: leave nothing behind.
        with suppress(OSError):
            fresh.unlink()
        raise
    return fresh


def _unwritten(path: Path, error: OSError) -> Failure:
    if error.errno in _NO_ROOM:
        return Failure(
            "disk_full",
            f"no room on the disk for {path}; what was there is unchanged",
            hint=f"Free some space under {path.parent}.",
        )
    return Failure("cannot_write", f"{path} cannot be written: {error.strerror}; what was there is unchanged")


def _sync_folder(folder: Path) -> None:
    """Makes the new name itself survive a power cut. Some file systems cannot; then the name is as safe as it gets."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
