"""What comes in and goes out of the child: requests, taken by a thread of their own, and what is said, sent in one go."""

import os
import queue
import traceback
from collections.abc import Iterator
from contextlib import suppress
from threading import Lock
from time import perf_counter
from typing import NoReturn, Protocol

from node.backends.llama_cpp import pipe
from node.backends.llama_cpp.context import Aborted, AbortFlag

REASON_CHARACTERS_MAX = 200  # Of a bug.
BEGIN_S = 0.05  # For requests that have come at once, before the others go on: a strange grammar may take half a second.


def told_bug(bug: Exception) -> str:
    """What the parent hears of a bug; where it was is in the log."""
    traceback.print_exception(bug)
    return f"its process met a bug: {bug!r}"[:REASON_CHARACTERS_MAX]


class Work(Protocol):
    """What is done with the requests."""

    def begin(self, request: pipe.Generate) -> None: ...

    def cancel(self, call: int) -> None: ...

    def plan(self) -> frozenset[int]:
        """Decide on the next batch. Returns the calls that it is for; none: there is nothing to do."""

    def step(self) -> None:
        """Compute that batch and say what comes of it. Raises Aborted if it was stopped, as if nothing had been done."""


class Requests:
    """What the parent wants, between the thread that reads and the one that works."""

    def __init__(self, source: int, abort: AbortFlag, sink: "Sink") -> None:
        self._source, self._abort, self._sink = source, abort, sink
        self._come: queue.SimpleQueue[pipe.Generate | pipe.Cancel] = queue.SimpleQueue()
        self._cancelled: set[int] = set()  # Their Cancel has not been taken yet.
        self._computing: frozenset[int] = frozenset()  # The calls that a batch is being computed for.
        self.steps = 0
        """Batches that were computed."""
        self.working = False
        """Whether it does not wait for a request."""

    def read_forever(self) -> None:
        """Ends the process, at once and whatever it is doing, when the parent is gone or makes no sense."""
        unpacker = pipe.Unpacker()
        try:
            while chunk := os.read(self._source, 65_536):
                for said in unpacker.feed(chunk):
                    self.hear(said)
        finally:
            os._exit(0)

    def hear(self, said: pipe.Said) -> None:
        """Take in what the parent says. On the thread that reads."""
        if isinstance(said, pipe.Ping):
            self._sink.send(pipe.pack(pipe.Pong(self.steps, self.working or not self._come.empty())))
        if isinstance(said, pipe.Cancel):
            self._cancelled.add(said.call)
        if isinstance(said, pipe.Generate | pipe.Cancel):
            self._come.put(said)
        if self._is_for_nobody():
            self._abort.up()

    def serve(self, work: Work) -> NoReturn:
        """Until the process is ended."""
        computing: frozenset[int] = frozenset()
        while True:
            for said in self._take(wait=not computing):
                if isinstance(said, pipe.Cancel):
                    work.cancel(said.call)
                    self._cancelled.discard(said.call)
                else:
                    self._begin(work, said)
            self._sink.flush()
            computing = work.plan()
            self._abort.down()  # Before the others can see what is computed: who is cancelled from there on raises it again.
            self._computing = computing
            if computing and not self._is_for_nobody():
                with suppress(Aborted):
                    work.step()
                self.steps += 1
            self._computing = frozenset()
            self._sink.flush()

    def _is_for_nobody(self) -> bool:
        """Whether all that a batch is for have been cancelled. For one among others, they are not made to begin anew."""
        computing = self._computing
        return bool(computing) and computing <= self._cancelled

    def _begin(self, work: Work, request: pipe.Generate) -> None:
        if request.call in self._cancelled:
            self._sink.say(pipe.Ended(request.call, "cancelled", 0, 0, ""))
            return
        try:
            work.begin(request)
        except Exception as bug:  # noqa: BLE001 Whatever a request may bring about, the others go on.
            self._sink.say(pipe.Ended(request.call, "failed", 0, 0, told_bug(bug)))
            work.cancel(request.call)  # It may have begun in part. The parent has heard of its end.

    def _take(self, wait: bool) -> Iterator[pipe.Generate | pipe.Cancel]:
        """All that has come, as long as it is quickly done with; if asked to, wait until something does."""
        if wait:
            self.working = False
            first = self._come.get()
            self.working = True
            yield first
        until = perf_counter() + BEGIN_S
        with suppress(queue.Empty):
            while perf_counter() < until:
                yield self._come.get_nowait()


class Sink:
    """Where the parent listens."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._out = bytearray()
        self._writing = Lock()  # Signs of life come from another thread.

    def say(self, said: pipe.Said) -> None:
        """Put it with what is sent by the next flush."""
        self._out += pipe.pack(said)

    def flush(self) -> None:
        """Send all that was said, in one go."""
        out = bytes(self._out)
        self._out.clear()
        self.send(out)

    def send(self, frames: bytes) -> None:
        """Whole frames, at once."""
        data = memoryview(frames)
        with self._writing:
            while data:
                data = data[os.write(self._descriptor, data) :]
