"""Sends what a task yields as server-sent events while it comes, merged where texts have waited together."""

from collections.abc import Sequence
from itertools import groupby
from typing import Protocol

import trio
from starlette.types import Message, Receive, Scope, Send

from node.api.edge import internal_error
from node.api.errors import ApiError, error_response, failed_task, speaks_openai
from node.api.waiting import stopping, while_connected
from node.desk import AskEnded, AskItem, AskText, Desk
from protocol import errors as codes
from swarm.values import Task

KEEP_ALIVE_S = 10.0  # Clients and proxies give a silent stream between 15 and 60 s.
KEEP_ALIVE = b": keep-alive\n\n"

Headers = list[tuple[bytes, bytes]]

EVENT_STREAM: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class Dialect(Protocol):
    """How one side of the API words the items of a task."""

    def opens(self, item: AskItem) -> bool:
        """Whether this item is worth committing to status 200. Until then a failure still gets a status of its own.

        AskEnded never is: a good end opens the stream in any case.
        """

    def headers(self, items: Sequence[AskItem]) -> Headers:
        """What is known of the answer when it begins, from the items that have come so far."""

    def encode(self, items: Sequence[AskItem]) -> bytes:
        """The events for these items; after AskEnded, with all that closes the stream."""

    def broken(self, error: ApiError) -> bytes:
        """The event for an end that is not an AskEnded."""


class EventStream:
    """A response that runs a task.

    Whatever goes wrong after the first byte is told as an event: the official clients take a stream that merely ends
    for a complete answer.
    """

    def __init__(self, desk: Desk, task: Task, dialect: Dialect) -> None:
        self._desk = desk
        self._task = task
        self._dialect = dialect
        self._started = False
        self._finished = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def run() -> None:
            try:
                await self._run(send)
            except ApiError as error:
                await self._break(error, scope, receive, send)
            except Exception as bug:
                await self._break(internal_error(bug), scope, receive, send)

        async def say_goodbye() -> None:
            await self._break(stopping(), scope, receive, send)

        await while_connected(receive, run, say_goodbye)

    async def _run(self, send: Send) -> None:
        held: list[AskItem] = []
        async with self._desk.ask(self._task) as items:
            while not self._finished:
                batch = await next_batch(items, KEEP_ALIVE_S)
                if not batch:
                    await self._start(held, send)
                    await send(body_part(KEEP_ALIVE))
                    continue
                held += batch
                end = batch[-1] if isinstance(batch[-1], AskEnded) else None
                if not self._started:
                    opening = any(self._dialect.opens(item) for item in held)
                    if end is None and not opening:
                        continue
                    if end is not None and not opening:
                        raise_if_failed(end)
                    await self._start(held, send)
                data, held = self._dialect.encode(held), []
                self._finished = end is not None
                await send(body_part(data, more=end is None))

    async def _start(self, held: Sequence[AskItem], send: Send) -> None:
        if not self._started:
            self._started = True
            headers = EVENT_STREAM + self._dialect.headers(held)
            await send({"type": "http.response.start", "status": 200, "headers": headers})

    async def _break(self, error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
        if self._finished:
            return
        self._finished = True
        if self._started:
            await send(body_part(self._dialect.broken(error), more=False))
        else:
            await error_response(error, openai=speaks_openai(scope["path"]))(scope, receive, send)


async def next_batch(items: trio.MemoryReceiveChannel[AskItem], wait_s: float) -> list[AskItem]:
    """Every item that is there now, at least one, texts joined; nothing after `wait_s` of silence.

    Raises ApiError if the task's channel ends without AskEnded.
    """
    batch: list[AskItem] = []
    try:
        with trio.move_on_after(wait_s):
            batch.append(await items.receive())
        while batch and not isinstance(batch[-1], AskEnded):
            batch.append(items.receive_nowait())
    except trio.WouldBlock:
        pass
    except trio.EndOfChannel:
        # What came before is delivered first; the next call finds the end again.
        if not batch:
            raise failed_task(codes.STREAM_BROKEN, "The answer stopped before its end.", None) from None
    return batch if len(batch) == 1 else _joined(batch)


def _joined(batch: Sequence[AskItem]) -> list[AskItem]:
    """The same items, with neighbouring texts as one."""
    joined: list[AskItem] = []
    for is_text, run in groupby(batch, lambda item: isinstance(item, AskText)):
        if is_text:
            texts = [item for item in run if isinstance(item, AskText)]
            logprobs = tuple(logprob for item in texts for logprob in item.logprobs)
            joined.append(AskText("".join(item.text for item in texts), logprobs))
        else:
            joined.extend(run)
    return joined


def raise_if_failed(end: AskEnded, text: str = "") -> None:
    """Raises ApiError for a task that ended without a complete answer, with as much of it as there is."""
    if end.code is not None:
        raise failed_task(end.code, end.answer.reason, end.answer, text)


def named_event(name: str, data: bytes) -> bytes:
    """One event of a stream; `data` is JSON on one line."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), data)


def body_part(data: bytes, *, more: bool = True) -> Message:
    """The next of a response's body."""
    return {"type": "http.response.body", "body": data, "more_body": more}
