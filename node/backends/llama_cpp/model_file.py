"""What can be known of a model's file without an engine: its name, whether it is GGUF at all, its digest.

The parent reads only the header's 24 bytes, whose three numbers it bounds; everything else in the file is parsed in the child.
"""

import contextlib
import glob
import hashlib
import json
import os
import stat
import struct
from collections.abc import Callable
from pathlib import Path

from node.backends import BackendError
from protocol.limits import MODEL_BYTES_MAX

DIGESTS_MAX = 256  # Files whose digests are remembered; the oldest are forgotten.
_HEADER = struct.Struct("<4sIQQ")
_COUNT_MAX = 1_000_000  # Tensors or metadata; the largest models have some thousands.


def split_argument(argument: str) -> tuple[str, str]:
    """`NAME=PATH` or `PATH` to the name that the model is offered by (else the file's own) and the path."""
    name, equals, path = argument.partition("=")
    if not equals or not name or "/" in name or os.sep in name:
        name, path = Path(argument).stem, argument
    name = "".join(c if c.isprintable() and not c.isspace() else "-" for c in name)
    return name.encode("utf-8", "replace")[:MODEL_BYTES_MAX].decode("utf-8", "ignore"), path


def absolute(argument: str) -> str:
    """The same argument with its path made absolute and `~` resolved."""
    _, path = split_argument(argument)
    return argument.removesuffix(path) + str(Path(path).expanduser().absolute())


def parts(path: Path) -> list[Path]:
    """All files of a model, in order: of one that is split over several, `path` is the first, and the others stand beside it."""
    prefix, first, rest = path.name.partition("-00001-of-")
    return sorted(path.parent.glob(f"{glob.escape(prefix)}-*-of-{glob.escape(rest)}")) if first else [path]


def check_header(path: Path) -> None:
    """Raises BackendError that says what is wrong with the file and what to do. Reads 24 bytes."""
    try:
        # Before it is opened: opening a pipe would wait for its writer.
        if not stat.S_ISREG(path.stat().st_mode):
            raise BackendError(f"{path} is not a file; give the path of a model in GGUF format.", retryable=False)
        with path.open("rb") as file:
            head = file.read(_HEADER.size)
    except FileNotFoundError:
        raise BackendError(f"{path} does not exist; check the path, or see `swarm models`.", retryable=False) from None
    except (OSError, ValueError) as error:
        cause = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise BackendError(f"{path} cannot be read: {cause}.", retryable=False) from error
    if not head:
        raise BackendError(f"{path} is empty; download it again.", retryable=False)
    if head[:4] != b"GGUF":
        raise BackendError(
            f"{path} is not a GGUF file (it starts with {head[:8]!r}); give a model in GGUF format.", retryable=False
        )
    if len(head) < _HEADER.size:
        raise BackendError(f"{path} is cut off after {len(head)} bytes; download it again.", retryable=False)
    _, version, tensors, pairs = _HEADER.unpack(head)
    if version not in (2, 3):
        raise BackendError(f"{path} is GGUF of version {version}; versions 2 and 3 can be used.", retryable=False)
    if not 0 < tensors <= _COUNT_MAX or not 0 < pairs <= _COUNT_MAX:
        raise BackendError(
            f"{path} is damaged: its header promises {tensors} tensors and {pairs} metadata. Download it again.",
            retryable=False,
        )


def digest(path: Path, cache: Path, check_cancelled: Callable[[], None]) -> bytes:
    """SHA-256 of the file, or of all parts. Remembered in the file `cache` until a size or time changes; that file may be lost."""
    files = parts(path)
    states = [file.stat() for file in files]
    key, now = str(path), [sum(state.st_size for state in states), sum(state.st_mtime_ns for state in states)]
    known = _read_cache(cache)
    if key in known and known[key][:2] == now:
        return bytes.fromhex(known[key][2])
    sha256 = hashlib.sha256()
    for part in files:
        with part.open("rb", buffering=0) as file:
            while chunk := file.read(1 << 20):
                sha256.update(chunk)
                check_cancelled()
    known.pop(key, None)
    known[key] = [*now, sha256.hexdigest()]
    _write_cache(cache, dict(list(known.items())[-DIGESTS_MAX:]))
    return sha256.digest()


def _read_cache(cache: Path) -> dict[str, list]:  # type: ignore[type-arg]
    try:
        known = json.loads(cache.read_text(encoding="utf-8"))
        return {key: value for key, value in known.items() if len(value) == 3 and len(bytes.fromhex(value[2])) == 32}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}  # Missing or damaged: it only saves time.


def _write_cache(cache: Path, known: dict[str, list]) -> None:  # type: ignore[type-arg]
    beside = cache.with_name(f"{cache.name}.{os.getpid()}")
    try:
        beside.write_text(json.dumps(known), encoding="utf-8")
        beside.replace(cache)
    except OSError:
        # A full disk costs the next start some seconds, and nothing else.
        with contextlib.suppress(OSError):
            beside.unlink()
