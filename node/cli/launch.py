"""Starts the daemon in the background, follows what it reports, and stops it again if the start is given up."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import node
from node.exits import ExitCode, Failure
from node.store.home import Home

READY_FD_VARIABLE = "SWARM_READY_FD"
OVERRIDES_VARIABLE = "SWARM_OVERRIDES"
PROGRAM = [sys.executable, "-P", "-m", "node.daemon"]
"""-P: a `trio.py` in the folder where somebody types `swarm up` must not become ours."""
STOP_S = 10.0  # Twice what an orderly stop takes on a busy machine; then the whole session is killed.
_REPORT_BYTES_MAX = 1_000_000  # One event is a line of text.
_LAST_LINES = 5


class Launch:
    """A daemon that is starting. Leaving `started` by an exception stops it."""

    def __init__(self, process: subprocess.Popen[bytes], reports: int, home: Home) -> None:
        self._process = process
        self._reports = reports
        self._home = home

    @property
    def pid(self) -> int:
        return self._process.pid

    def events(self, limit_s: float) -> Iterator[dict[str, Any]]:
        """What the daemon reports, until `ready` or `error`. Raises Failure if it dies or takes longer."""
        deadline = time.monotonic() + limit_s
        buffer = b""
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._reports], [], [], left)[0]:
                raise Failure(
                    "start_timeout",
                    f"the node was not ready after {limit_s:.0f} s and was stopped again",
                    hint="Its log may say why: swarm logs. Give it longer with --timeout.",
                )
            chunk = os.read(self._reports, 65_536)
            if not chunk:
                raise self._died()
            buffer += chunk
            if len(buffer) > _REPORT_BYTES_MAX:
                raise Failure("start_failed", "the node reports nonsense about its start")
            *lines, buffer = buffer.split(b"\n")
            for line in lines:
                event = read_event(line)
                yield event
                if event["event"] in ("ready", "error"):
                    return

    def wait(self) -> None:
        """After an `error`: let the daemon end by itself, and see that it does."""
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.stop()

    def stop(self) -> None:
        """End the daemon and everything that it has started."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_S)
        _kill_session(self._process.pid)
        self._process.wait()

    def leave(self) -> None:
        """It is on its own from now on."""
        self._process.returncode = 0  # Or subprocess warns that it is still running, which is what we want.

    def _died(self) -> Failure:
        """The daemon has closed its report without a last word."""
        try:
            code = self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            return Failure("start_failed", "the node stopped reporting before it was ready", hint="See: swarm logs")
        last = _last_lines(self._home.stdio_file)
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        message = f"the node ended {how} before it was ready" + (f":\n{last}" if last else "")
        known = code if code in set(ExitCode) and code != ExitCode.DONE else ExitCode.FAILED
        return Failure("start_failed", message, hint=f"See {self._home.stdio_file}", exit=ExitCode(known))


@contextmanager
def started(home: Home, overrides: Mapping[str, Any], environ: Mapping[str, str]) -> Iterator[Launch]:
    """Start the daemon of a home in a session of its own. An exception in the block, Ctrl-C included, stops it."""
    read_end, write_end = os.pipe()
    launch: Launch | None = None
    try:
        with _interrupts_deferred():
            launch = Launch(_spawn(home, overrides, environ, write_end), read_end, home)
        yield launch
    except BaseException:
        if launch is not None:
            with _interrupts_deferred():  # A second Ctrl-C must not make the first one leave an orphan.
                launch.stop()
        raise
    finally:
        os.close(read_end)
    launch.leave()


def _spawn(
    home: Home, overrides: Mapping[str, Any], environ: Mapping[str, str], reports: int
) -> subprocess.Popen[bytes]:
    """Start the daemon with the writing end of the pipe that it reports to, which is closed here."""
    try:
        with open(_private(home.stdio_file), "wb") as stdio:
            return subprocess.Popen(
                PROGRAM,
                stdin=subprocess.DEVNULL,
                stdout=stdio,
                stderr=stdio,
                cwd=home.state,
                env={**environ, **_importable(environ), **variables(overrides), READY_FD_VARIABLE: str(reports)},
                pass_fds=[reports],
                start_new_session=True,
            )
    except OSError as error:
        raise Failure("start_failed", f"the node cannot be started: {error}") from None
    finally:
        os.close(reports)


def variables(overrides: Mapping[str, Any]) -> dict[str, str]:
    """The environment that carries flags to the daemon."""
    return {OVERRIDES_VARIABLE: json.dumps(overrides)}


def read_event(line: bytes) -> dict[str, Any]:
    """One report of the daemon. Raises Failure if it is none."""
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        raise Failure("start_failed", "the node reports nonsense about its start")
    return event


def _importable(environ: Mapping[str, str]) -> dict[str, str]:
    """Lets the daemon find these packages where we found them: -P and another folder hide a source tree."""
    own = Path(node.__file__).resolve().parent.parent
    if own.name in ("site-packages", "dist-packages"):
        return {}
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(own), environ.get("PYTHONPATH", "")]))}


def _private(file: Path) -> int:
    return os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _last_lines(file: Path) -> str:
    try:
        with open(file, "rb") as opened:
            opened.seek(max(0, os.fstat(opened.fileno()).st_size - 4_096))
            text = opened.read(4_096).decode("utf-8", errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-_LAST_LINES:])


def _kill_session(pid: int) -> None:
    """The daemon leads a session and a process group of its own, so this reaches its models' processes and nobody else."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


@contextmanager
def _interrupts_deferred() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait until the block is over: in between, a process may exist that nobody knows of yet."""
    came: list[tuple[int, Any]] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, lambda number, frame: came.append((number, frame)))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for caught, frame in came[:1]:
        handler = before[signal.Signals(caught)]
        if callable(handler):
            handler(caught, frame)
        else:
            signal.raise_signal(caught)
