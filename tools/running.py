"""Runs the programs that the set-up needs: their output goes to a log, their last words into the error."""

import contextlib
import os
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

LAST_LINES = 15  # Enough for a compiler's complaint or pip's, not a screenful.


class SetupError(Exception):
    """A step failed. The message says which, what was said last, and what to do; nothing half-done is believed later."""


def run(
    command: Sequence[str],
    log: Path,
    what: str,
    on_line: Callable[[str], None] = lambda line: None,
    env: Mapping[str, str] | None = None,
) -> None:
    """Run to the end, handing every line of output to `on_line`. Raises SetupError with the last lines if it fails."""
    last: deque[str] = deque(maxlen=LAST_LINES)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8", errors="replace") as written:
        written.write(f"\n$ {' '.join(command)}\n")
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            encoding="utf-8",
            errors="replace",
            start_new_session=True,  # A group of its own, so that an interruption ends pip's compilers with it.
        )
        assert process.stdout is not None
        try:
            for line in process.stdout:
                written.write(line)
                if line.strip():
                    last.append(line.rstrip())
                on_line(line)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            raise
        finally:
            process.stdout.close()
            code = process.wait()
    if code != 0:
        raise SetupError(
            f"{what} failed (exit code {code}). Its last lines:\n\n"
            + "\n".join(f"    {line}" for line in last)
            + f"\n\nAll of it: {log}"
        )
