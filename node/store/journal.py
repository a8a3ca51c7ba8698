"""The journal: what this node's users asked and how it ended, in an SQLite file that survives kill -9 and power cuts.

A write returns when it is on the disk: write-ahead log, one fsync for each group of entries. Whatever is wrong with the file
is answered here: one that cannot be understood is moved aside and begun anew, so that it never keeps the node from working.
Calls block; only one thread may be inside at a time.
"""

import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import TypeVar

SCHEMA_VERSION = 1
BYTES_MAX = 256 * 1024 * 1024  # Ten thousand tasks of 20 kB, which is long; older ones go first.
BYTES_HARD_MAX = 2 * BYTES_MAX  # SQLite itself grows the file no further, whatever happens between two prunings.
BAD_FILES_KEPT = 2  # Those set aside earlier are removed: a disk that keeps breaking files must not fill up with them.
PRUNED_AT_ONCE = 64  # Entries removed before the size is looked at again.
BUSY_S = 2.0  # Another program reads the file, such as `sqlite3` by hand.
_PAGE_BYTES = 4096
_DAY_MS = 86_400_000
_SIDES = ("-wal", "-shm")
_CORRUPT = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

_Found = TypeVar("_Found")


class JournalError(Exception):
    """The journal cannot be read or written now; the message says why. What it held before is as it was."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One task. `state`: open, done, failed, cancelled or interrupted. `runs`: how often it was begun, by whichever
    process, other than those that stopped cleanly.

    `begins`, `request` and `text` are empty where no text is kept. `account` is the JSON of an AnswerView. The large ones come
    last: SQLite reads a row from its front.
    """

    id: bytes
    asked_at_ms: int
    state: str
    skill: str
    wanted: str  # The model that was asked for; empty: any.
    privacy: str
    detached: bool
    batch: str
    item: str
    runs: int
    code: str
    reason: str
    node: str
    name: str
    model: str
    tokens_in: int
    tokens_out: int
    first_piece_s: float | None
    seconds: float | None
    begins: str
    request: bytes
    account: bytes
    text: str


_COLUMNS = tuple(field.name for field in fields(Entry))
_LIST = ", ".join(_COLUMNS)
_SHORT = ", ".join(name if name not in ("request", "account") else "x''" for name in _COLUMNS[:-1]) + ", ''"
_SCHEMA = f"""
    CREATE TABLE tasks (
        id BLOB NOT NULL UNIQUE, asked_at_ms INTEGER NOT NULL, state TEXT NOT NULL,
        {", ".join(name for name in _COLUMNS[3:])}
    );
    CREATE INDEX tasks_by_time ON tasks (asked_at_ms);
    CREATE INDEX tasks_of_batches ON tasks (batch, item) WHERE batch <> '';
    CREATE INDEX tasks_open ON tasks (state) WHERE state = 'open';
    PRAGMA user_version = {SCHEMA_VERSION};
"""
_WRITE = (
    f"INSERT INTO tasks ({_LIST}) VALUES ({', '.join('?' * len(_COLUMNS))}) ON CONFLICT (id) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in _COLUMNS[1:])
)


class Journal:
    """One file. `lost` tells people of a file that was set aside; it stays until the process ends."""

    def __init__(self, file: Path, *, keep_days: int, entries_max: int, bytes_max: int = BYTES_MAX) -> None:
        self._file, self._keep_days, self._entries_max, self._bytes_max = file, keep_days, entries_max, bytes_max
        self._connection: sqlite3.Connection | None = None
        self.lost = ""

    # --- Writing ------------------------------------------------------------------------------------------------------

    def write(self, entries: Sequence[Entry]) -> None:
        """Put these in, or in place of what was there, all of them or none; on the disk when this returns."""
        rows = [astuple(entry) for entry in entries]

        def write(db: sqlite3.Connection) -> None:
            db.execute("BEGIN IMMEDIATE")
            try:
                db.executemany(_WRITE, rows)
                db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # It may have rolled back by itself.
                    db.execute("ROLLBACK")
                raise

        self._do(write)

    def prune(self, now_ms: int) -> int:
        """Remove what is too old, too many or too large, oldest first; never what is open. Returns how many went.

        Files that were set aside go when they are too old.
        """
        ended = "FROM tasks WHERE state <> 'open'"
        oldest_ms = now_ms - self._keep_days * _DAY_MS

        def prune(db: sqlite3.Connection) -> int:
            before = db.total_changes
            db.execute(f"DELETE {ended} AND asked_at_ms < ?", (oldest_ms,))
            newest = f"SELECT rowid {ended} ORDER BY asked_at_ms DESC, rowid DESC LIMIT -1 OFFSET ?"
            db.execute(f"DELETE FROM tasks WHERE rowid IN ({newest})", (self._entries_max,))
            while _bytes_used(db) > self._bytes_max:
                some = f"SELECT rowid {ended} ORDER BY asked_at_ms, rowid LIMIT {PRUNED_AT_ONCE}"
                if db.execute(f"DELETE FROM tasks WHERE rowid IN ({some})").rowcount == 0:
                    break
            if db.total_changes > before:
                db.executescript("PRAGMA incremental_vacuum")  # `execute` would free a single page.
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()  # Or what was pruned would stay in the write-ahead log.
            return db.total_changes - before

        with suppress(OSError):
            for path in self.bad_files():
                if max(part.stat().st_mtime for part in _parts(path) if part.exists()) * 1000 < oldest_ms:
                    _remove(path)
        return self._do(prune)

    def close(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    # --- Reading ------------------------------------------------------------------------------------------------------

    def open_entries(self) -> list[Entry]:
        """Those that have not ended, oldest first."""
        return self._read(f"SELECT {_LIST} FROM tasks WHERE state = 'open' ORDER BY asked_at_ms, rowid")

    def newest(self, count: int, batch: str = "") -> list[Entry]:
        """The newest first, without request, account and text; only those of one batch if it is named."""
        where, values = ("WHERE batch = ?", (batch, count)) if batch else ("", (count,))
        return self._read(f"SELECT {_SHORT} FROM tasks {where} ORDER BY asked_at_ms DESC, rowid DESC LIMIT ?", values)

    def find(self, prefix: str) -> list[Entry]:
        """The tasks whose id begins with these hexadecimal digits, at most two."""
        span = (bytes.fromhex(prefix.ljust(32, "0")), bytes.fromhex(prefix.ljust(32, "f")))
        return self._read(f"SELECT {_LIST} FROM tasks WHERE id BETWEEN ? AND ? LIMIT 2", span)

    def of_item(self, batch: str, item: str) -> Entry | None:
        """The latest task of one item of a batch."""
        which = "WHERE batch = ? AND batch <> '' AND item = ? ORDER BY asked_at_ms DESC, rowid DESC LIMIT 1"
        found = self._read(f"SELECT {_LIST} FROM tasks {which}", (batch, item))
        return found[0] if found else None

    def answers(self, batch: str) -> dict[str, str]:
        """The answers under a batch whose texts are kept, by item: the latest of each."""
        which = "WHERE batch = ? AND batch <> '' AND state = 'done' AND length(request) > 0"
        query = f"SELECT item, text FROM tasks {which} ORDER BY asked_at_ms, rowid"
        return dict(self._do(lambda db: db.execute(query, (batch,)).fetchall()))

    def _read(self, query: str, values: tuple[object, ...] = ()) -> list[Entry]:
        return [_entry(row) for row in self._do(lambda db: db.execute(query, values).fetchall())]

    # --- The file -----------------------------------------------------------------------------------------------------

    def _do(self, work: Callable[[sqlite3.Connection], _Found]) -> _Found:
        """Do this with the file open; one that turns out to be corrupt is replaced once by a new one."""
        try:
            try:
                return work(self._opened())
            except sqlite3.DatabaseError as error:
                if not _is_corrupt(error):
                    raise
                self._set_aside(str(error))
                return work(self._opened())
        except (sqlite3.Error, OSError) as error:
            # sqlite3 says it in its own words: "database or disk is full", "disk I/O error", "attempt to write a readonly …".
            raise JournalError(f"{self._file}: {getattr(error, 'strerror', None) or error}") from error

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = self._open()
        return self._connection

    def _open(self) -> sqlite3.Connection:
        # Made here first, so that nobody else can read it at any moment; SQLite gives its side files the same mode.
        os.close(os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        db = sqlite3.connect(self._file, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA secure_delete = ON")  # What was pruned is gone, not just unlisted.
            db.execute(f"PRAGMA max_page_count = {BYTES_HARD_MAX // _PAGE_BYTES}")
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version == 0:
                db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
            elif version != SCHEMA_VERSION:
                raise _Foreign(f"it has version {version}, and this program knows {SCHEMA_VERSION}")
            (sound,) = db.execute("PRAGMA quick_check(1)").fetchone()
            if sound != "ok":
                raise _Foreign(str(sound).partition("\n")[2] or str(sound))
            db.execute(f"SELECT {_LIST} FROM tasks LIMIT 0")
        except BaseException:
            db.close()
            raise
        return db

    def _set_aside(self, cause: str) -> None:
        """Move the file out of the way, under a name that says when."""
        self.close()
        number = 1 + max((_bad_number(path) for path in self.bad_files()), default=0)
        aside = self._file.with_name(f"{self._file.name}.bad-{number}")
        os.replace(self._file, aside)
        for side in _SIDES:
            with suppress(FileNotFoundError):
                os.replace(f"{self._file}{side}", f"{aside}{side}")
        self.lost = f"the journal could not be read ({cause}) and was begun anew; the old one is {aside}"
        for old in self.bad_files()[:-BAD_FILES_KEPT]:
            _remove(old)

    def bad_files(self) -> list[Path]:
        """What was set aside, oldest first."""
        found = self._file.parent.glob(f"{self._file.name}.bad-*")
        return sorted((path for path in found if _bad_number(path)), key=_bad_number)


class _Foreign(sqlite3.DatabaseError):
    """A file that is no journal of this version."""


def _is_corrupt(error: sqlite3.DatabaseError) -> bool:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    # "no such column" and the like: the file has the right version but another shape.
    return isinstance(error, _Foreign) or code in _CORRUPT or (code == sqlite3.SQLITE_ERROR and "no such" in str(error))


def _bytes_used(db: sqlite3.Connection) -> int:
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    (free,) = db.execute("PRAGMA freelist_count").fetchone()
    return int(pages - free) * _PAGE_BYTES


def _parts(path: Path) -> list[Path]:
    """The file and what SQLite has put beside it."""
    return [Path(f"{path}{side}") for side in ("", *_SIDES)]


def _remove(path: Path) -> None:
    for part in _parts(path):
        part.unlink(missing_ok=True)


def _bad_number(path: Path) -> int:
    digits = path.name.rpartition(".bad-")[2]
    return int(digits) if digits.isdecimal() else 0


def _entry(row: tuple[object, ...]) -> Entry:
    values = dict(zip(_COLUMNS, row, strict=True))
    return Entry(**{**values, "detached": bool(values["detached"])})  # type: ignore[arg-type]
