"""One OpenAI-compatible endpoint: each request on a connection of its own, and every failure a BackendError with a next step.

Plain h11 over trio's streams. httpx leaves half-read generators behind when a stream is left early, which is what cancelling
and stop strings do all the time, and costs a third of a second to import. There is no proxy support, and redirects are not
followed: they would take the key elsewhere.
"""

import json
import os
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

import h11
import trio

from node.backends import BackendError
from node.backends.openai_stream import error_text, parse_object

KEY_VARIABLE = "SWARM_OPENAI_KEY"
CONNECT_S_MAX = 10.0
SILENCE_S_MAX = 120.0  # Between two pieces, and before the first: a server may load its model from disk first.
BODY_BYTES_MAX = 4 << 20  # A list of models. The largest public ones have some 400 KB.
_CHUNK_BYTES = 65_536


@dataclass(slots=True)
class Response:
    """A response whose body is read as it comes."""

    status: int
    stream: trio.abc.Stream
    http: h11.Connection

    async def receive(self) -> bytes:
        """The next part of the body; empty at its end."""
        while True:
            event = self.http.next_event()
            if event is h11.NEED_DATA:
                with trio.fail_after(SILENCE_S_MAX):
                    self.http.receive_data(bytes(await self.stream.receive_some(_CHUNK_BYTES)))
            elif isinstance(event, h11.Data):
                return bytes(event.data)
            else:
                return b""


class Endpoint:
    """Where a server is and what it takes to be let in. `url` is fit to be shown: it never holds the key."""

    def __init__(self, url: str) -> None:
        """Raises BackendError for what is no URL, without repeating it: it may hold a key."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        if not host or parts.scheme not in ("http", "https") or any(c <= " " for c in url):
            raise BackendError("openai_http needs a URL such as http://127.0.0.1:11434/v1#llama3", retryable=False)
        shown = f"[{host}]" if ":" in host else host
        self._authority = f"{shown}:{port}" if port else shown
        self._path = parts.path.rstrip("/") or "/v1"
        self._host, self._port = host, port or (443 if parts.scheme == "https" else 80)
        self._tls = parts.scheme == "https"
        self._key = unquote(parts.password or parts.username or "") or os.environ.get(KEY_VARIABLE, "")
        self.url = f"{parts.scheme}://{self._authority}{self._path}"
        self.fragment = unquote(parts.fragment)

    @property
    def key_in_the_clear(self) -> bool:
        """Whether the key would travel unencrypted beyond this machine."""
        return bool(self._key) and not self._tls and self._host not in ("127.0.0.1", "localhost", "::1")

    async def call(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """The JSON object at this path, or that answers this body. Raises BackendError."""
        async with self.open("POST" if body else "GET", path, body) as response:
            return await self._object(response)

    @asynccontextmanager
    async def open(self, method: str, path: str, body: dict[str, Any] | None) -> AsyncIterator[Response]:
        """A response with status 200. Raises BackendError, also for what goes wrong inside of the block."""
        with self._honest():
            stream = await self._connect()
            try:
                response = await self._ask(stream, method, path, body)
                if response.status != 200:
                    raise await self._refusal(response)
                yield response
            finally:
                # Not a polite end: a server that still talks is to stop now.
                await trio.aclose_forcefully(stream)

    async def _connect(self) -> trio.abc.Stream:
        with trio.move_on_after(CONNECT_S_MAX):
            if not self._tls:
                return await trio.open_tcp_stream(self._host, self._port)
            stream = await trio.open_ssl_over_tcp_stream(
                self._host, self._port, https_compatible=True, ssl_context=ssl.create_default_context()
            )
            try:
                await stream.do_handshake()
            except BaseException:
                await trio.aclose_forcefully(stream)
                raise
            return stream
        raise BackendError(f"{self.url} cannot be reached within {CONNECT_S_MAX:.0f} s.")

    async def _ask(self, stream: trio.abc.Stream, method: str, path: str, body: dict[str, Any] | None) -> Response:
        data = b"" if body is None else json.dumps(body).encode("utf-8", "replace")
        headers = [("Host", self._authority), ("User-Agent", "starlings"), ("Accept-Encoding", "identity")]
        headers += [("Connection", "close"), ("Content-Length", str(len(data))), ("Content-Type", "application/json")]
        if self._key:
            headers.append(("Authorization", f"Bearer {self._key}"))
        http = h11.Connection(h11.CLIENT)
        request = h11.Request(method=method, target=self._path + path, headers=headers)
        wire = [http.send(request), http.send(h11.Data(data)) if data else b"", http.send(h11.EndOfMessage())]
        with trio.fail_after(SILENCE_S_MAX):
            await stream.send_all(b"".join(part for part in wire if part))
            while True:
                event = http.next_event()
                if event is h11.NEED_DATA:
                    http.receive_data(bytes(await stream.receive_some(_CHUNK_BYTES)))
                elif isinstance(event, h11.Response):
                    return Response(event.status_code, stream, http)
                elif not isinstance(event, h11.InformationalResponse):
                    raise BackendError(f"{self.url} broke off before it answered.")

    @contextmanager
    def _honest(self) -> Iterator[None]:
        """Whatever a connection may raise, in words."""
        try:
            yield
        except (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError) as error:
            cause = error.__cause__
            if isinstance(cause, ssl.SSLError):
                raise BackendError(
                    f"{self.url}: no secure connection ({cause.reason or cause}).", retryable=False
                ) from error
            raise BackendError(f"{self.url} broke off: {str(error) or 'the connection was closed'}.") from error
        except trio.TooSlowError as error:
            raise BackendError(f"{self.url} was silent for {SILENCE_S_MAX:.0f} s.") from error
        except h11.LocalProtocolError as error:
            # A key or a path with characters that no header may hold; h11's own words would repeat it.
            raise BackendError(
                f"{self.url}: the URL or the key holds characters that HTTP cannot send.", retryable=False
            ) from error
        except OSError as error:
            raise BackendError(f"Nothing answers at {self.url} ({error.strerror or error}); is it running?") from error

    async def _refusal(self, response: Response) -> BackendError:
        status = response.status
        if status in (401, 403):
            return BackendError(f"{self.url} does not accept the key; set {KEY_VARIABLE}.", retryable=False)
        try:
            reason = self.clean(error_text(await self._object(response)))
        except BackendError:
            reason = ""
        if 300 <= status < 400 or (status == 404 and not reason):
            return BackendError(
                f"{self.url} is no OpenAI-compatible endpoint ({status}); check the address.", retryable=False
            )
        # What is wrong with a request stays wrong; what is wrong with a server may pass.
        passing = status in (408, 409, 425, 429) or status >= 500
        return BackendError(f"{self.url} answers {status}: {reason}", retryable=passing)

    async def _object(self, response: Response) -> dict[str, Any]:
        body = b""
        while chunk := await response.receive():
            body += chunk
            if len(body) > BODY_BYTES_MAX:
                raise BackendError(f"{self.url} answers without end.", retryable=False)
        try:
            return parse_object(body)
        except BackendError as error:
            raise BackendError(f"{self.url} is no OpenAI-compatible endpoint: {error}.", retryable=False) from error

    def clean(self, text: str) -> str:
        """Servers like to repeat the key that they refuse."""
        return text.replace(self._key, "…") if self._key else text
