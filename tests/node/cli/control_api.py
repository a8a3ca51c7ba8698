"""A control API of canned answers over a real Unix socket, and the views that it answers with."""

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from node.views import (
    AnswerView,
    AttemptView,
    CandidateView,
    ExcludedView,
    ModelView,
    PeerView,
    PingView,
    RouteView,
    SkillView,
    StatusView,
    TaskView,
    TraceView,
)

KESTREL = "12D3KooWJ8vFbbjwDn3aGsCW5pYkP3sQ1UvnZ7HqkbXNbYk4f9Qc"
HERON = "12D3KooWQfZ4K7MB2Dx3TsEcbkYEyd8RAQyVvnZ7HqkbXNbYk4h3rN"
WREN = "12D3KooWWrEn4K7MB2Dx3TsEcbkYEyd8RAQyVvnZ7HqkbXNbYk4wReN"
TASK = "7f21c0de" + "0" * 24


@dataclass(slots=True)
class Answer:
    """What the control API says to one route: a status and JSON, or the raw bytes of a stream.

    `stays_open` keeps the stream open until the client leaves, and then says so in `left`.
    """

    data: Any = None
    status: int = 200
    stream: bytes | None = None
    stays_open: bool = False
    left: threading.Event = field(default_factory=threading.Event)


@dataclass(slots=True)
class Control:
    """A control API. `answers` can be changed by the test; `asked` is what came in."""

    answers: dict[str, Answer]
    asked: list[tuple[str, Any]] = field(default_factory=list)

    def fail(self, route: str, code: str, message: str, status: int = 400) -> None:
        """Let a route refuse, in the shape of the API's errors."""
        error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
        self.answers[route] = Answer({"error": error}, status)

    def events(self, *events: tuple[str, Any]) -> None:
        """Let /ask stream these."""
        parts = [f"event: {name}\ndata: {json.dumps(data)}\n\n".encode() for name, data in events]
        self.answers["POST /ask"] = Answer(stream=b": keep-alive\n\n".join(parts))


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    control: Control


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        self._answer(None)

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.headers["Content-Type"] == "application/json"
        self._answer(json.loads(content))

    def _answer(self, body: Any) -> None:
        route = f"{self.command} {self.path.removeprefix('/swarm/v1')}"
        self.server.control.asked.append((route, body))
        answer = self.server.control.answers[route]
        self.send_response(answer.status)
        self.send_header("Content-Type", "application/json" if answer.stream is None else "text/event-stream")
        self.end_headers()
        self.wfile.write(json.dumps(answer.data).encode() if answer.stream is None else answer.stream)
        if answer.stays_open:
            self.rfile.read(1)
            answer.left.set()

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@contextmanager
def control_api(socket: Path) -> Iterator[Control]:
    """Serve a control API with an answer for everything."""
    control = Control(
        {
            "GET /status": Answer(asdict(status())),
            "GET /peers": Answer({"schema": "swarm.peers/1", "peers": [asdict(peer) for peer in peers()]}),
            "GET /skills": Answer({"schema": "swarm.skills/1", "skills": [asdict(skill) for skill in skills()]}),
            "GET /models": Answer({"schema": "swarm.models/1", "models": [asdict(model) for model in models()]}),
            "POST /models": Answer(asdict(models()[0])),
            "POST /models/remove": Answer(asdict(models()[0])),
            "POST /route": Answer(asdict(route())),
            "POST /join": Answer(asdict(peers()[1])),
            "POST /ping": Answer(asdict(pong())),
            "GET /tasks?count=20": Answer({"schema": "swarm.history/1", "tasks": [asdict(task) for task in tasks()]}),
            "GET /tasks/7f21?wait_s=20.000": Answer(asdict(trace())),
            "GET /tasks/7f21": Answer(asdict(trace())),
            "POST /tasks": Answer({"schema": "swarm.detached/1", "task": TASK, "state": "open"}, 202),
            "POST /shutdown": Answer({"state": "stopping"}, 202),
        }
    )
    control.events(
        ("route", asdict(route())), ("text", {"text": "40"}), ("text", {"text": ".8"}), ("end", asdict(answer()))
    )
    with _Server(str(socket), _Handler) as server:
        server.control = control
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield control
        finally:
            server.shutdown()
            thread.join()


# --- What the node says -----------------------------------------------------------------------------------------------


def peers() -> list[PeerView]:
    return [
        PeerView(
            KESTREL, "kestrel", "self", None, 0.0, ["/ip4/192.168.1.5/tcp/4976"], ["smollm2"], ["chat"], 31.2, 2, 0, 0
        ),
        PeerView(
            HERON, "heron", "connected", 4.2, 1.5, ["/ip4/192.168.1.20/tcp/4976"], ["gemma3"], ["chat"], 22.0, 2, 2, 3,
            path="direct",
        ),
        PeerView(WREN, "wren", "known", None, 41.0, [], ["langid"], ["language"], None, 1, 0, 0),
    ]


def skills() -> list[SkillView]:
    return [
        SkillView("chat", "smollm2", KESTREL, "kestrel", 31.2, 80, 2048, [], "Small talk."),
        SkillView("classify", "langid", WREN, "wren", 900.0, 2, 512, ["de", "en"], "Which language a text is in."),
    ]


def pong() -> PingView:
    return PingView(HERON, "heron", 4.2, "direct", f"/ip4/192.168.1.9/tcp/4976/p2p/{HERON}")


def models() -> list[ModelView]:
    return [
        ModelView("/models/smollm2.gguf", "smollm2", "ready", "", ["chat"], 31.2, 80),
        ModelView("/models/x.gguf", "", "failed", "it is not a GGUF file. Download it again.", [], None, None),
    ]


def status() -> StatusView:
    return StatusView(
        state="ready",
        node=KESTREL,
        name="kestrel",
        version="0.1.0",
        swarm="public",
        pid=4242,
        uptime_s=8040.0,
        addresses=["/ip4/192.168.1.5/tcp/4976/p2p/" + KESTREL],
        api="http://127.0.0.1:7976",
        models=models(),
        peers=peers(),
        asked=3,
        answered=2,
        failed=1,
        served=12,
        refused={"stale": 2, "forged": 1},
        warnings=["no other node has been heard for 10 minutes"],
        rss_bytes=91_000_000,
    )


def route() -> RouteView:
    return RouteView(
        "chat",
        [
            CandidateView(
                HERON,
                "heron",
                "gemma3",
                0.81,
                True,
                True,
                [("first token", "0.08 s"), ("load", "1/2"), ("rtt", "4 ms")],
            ),
            CandidateView(KESTREL, "kestrel", "smollm2", 1.4, True, False, [("first token", "0.2 s"), ("load", "0/2")]),
        ],
        [ExcludedView(WREN, "wren", "does not offer chat")],
    )


def task(state: str = "done", *, code: str = "", reason: str = "", begins: str = "what is 17%") -> TaskView:
    return TaskView(
        TASK, 1_795_000_000_000, state, "chat", "", "swarm", True, "", "", code, reason, HERON, "heron", "gemma3", 9, 20, 0.11,
        0.9, begins,
    )  # fmt: skip


def tasks() -> list[TaskView]:
    private = replace(task(begins=""), task="00c1" + TASK[4:], privacy="local", detached=False)
    lost = replace(task("interrupted"), task="11c1" + TASK[4:], node="", name="", seconds=None)
    return [task("failed", code="exhausted", reason="nobody is left"), private, lost]


def trace(state: str = "done", code: str = "", reason: str = "", text: str = "40.8") -> TraceView:
    """Wren was busy; heron had it in its queue for a moment, and then answered."""
    told = replace(
        answer(code, reason),
        attempts=[
            AttemptView(WREN, "wren", "smollm2", "busy", "all slots are taken", 0.004),
            AttemptView(HERON, "heron", "gemma3", code, reason, 0.8, "retry", 0.005, 0.003, 0.105, 12),
        ],
        routes=[route(), route()],
        gap_s=0.07,
        worker_first_token_s=0.09,
        worker_s=0.78,
    )
    return TraceView(task(state, code=code, reason=reason), "what is 17% of 240?", text, told)


def answer(code: str = "", reason: str = "") -> AnswerView:
    attempts = [
        AttemptView(WREN, "wren", "smollm2", "busy", "all slots are taken", 0.1),
        AttemptView(HERON, "heron", "gemma3", code, reason, 0.8),
    ]
    return AnswerView(
        "7f21c0de", "chat", code, reason, HERON, "heron", "gemma3", "stop", 9, 20, 0.11, 0.9, attempts, [route()]
    )
