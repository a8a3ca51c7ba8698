"""Who may use the API: the node's own user, and no web page that has found its way to loopback."""

import hmac
import re
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from node.api.errors import ApiError, error_response, speaks_openai

TRUSTED = "swarm.trusted"
"""The key of the connection state that `serving` sets for the Unix socket: its file mode has asked who is there.

A connection without it, from whatever server, is treated as TCP.
"""

KEYLESS_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})
_LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")
_ALLOWED_HEADERS = "authorization, content-type"  # Of a preflight that asks for none.
_HEADER_NAMES = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~, -]{1,2048}")  # OpenAI's client sends a dozen of its own.
_TOLD_HEADERS = b"x-swarm-task, x-swarm-node, x-swarm-worker, x-swarm-model"
_PREFLIGHT_S = "600"


@dataclass(frozen=True, slots=True)
class AccessRules:
    """What is asked of a request over TCP.

    `hosts` are further names of this node (behind a proxy), with or without port. `origins` are web origins whose pages
    may use the API, as a browser writes them (`http://localhost:3000`); none by default.
    """

    key: str
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        assert self.key, "an empty key would open the door to everybody"


class Guard:
    """Turns away what the rules do not allow, before any handler runs: Host, then Origin, then key.

    The Host check is against DNS rebinding (as in CVE-2024-28224): a web page whose name resolves to 127.0.0.1 reaches
    the port, but its browser still sends the page's own name.
    """

    def __init__(self, app: ASGIApp, rules: AccessRules) -> None:
        self._app = app
        self._rules = rules
        self._bearer = rules.key.encode()
        self._hosts = frozenset(host.lower() for host in rules.hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["http_version"] not in ("1.0", "1.1"):
            await self._refuse(ApiError(505, "http_version", "Use HTTP/1.1."), scope, receive, send)
            return
        if scope.get("state", {}).get(TRUSTED) is True:
            await self._app(scope, receive, send)
            return

        headers = Headers(scope=scope)
        refusal = self._wrong_host(headers, scope) or self._wrong_origin(headers)
        if refusal is not None:
            await self._refuse(refusal, scope, receive, send)
            return
        origin = headers.get("origin")
        if origin is not None:
            send = _for_origin(origin, send)
            if scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
                await _preflight(headers.get("access-control-request-headers", ""), send)
                return
        refusal = self._wrong_key(headers, scope)
        if refusal is not None:
            await self._refuse(refusal, scope, receive, send)
            return
        await self._app(scope, receive, send)

    async def _refuse(self, error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
        await error_response(error, openai=speaks_openai(scope["path"]))(scope, receive, send)

    def _wrong_host(self, headers: Headers, scope: Scope) -> ApiError | None:
        hosts = headers.getlist("host")
        if len(hosts) == 1 and self._is_own(hosts[0].lower(), scope):
            return None
        return ApiError(
            403,
            "host_not_allowed",
            "The Host header is none of this node's names. Use 127.0.0.1 or localhost, or add the name to api.hosts.",
        )

    def _is_own(self, host: str, scope: Scope) -> bool:
        if host in self._hosts:
            return True
        name, port = _split_port(host)
        if name not in _LOOPBACK_NAMES and name not in self._hosts:
            return False
        server = scope.get("server")
        return port is None or (server is not None and port == str(server[1]))

    def _wrong_origin(self, headers: Headers) -> ApiError | None:
        origins = headers.getlist("origin")
        if all(origin in self._rules.origins for origin in origins) and len(origins) <= 1:
            return None
        return ApiError(
            403,
            "origin_not_allowed",
            f'Web pages may not use this API: the origin "{origins[0][:80]}" is not in api.origins.',
        )

    def _wrong_key(self, headers: Headers, scope: Scope) -> ApiError | None:
        if scope["path"] in KEYLESS_PATHS:
            return None
        scheme, _, key = headers.get("authorization", "").partition(" ")
        given = key.strip().encode()
        if scheme.lower() == "bearer" and hmac.compare_digest(given, self._bearer):
            return None
        said = "The API key is wrong." if given else "The API key is missing."
        return ApiError(
            401,
            "invalid_api_key",
            f"{said} Send `Authorization: Bearer KEY`; `swarm paths` shows the file that holds the key.",
            headers=(("www-authenticate", "Bearer"),),
        )


def _split_port(host: str) -> tuple[str, str | None]:
    name, colon, port = host.rpartition(":")
    if not colon or host.endswith("]"):
        return host, None
    return name, port


def _for_origin(origin: str, send: Send) -> Send:
    """Lets an allowed page read the answer. Never `*`."""

    async def send_with_origin(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", []))
            headers += [
                (b"access-control-allow-origin", origin.encode("latin-1")),
                (b"access-control-expose-headers", _TOLD_HEADERS),
                (b"vary", b"origin"),
            ]
            message = {**message, "headers": headers}
        await send(message)

    return send_with_origin


async def _preflight(wanted: str, send: Send) -> None:
    """Allows whatever headers the page wants to send: who may ask is told by origin and key."""
    allowed = wanted if _HEADER_NAMES.fullmatch(wanted) else _ALLOWED_HEADERS
    headers = [
        (b"access-control-allow-methods", b"GET, POST"),
        (b"access-control-allow-headers", allowed.encode()),
        (b"access-control-max-age", _PREFLIGHT_S.encode()),
    ]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
