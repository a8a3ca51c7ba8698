"""The daemon's log: one bounded file, text or JSON lines, never what users ask.

Code that wants to log a prompt hands it over as `extra={"prompt": text}`; it is written only if [log] prompts is true.
Everything else that users type stays out of messages.
"""

import json
import logging
import os
import sys
import time
from logging.handlers import RotatingFileHandler
from pathlib import Path

from node.settings import LogSettings

LOG_BYTES_MAX = 5_000_000  # Some days of a busy node.
LOG_FILES_KEPT = 1  # And one before it: 10 MB in all.
_PROMPT = "prompt"
_TALKATIVE = ("libp2p", "multiaddr", "async_service", "anycorn", "httpcore", "httpx", "zeroconf")
_OWN_FIELDS = set(logging.makeLogRecord({}).__dict__) | {"message", "asctime"}


def configure(settings: LogSettings, folder: Path) -> None:
    """Send this process's logging to `folder`/node.log, and to stderr if the settings say so. Replaces what was configured.

    A full disk loses log lines and nothing else.
    """
    logging.raiseExceptions = False  # A handler that cannot write would print a traceback for each line.
    form = _JsonLines(settings.prompts) if settings.format == "json" else _TextLines(settings.prompts)
    handlers: list[logging.Handler] = [_PrivateRotatingFile(folder / "node.log")]
    if settings.stderr:
        handlers.append(logging.StreamHandler(sys.stderr))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
        old.close()
    for handler in handlers:
        handler.setFormatter(form)
        root.addHandler(handler)
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    root.setLevel(level)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    logging.captureWarnings(True)


class _PrivateRotatingFile(RotatingFileHandler):
    """Readable by this user alone: addresses of peers and names of models are nobody else's business."""

    def __init__(self, file: Path) -> None:
        super().__init__(file, maxBytes=LOG_BYTES_MAX, backupCount=LOG_FILES_KEPT, encoding="utf-8", errors="replace")

    def _open(self):  # type: ignore[no-untyped-def]
        return open(
            self.baseFilename,
            "a",
            encoding="utf-8",
            errors="replace",
            opener=lambda path, flags: os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600),
        )


class _Lines(logging.Formatter):
    def __init__(self, prompts: bool) -> None:
        super().__init__()
        self._prompts = prompts

    def fields(self, record: logging.LogRecord) -> dict[str, object]:
        """What the caller added with `extra`, without prompts unless they are wanted."""
        return {
            name: value
            for name, value in record.__dict__.items()
            if name not in _OWN_FIELDS and (name != _PROMPT or self._prompts)
        }

    def trouble(self, record: logging.LogRecord) -> str:
        return self.formatException(record.exc_info) if record.exc_info else ""


class _TextLines(_Lines):
    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {name}={_one_line(str(value))}" for name, value in self.fields(record).items())
        line = f"{_utc(record)} {record.levelname:<7} {record.name}: {_one_line(record.getMessage())}{fields}"
        trouble = self.trouble(record)
        return f"{line}\n{trouble}" if trouble else line


class _JsonLines(_Lines):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {"t": _utc(record), "level": record.levelname.lower(), "logger": record.name}
        line |= {"message": record.getMessage()} | self.fields(record)
        if trouble := self.trouble(record):
            line["exception"] = trouble
        return json.dumps(line, ensure_ascii=False, default=str)


def _utc(record: logging.LogRecord) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z"


def _one_line(text: str) -> str:
    """Names of peers reach the log: a line break in one must not forge a line, nor an escape sequence a screen."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
