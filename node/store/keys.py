"""The node's secrets on disk: the seed of its identity, and the key that programs show to its API.

The identity file is two lines of text, so that a person who finds it knows what it is:

    swarm identity, keep secret: ed25519-seed
    <64 hex digits of the seed> <8 hex digits of its SHA-256>
"""

import errno
import hashlib
import os
import secrets
import stat
from pathlib import Path

from node.exits import Failure
from node.store.atomic import create_atomically

_HEADER = "swarm identity, keep secret: ed25519-seed"
_SEED_BYTES = 32
_KEY_FILE_BYTES_MAX = 4_096  # A key file is about 120 bytes; more is some other file.
_API_KEY_PREFIX = "sk-swarm-"
_API_KEY_CHARS_MIN = 16  # Fewer can be guessed.


def identity_seed(path: Path) -> tuple[bytes, bool]:
    """The 32-byte seed of this node's Ed25519 key, and whether it was made just now.

    Raises Failure for a key that others can read and for a file that is no key: it is never replaced, since a lost
    identity cannot be had again.
    """
    text = _read_secret(path)
    if text is not None:
        return _parse_seed(path, text), False
    seed = secrets.token_bytes(_SEED_BYTES)
    try:
        create_atomically(path, f"{_HEADER}\n{seed.hex()} {_check_digits(seed)}\n".encode())
    except FileExistsError:  # Somebody was faster; theirs is the identity.
        return identity_seed(path)
    return seed, True


def api_key(path: Path) -> str:
    """The token for the API on TCP, made at first use. Raises Failure as `identity_seed` does."""
    text = _read_secret(path)
    if text is None:
        key = _API_KEY_PREFIX + secrets.token_urlsafe(24)
        try:
            create_atomically(path, f"{key}\n".encode())
        except FileExistsError:
            return api_key(path)
        return key
    key = text.strip()
    if len(key) < _API_KEY_CHARS_MIN or not key.isascii() or not key.isprintable() or " " in key:
        raise Failure(
            "key_invalid",
            f"{path} does not hold an API key: one line of at least {_API_KEY_CHARS_MIN} characters without spaces",
            hint=f"Remove {path}; the next start makes a new key.",
        )
    return key


def check_key_file(path: Path) -> None:
    """Raises Failure if the file is there and is not a plain file that only this user can read."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISREG(found.st_mode):
        raise Failure("key_invalid", f"{path} is not a plain file", hint="Put the key itself there, not a link.")
    _check_mode(path, found)


def _read_secret(path: Path) -> str | None:
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            check_key_file(path)
        raise Failure("key_unreadable", f"{path} cannot be read: {error.strerror}") from None
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            raise Failure("key_invalid", f"{path} is not a plain file", hint="Put the key itself there.")
        _check_mode(path, found)
        content = os.read(file, _KEY_FILE_BYTES_MAX)
    finally:
        os.close(file)
    return content.decode("utf-8", errors="replace")


def _check_mode(path: Path, found: os.stat_result) -> None:
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o077:
        raise Failure(
            "key_permissions",
            f"{path} can be read by others (mode {mode:04o}); whoever has this key is this node",
            hint=f"chmod 600 {path}",
        )
    if os.geteuid() not in (0, found.st_uid):
        raise Failure("key_permissions", f"{path} belongs to another user", hint=f"chown {os.geteuid()} {path}")


def _parse_seed(path: Path, text: str) -> bytes:
    lines = text.splitlines()
    try:
        digits, check = lines[1].split(" ")
        seed = bytes.fromhex(digits)
        if len(lines) != 2 or lines[0] != _HEADER or len(seed) != _SEED_BYTES or check != _check_digits(seed):
            raise ValueError
    except (ValueError, IndexError):
        raise Failure(
            "key_invalid",
            f"{path} is not an identity of this program, or is damaged; it was left as it is",
            hint=f"Restore it from a copy, or move it away to begin as a new node: mv {path} {path}.old",
        ) from None
    return seed


def _check_digits(seed: bytes) -> str:
    return hashlib.sha256(seed).hexdigest()[:8]
