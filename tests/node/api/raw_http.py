"""HTTP by hand, for requests that no decent client would send and answers read byte by byte."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h11
import trio

from node.api.access import AccessRules
from node.api.app import make_app
from node.api.serving import serve
from tests.node.api.scripted_desk import ScriptedDesk, without_journal

KEY = "sk-test-0123456789"
Headers = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error object; it always has its four fields."""
        error = self.json["error"]
        assert set(error) == {"message", "type", "param", "code"}
        return error


class Conversation:
    """One connection."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._h11 = h11.Connection(h11.CLIENT)

    async def send(
        self, method: str, path: str, headers: Headers, body: bytes | None = None, *, chunked: bool = False
    ) -> None:
        """Send a request; a chunked one in chunks of 64 KiB."""
        framing: list[tuple[str, str]] = []
        if body is not None:
            framing = [("transfer-encoding", "chunked")] if chunked else [("content-length", str(len(body)))]
        request = h11.Request(method=method, target=path, headers=[*headers, *framing])
        await self.send_events(request)
        for start in range(0, len(body or b""), 65_536):
            await self.send_events(h11.Data(data=(body or b"")[start : start + 65_536]))
        await self.send_events(h11.EndOfMessage())

    async def send_events(self, *events: Any) -> None:
        for event in events:
            await self.stream.send_all(self._h11.send(event) or b"")

    async def begin(self) -> tuple[int, dict[str, str]]:
        """The status and headers of the answer."""
        event = await self._next()
        assert isinstance(event, h11.Response), event
        headers = {name.decode(): value.decode() for name, value in event.headers}
        return event.status_code, headers

    async def chunk(self) -> bytes:
        """The next of the body; empty at its end. Raises h11.RemoteProtocolError if it is cut off."""
        event = await self._next()
        if isinstance(event, h11.EndOfMessage):
            return b""
        assert isinstance(event, h11.Data), event
        return bytes(event.data)

    async def until(self, text: bytes) -> bytes:
        """The body up to a chunk that contains this text."""
        received = b""
        while text not in received:
            chunk = await self.chunk()
            assert chunk, received
            received += chunk
        return received

    async def rest(self) -> bytes:
        """What is left of the body."""
        received = []
        while chunk := await self.chunk():
            received.append(chunk)
        return b"".join(received)

    async def reply(self) -> Reply:
        status, headers = await self.begin()
        body = await self.rest()
        if self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE:
            self._h11.start_next_cycle()
        return Reply(status, headers, body)

    async def _next(self) -> Any:
        with trio.fail_after(20):
            while (event := self._h11.next_event()) is h11.NEED_DATA:
                self._h11.receive_data(await self.stream.receive_some(65_536))
        return event


@dataclass(frozen=True, slots=True)
class Served:
    """A running API. Requests that are not told otherwise come over TCP, with the right Host and key."""

    desk: ScriptedDesk
    port: int
    socket: Path
    stop: trio.CancelScope
    stopped: trio.Event

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def good(self) -> list[tuple[str, str]]:
        return [("host", f"127.0.0.1:{self.port}"), ("authorization", f"Bearer {KEY}")]

    @asynccontextmanager
    async def connected(self, *, unix: bool = False) -> AsyncIterator[Conversation]:
        stream = await (trio.open_unix_socket(self.socket) if unix else trio.open_tcp_stream("127.0.0.1", self.port))
        async with stream:
            yield Conversation(stream)

    async def get(self, path: str, headers: Headers | None = None, *, unix: bool = False, method: str = "GET") -> Reply:
        async with self.connected(unix=unix) as conversation:
            await conversation.send(method, path, self._headers(headers, unix))
            return await conversation.reply()

    async def post(
        self, path: str, body: Any, headers: Headers | None = None, *, unix: bool = False, chunked: bool = False
    ) -> Reply:
        """Bytes go as they are, anything else as JSON."""
        async with self.connected(unix=unix) as conversation:
            await self.begin_post(conversation, path, body, headers, unix=unix, chunked=chunked)
            return await conversation.reply()

    async def begin_post(
        self,
        conversation: Conversation,
        path: str,
        body: Any,
        headers: Headers | None = None,
        *,
        unix: bool = False,
        chunked: bool = False,
    ) -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        every = [*self._headers(headers, unix), ("content-type", "application/json")]
        await conversation.send("POST", path, every, raw, chunked=chunked)

    def _headers(self, headers: Headers | None, unix: bool) -> Headers:
        if headers is not None:
            return headers
        return [("host", "swarm")] if unix else self.good


@asynccontextmanager
async def served(folder: Path, desk: ScriptedDesk | None = None, **rules: Any) -> AsyncIterator[Served]:
    """The whole API on a free port and a socket in `folder`."""
    desk = desk or ScriptedDesk()
    app = make_app(desk, AccessRules(KEY, **rules), *without_journal(desk), deadline_s=60.0)  # type: ignore[arg-type]
    path = folder / "control.sock"
    scope = trio.CancelScope()
    stopped = trio.Event()

    async def run(*, task_status: trio.TaskStatus[int]) -> None:
        with scope:
            await serve(app, ("127.0.0.1", 0), path, task_status=task_status)
        stopped.set()

    async with desk.opened(), trio.open_nursery() as nursery:
        port = await nursery.start(run)
        yield Served(desk, port, path, scope, stopped)
        scope.cancel()


def events(body: bytes) -> list[tuple[str, Any]]:
    """The server-sent events of a body: (event, data). Data that is not JSON stays text."""
    found = []
    for block in body.decode().split("\n\n"):
        name, data = "", ""
        for line in block.split("\n"):
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                data = line.removeprefix("data: ")
        if data:
            found.append((name, data if data == "[DONE]" else json.loads(data)))
    return found
