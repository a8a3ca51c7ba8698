"""Work for a client that waits: given up when the client leaves, and ended with a word when this node stops."""

from collections.abc import Awaitable, Callable

import trio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from node.api.edge import internal_error
from node.api.errors import ApiError, error_response, failed_task, speaks_openai
from protocol import errors as codes

FAREWELL_S = 1.0  # For telling a client that this node stops; one that does not read must not delay it.


async def while_connected(
    receive: Receive, work: Callable[[], Awaitable[None]], say_goodbye: Callable[[], Awaitable[None]]
) -> None:
    """Runs `work` until it returns or the client leaves, which cancels it. `work` must not raise.

    When the server itself stops, `say_goodbye` gets a moment to tell the client. The body must have been read.
    """
    gone = done = False

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        try:
            await work()
            done = True
        finally:
            # Not `except Cancelled`: whoever works in a nursery of its own is cancelled by a group.
            if not done and not gone:
                with trio.CancelScope(shield=True), trio.move_on_after(FAREWELL_S):
                    await say_goodbye()
        nursery.cancel_scope.cancel()


class Awaited:
    """A response that is worked out while the client waits for it."""

    def __init__(self, work: Callable[[], Awaitable[Response]]) -> None:
        self._work = work

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        openai = speaks_openai(scope["path"])

        async def run() -> None:
            try:
                response = await self._work()
            except ApiError as error:
                response = error_response(error, openai=openai)
            except Exception as bug:
                response = error_response(internal_error(bug), openai=openai)
            await response(scope, receive, send)

        async def say_goodbye() -> None:
            await error_response(stopping(), openai=openai)(scope, receive, send)

        await while_connected(receive, run, say_goodbye)


def stopping() -> ApiError:
    """What a client hears whose answer is cut off because this node stops."""
    return failed_task(codes.SHUTTING_DOWN, codes.SHUTTING_DOWN.meaning, None)
