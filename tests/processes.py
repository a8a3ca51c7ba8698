"""Real nodes as processes of this machine, for end-to-end tests and benchmarks: own homes, own ports, ended with the block."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
START_S = 60.0  # A safety net for loaded machines; a start takes about a second.


class StartFailed(Exception):
    """The daemon ended before it was ready; `report` is what it said."""

    def __init__(self, report: dict[str, Any], exit: int | None) -> None:
        super().__init__(f"{report} (exit {exit})")
        self.report, self.exit = report, exit


class RealNode:
    """One daemon. `models` are references; `join` addresses of other nodes; `inside` is what its command begins with."""

    def __init__(
        self, home: Path, name: str, *, models: tuple[str, ...] = (), join: tuple[str, ...] = (),
        inside: tuple[str, ...] = (), **more: object,
    ):  # fmt: skip
        self.home, self.name = home, name
        home.mkdir(parents=True, exist_ok=True)
        overrides = {
            "node.name": name,
            "node.listen": ["/ip4/127.0.0.1/tcp/0"],
            "node.mdns": False,
            "node.upnp": False,
            "node.join": list(join),
            "api.listen": "127.0.0.1:0",
            "offer.models": list(models),
            "log.level": "info",
            **more,
        }
        reading, writing = os.pipe()
        environment = {key: value for key, value in os.environ.items() if not key.startswith("SWARM_")}
        environment |= {
            "SWARM_HOME": str(home),
            "SWARM_OVERRIDES": json.dumps(overrides),
            "SWARM_READY_FD": str(writing),
            "PYTHONPATH": str(ROOT),
        }
        with (home / "stderr.txt").open("wb") as stderr:
            self.process = subprocess.Popen(
                [*inside, sys.executable, "-m", "node.daemon"],
                env=environment,
                pass_fds=(writing,),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
            )
        os.close(writing)
        self._reports = os.fdopen(reading, encoding="utf-8")
        self.reports: list[dict[str, Any]] = []
        self.addresses: tuple[str, ...] = ()
        self.api = ""

    def wait_ready(self) -> "RealNode":
        """Until the node is ready, with its models. Raises StartFailed."""
        self.wait_report("ready")
        return self

    def wait_report(self, event: str) -> None:
        """Until the node reports this. Raises StartFailed."""
        for line in self._reports:
            report = json.loads(line)
            self.reports.append(report)
            if report["event"] == "listening":
                self.addresses = tuple(report["addresses"])
            if report["event"] == "ready":
                self.api = report["api"]
            if report["event"] == "error":
                raise StartFailed(report, self.process.wait(START_S))
            if report["event"] == event:
                return
        raise StartFailed({"stderr": (self.home / "stderr.txt").read_text()}, self.process.wait(START_S))

    @property
    def key(self) -> str:
        return (self.home / "api.key").read_text().strip()

    def control(self, method: str, path: str, body: object = None) -> Any:
        """One call of the control API over the Unix socket."""
        connection = _UnixConnection(self.home / "control.sock")
        headers = {"content-type": "application/json"} if body is not None else {}
        connection.request(method, f"/swarm/v1/{path}", json.dumps(body) if body is not None else None, headers)
        response = connection.getresponse()
        data = response.read()
        connection.close()
        answer = json.loads(data) if data else {}
        if response.status >= 400:
            raise ControlError(response.status, answer)
        return answer

    def metrics(self) -> str:
        """The page that Prometheus reads."""
        connection = _UnixConnection(self.home / "control.sock")
        connection.request("GET", "/metrics")
        page = connection.getresponse().read().decode()
        connection.close()
        return page

    def ask(self, text: str | None, **wishes: object) -> tuple[str, dict[str, Any]]:
        """The whole answer over the control API, and how it ended."""
        parts = []
        for event, data in self.stream(text, **wishes):
            if event == "text":
                parts.append(data["text"])
            elif event == "end":
                return "".join(parts), data
        raise AssertionError("the stream ended without an end")

    def plan(self, body: dict[str, Any]) -> dict[str, Any]:
        """How a plan ended."""
        for event, data in self._events("plans", body):
            if event == "end":
                found: dict[str, Any] = data
                return found
        raise AssertionError("the stream ended without an end")

    def stream(self, text: str | None, **wishes: object) -> Iterator[tuple[str, dict[str, Any]]]:
        """The events of one task as they come."""
        return self._events("ask", {"text": text, **wishes})

    def _events(self, path: str, body: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        connection = _UnixConnection(self.home / "control.sock")
        connection.request("POST", f"/swarm/v1/{path}", json.dumps(body), {"content-type": "application/json"})
        try:
            response = connection.getresponse()
            if response.status != 200:
                raise ControlError(response.status, json.loads(response.read()))
            yield from server_sent_events(response)
        finally:
            connection.close()

    def wait_for(self, seen: str, count: int = 1) -> None:
        """Until this many peers offer a skill."""
        self.wait_until(lambda: sum(offer["skill"] == seen for offer in self.control("GET", "skills")["skills"]) >= count)

    def wait_until(self, true: Callable[[], bool]) -> None:
        """Ask again and again; the limit is only for tests that fail."""
        until = time.monotonic() + START_S
        while not true():
            assert time.monotonic() < until, f"{self.name} waited in vain"
            time.sleep(0.02)

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        self.process.send_signal(how)

    def stop(self) -> int:
        """A clean end. Returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
        code = self.process.wait()
        self._reports.close()
        return code


class ControlError(Exception):
    """An answer of the control API that is not a success."""

    def __init__(self, status: int, answer: dict[str, Any]) -> None:
        super().__init__(f"{status}: {answer}")
        self.status, self.answer = status, answer


@contextmanager
def real_nodes(folder: Path) -> Iterator["Starter"]:
    """Starts nodes on demand; ends them all."""
    starter = Starter(folder)
    try:
        yield starter
    finally:
        for node in starter.nodes:
            node.stop()


class Starter:
    """Makes nodes in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.nodes: list[RealNode] = []

    def begin(self, name: str, **settings: Any) -> RealNode:
        """A node that is not ready yet."""
        node = RealNode(self.folder / name, name, **settings)
        self.nodes.append(node)
        return node

    def start(self, name: str, **settings: Any) -> RealNode:
        return self.begin(name, **settings).wait_ready()


def server_sent_events(response: http.client.HTTPResponse) -> Iterator[tuple[str, dict[str, Any]]]:
    """Event name and JSON data, as they come. Comments are skipped."""
    event = "message"
    for raw in response:
        line = raw.decode().rstrip("\r\n")
        if line.startswith("event: "):
            event = line[7:]
        elif line.startswith("data: ") and line != "data: [DONE]":
            yield event, json.loads(line[6:])
            event = "message"


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=START_S)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(START_S)
        self.sock.connect(self._path)
