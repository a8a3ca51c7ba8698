"""A small OpenAI-compatible server on loopback for tests: real HTTP by h11 over trio's sockets, and every way of breaking it."""

import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import h11
import trio

from node.backends import GenerationRequest, Surroundings
from node.backends.contract import running
from node.backends.openai_http import OpenAIHttpBackend
from protocol.parts import Sampling, Turn

SURROUNDINGS = Surroundings(Path("unused"), 1)
MODELS = {"object": "list", "data": [{"id": "text-embedder"}, {"id": "parrot", "max_model_len": 2048}, {"id": "other"}]}


class Exchange:
    """One request, and the means to answer it."""

    def __init__(self, stream: trio.abc.Stream, http: h11.Connection, request: h11.Request, body: bytes) -> None:
        self.stream, self._http = stream, http
        self.method, self.path = request.method.decode(), request.target.decode()
        self.headers = {name.decode(): value.decode() for name, value in request.headers}
        self.body: dict[str, Any] = json.loads(body) if body else {}

    async def begin(self, status: int = 200, kind: str = "text/event-stream") -> None:
        await self._send(h11.Response(status_code=status, headers=[("content-type", kind), ("connection", "close")]))

    async def data(self, payload: bytes) -> None:
        await self._send(h11.Data(payload))

    async def event(self, said: object) -> None:
        await self.data(b"data: " + json.dumps(said).encode() + b"\n\n")

    async def word(self, text: str, finish: str | None = None) -> None:
        await self.delta({"content": text}, finish_reason=finish)

    async def delta(self, delta: object, **more: object) -> None:
        await self.event({"choices": [{"index": 0, "delta": delta, "finish_reason": None, **more}]})

    async def end(self) -> None:
        await self._send(h11.EndOfMessage())

    async def json(self, said: object, status: int = 200) -> None:
        await self.begin(status, "application/json")
        await self.data(json.dumps(said).encode())
        await self.end()

    async def _send(self, event: h11.Event) -> None:
        await self.stream.send_all(self._http.send(event) or b"")


Chat = Callable[[Exchange], Awaitable[None]]


async def parrot(exchange: Exchange) -> None:
    """Answers as a good server does: the last message word by word, counted, within max_tokens; stop strings are ignored."""
    words = exchange.body["messages"][-1]["content"].split(" ")
    most = exchange.body["max_tokens"]
    await exchange.begin()
    await exchange.event({"choices": [{"index": 0, "delta": {"role": "assistant"}, "finish_reason": None}]})
    for number, word in enumerate(words[:most]):
        await exchange.word(word if number == 0 else f" {word}")
        await trio.lowlevel.checkpoint()
    await exchange.word("", "length" if len(words) > most else "stop")
    await exchange.event({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": min(len(words), most)}})
    await exchange.data(b"data: [DONE]\n\n")
    await exchange.end()


@dataclass(eq=False)
class Server:
    """Where it listens, what it does, and what it was asked. `chat` may be replaced at any time."""

    port: int
    chat: Chat = parrot
    models: Any = field(default_factory=lambda: MODELS)
    others: dict[str, tuple[Any, int]] = field(default_factory=dict)  # Path to what is answered there, and with which status.
    asked: list[Exchange] = field(default_factory=list)
    broken_off: trio.Event = field(default_factory=trio.Event)  # A client went away before its answer was complete.

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def serve(self, stream: trio.abc.Stream) -> None:
        async with stream:
            http = h11.Connection(h11.SERVER)
            request, body = None, b""
            while not isinstance(event := http.next_event(), h11.EndOfMessage):
                if event is h11.NEED_DATA:
                    http.receive_data(await stream.receive_some(65_536))
                elif isinstance(event, h11.Request):
                    request = event
                elif isinstance(event, h11.Data):
                    body += event.data
                else:
                    return
            assert request is not None
            exchange = Exchange(stream, http, request, body)
            self.asked.append(exchange)
            try:
                if exchange.path == "/v1/models":
                    await exchange.json(self.models)
                elif exchange.path == "/v1/chat/completions":
                    await self.chat(exchange)
                elif exchange.path in self.others:
                    await exchange.json(*self.others[exchange.path])
                else:
                    await exchange.begin(404, "text/plain")
                    await exchange.end()
            except trio.BrokenResourceError:
                self.broken_off.set()


@asynccontextmanager
async def serving(chat: Chat = parrot, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """A server for the length of the block."""
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listeners[0].socket.getsockname()[1]
        server = Server(port, chat)

        async def serve(stream: trio.SocketStream) -> None:
            await server.serve(trio.SSLStream(stream, tls, server_side=True, https_compatible=True) if tls else stream)

        nursery.start_soon(partial(trio.serve_listeners, serve, listeners))
        yield server
        nursery.cancel_scope.cancel()


def request(text: str = "one two three", *, skill: str = "chat", tokens_max: int = 50) -> GenerationRequest:
    return GenerationRequest(skill, "parrot", (Turn("user", text),), tokens_max, Sampling(seed=7), ())


@asynccontextmanager
async def backend_and_server() -> AsyncIterator[tuple[OpenAIHttpBackend, Server]]:
    async with serving() as server, running(backend := OpenAIHttpBackend(server.url, SURROUNDINGS)):
        yield backend, server
