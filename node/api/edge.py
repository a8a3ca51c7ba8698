"""The outermost layer: reads a request to its end before it is answered, and turns a bug into a clean error."""

import logging
import secrets

import trio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from node.api.errors import ApiError, error_response, speaks_openai

LEFTOVER_BYTES_MAX = 16 * 1024 * 1024  # A body far over the limit; a client that sends more may see a reset connection.
LEFTOVER_S_MAX = 2.0  # How long a refused client may take to finish sending.

log = logging.getLogger(__name__)


class Edge:
    """Drains what is left of a refused body: a socket closed over unread bytes resets, unread answers with it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        read_to_end = False
        started = False

        async def receive_counting() -> Message:
            nonlocal read_to_end
            message = await receive()
            read_to_end = read_to_end or not message.get("more_body", False)
            return message

        async def send_after_drain(message: Message) -> None:
            nonlocal started
            if not started:
                started = True
                if not read_to_end:
                    await _drain(receive_counting)
            # Within the last send anycorn says that the client is gone, and only then begins to count how long the connection is
            # idle: whoever is cancelled by that word would leave it uncounted. A send takes no longer than `serving` lets it; in
            # HTTP/2, where all that is said is that it is not spoken, it takes as long as the client likes.
            is_last = message["type"] == "http.response.body" and not message.get("more_body", False)
            with trio.CancelScope(shield=is_last and read_to_end and scope["http_version"] != "2"):
                await send(message)

        try:
            await self._app(scope, receive_counting, send_after_drain)
        except Exception as bug:
            error = internal_error(bug)
            if not started:
                response = error_response(error, openai=speaks_openai(scope["path"]))
                await response(scope, receive_counting, send_after_drain)


def internal_error(bug: Exception) -> ApiError:
    """Logs a bug with its traceback under a fresh id, and says only the id to the client."""
    incident = secrets.token_hex(4)
    log.error("error %s while answering a request", incident, exc_info=bug)
    return ApiError(500, "bug", f"A bug in this node (error {incident}). Its log tells more: swarm logs")


async def _drain(receive: Receive) -> None:
    drained = 0
    with trio.move_on_after(LEFTOVER_S_MAX):
        while drained <= LEFTOVER_BYTES_MAX:
            message = await receive()
            if not message.get("more_body", False):
                return
            drained += len(message.get("body", b""))
