"""Talks to the node: HTTP over its Unix socket, with the standard library alone."""

import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from node.exits import ExitCode, Failure, exit_for
from node.store.home import Home

CONNECT_S = 5.0
ANSWER_S = 30.0  # Everything but loading a model and asking is answered from memory.
SILENCE_S = 90.0  # A stream that works sends keep-alives more often than this.
_ANSWER_BYTES_MAX = 16_000_000  # A thousand peers with all their addresses are about 2 MB.
_LINE_BYTES_MAX = _ANSWER_BYTES_MAX  # One event: a routing with a thousand candidates is 300 kB, the end of a plan may be more.
_EVENT_LINES_MAX = 1_000
_HINTS = {
    "no_capable_peer": "See what there is with: swarm skills",
    "unknown_peer": "See who is here with: swarm peers",
    "deadline_exceeded": "Give it more time with --deadline, or ask for a shorter answer with --tokens-max.",
    "unknown_task": "See what was asked with: swarm history",
    "ambiguous_task": "Write more of its digits; `swarm history --json` shows whole ids.",
    "not_detached": "Ask without --detach, or look at: swarm doctor",
    "journal_unreadable": "See: swarm doctor",
    "join_failed": "The other node shows its addresses with: swarm status",
    "too_many_tasks": "Wait for some to finish.",
    "stream_broken": "Ask again; what was printed is all that arrived.",
}


class ControlClient:
    """The control API of the node of one home. Every method raises Failure with a sentence for people."""

    def __init__(self, home: Home, timeout_s: float | None = None) -> None:
        self._home = home
        self._timeout_s = timeout_s

    def get(self, path: str) -> Any:
        return self._call("GET", path, None, ANSWER_S)

    def post(self, path: str, body: dict[str, Any], *, wait_s: float = ANSWER_S) -> Any:
        return self._call("POST", path, body, wait_s)

    def stream(self, path: str, body: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        """The named events of a stream with their data. Leaving the loop early closes the connection."""
        connection, response = self._send("POST", path, body, SILENCE_S)
        try:
            yield from _events(response)
        except TimeoutError:
            raise self._silent() from None
        except (OSError, http.client.HTTPException):
            raise _cut_off() from None
        finally:
            connection.close()

    def _call(self, method: str, path: str, body: dict[str, Any] | None, wait_s: float) -> Any:
        connection, response = self._send(method, path, body, wait_s)
        try:
            content = response.read(_ANSWER_BYTES_MAX)
        except TimeoutError:
            raise self._silent() from None
        except (OSError, http.client.HTTPException):
            raise _cut_off() from None
        finally:
            connection.close()
        return _decoded(content) if content else None

    def _send(
        self, method: str, path: str, body: dict[str, Any] | None, wait_s: float
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        connection = _Connection(self._home.socket)
        try:
            self._connect(connection)
            assert connection.sock is not None
            connection.sock.settimeout(self._timeout_s or wait_s)
            content = None if body is None else json.dumps(body).encode()
            connection.request(method, f"/swarm/v1{path}", content, {"Content-Type": "application/json"})
            response = connection.getresponse()
            if response.status >= 400:
                raise _told(response)
        except TimeoutError:
            connection.close()
            raise self._silent() from None
        except (OSError, http.client.HTTPException):
            connection.close()
            raise _cut_off() from None
        except BaseException:
            connection.close()
            raise
        return connection, response

    def _connect(self, connection: "_Connection") -> None:
        """Connects, or says why not. The lock knows whether a node runs, and where its socket is if not where we think."""
        self._home.check_runtime()
        try:
            connection.connect()
        except (FileNotFoundError, ConnectionRefusedError):
            from node.store import lock

            holder = lock.held(self._home)
            if holder is None:
                raise NotRunning() from None
            if holder.socket != self._home.socket:
                connection.path = holder.socket
                try:
                    return connection.connect()
                except OSError:
                    pass
            raise _unready(holder.pid) from None
        except PermissionError:
            raise Failure(
                "not_allowed",
                f"{self._home.socket} belongs to another user",
                hint="Ask as the user that runs the node.",
                exit=ExitCode.REFUSED,
            ) from None

    def _silent(self) -> Failure:
        return Failure("timeout", "the node did not answer in time", hint="Look at its log with: swarm logs")


class NotRunning(Failure):
    """Nobody holds this home."""

    def __init__(self) -> None:
        super().__init__(
            "not_running", "this node is not running.", hint="Start it with: swarm up", exit=ExitCode.NOT_RUNNING
        )


def read_events(lines: Iterator[bytes]) -> Iterator[tuple[str, str]]:
    """The events of a text/event-stream: name and data. An event that the end cuts off is no event."""
    name = "message"
    data: list[str] = []
    for line in lines:
        text = line.decode("utf-8", errors="replace").rstrip("\r\n")
        if not text:
            if data:
                yield name, "\n".join(data)
            name, data = "message", []
            continue
        field, _, value = text.partition(":")  # A comment begins with a colon: a field without a name.
        value = value.removeprefix(" ")
        if field == "event":
            name = value
        elif field == "data" and len(data) < _EVENT_LINES_MAX:
            data.append(value)


def _events(response: http.client.HTTPResponse) -> Iterator[tuple[str, Any]]:
    for name, data in read_events(_bounded_lines(response)):
        yield name, _decoded(data.encode())


def _bounded_lines(response: http.client.HTTPResponse) -> Iterator[bytes]:
    while line := response.readline(_LINE_BYTES_MAX):
        yield line


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.sock.settimeout(CONNECT_S)
            self.sock.connect(str(self.path))
        except OSError as error:
            self.sock.close()
            if "too long" in str(error):
                raise Failure(
                    "home_unusable",
                    f"the path of the socket is too long: {self.path}",
                    hint="Set SWARM_HOME to a shorter path.",
                ) from None
            raise


def _decoded(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        raise Failure(
            "bad_answer",
            "the node's answer cannot be read",
            hint="If it was upgraded while it ran, restart it: swarm down && swarm up",
        ) from None


def _told(response: http.client.HTTPResponse) -> Failure:
    """What the node says is wrong."""
    try:
        error = json.loads(response.read(_ANSWER_BYTES_MAX))["error"]
        code, message = error.get("code") or error.get("type") or "failed", error["message"]
    except (ValueError, LookupError, TypeError, AttributeError):
        code, message = f"http_{response.status}", f"the node answered with HTTP {response.status} {response.reason}"
    return task_failure(str(code), str(message))


def task_failure(code: str, message: str) -> Failure:
    """The failure for a code of the control API, with the next step."""
    return Failure(code, message, hint=_HINTS.get(code, ""), exit=exit_for(code))


def _unready(pid: int) -> Failure:
    who = f"process {pid}" if pid else "it"
    return Failure(
        "not_answering",
        f"the node is starting or stopping, or is stuck ({who} holds this home but does not answer)",
        hint="Look at its log with: swarm logs",
        exit=ExitCode.NOT_RUNNING,
    )


def _cut_off() -> Failure:
    return Failure("connection_lost", "the node went away before it had answered", hint="See: swarm status, swarm logs")
