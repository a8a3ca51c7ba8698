"""What comes in and goes out of the child: requests, taken by a thread of their own, and what is said, sent in one go."""

import os
import queue
from collections.abc import Iterator
from contextlib import suppress
from threading import Lock
from typing import NoReturn, Protocol

from node.backends.llama_cpp import pipe
from node.backends.llama_cpp.context import Aborted, AbortFlag


class Work(Protocol):
    """What is done with the requests."""

    def computing(self) -> frozenset[int]:
        """The calls that the next batch is for; none: there is nothing to do."""

    def begin(self, request: pipe.Generate) -> None: ...

    def cancel(self, call: int) -> None: ...

    def step(self) -> None:
        """Compute the next batch and say what comes of it. Raises Aborted if it was stopped, as if nothing had been done."""


class Requests:
    """What the parent wants, between the thread that reads and the one that works."""

    def __init__(self, source: int, abort: AbortFlag, sink: "Sink") -> None:
        self._source, self._abort, self._sink = source, abort, sink
        self._come: queue.SimpleQueue[pipe.Generate | pipe.Cancel] = queue.SimpleQueue()
        self.computing: frozenset[int] = frozenset()
        """The calls that are worth stopping a batch for, should they be cancelled."""
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
                    if isinstance(said, pipe.Ping):
                        self._sink.send(pipe.pack(pipe.Pong(self.steps, self.working or not self._come.empty())))
                    if isinstance(said, pipe.Generate | pipe.Cancel):
                        self._come.put(said)
                    if isinstance(said, pipe.Cancel) and said.call in self.computing:
                        self._abort.up()
        finally:
            os._exit(0)

    def serve(self, work: Work) -> NoReturn:
        """Until the process is ended."""
        stopped = False
        while True:
            self._abort.down()  # Before looking: who is cancelled from here on raises it again.
            for said in self._take(wait=not work.computing()):
                if isinstance(said, pipe.Cancel):
                    work.cancel(said.call)
                else:
                    work.begin(said)
            # Never two in a row: who cancels all the time must not keep the others from going on.
            self.computing = frozenset() if stopped else work.computing()
            stopped = False
            try:
                work.step()
            except Aborted:
                stopped = True
            self.steps += 1
            self._sink.flush()

    def _take(self, wait: bool) -> Iterator[pipe.Generate | pipe.Cancel]:
        """All that has come; if asked to, wait until something does."""
        if wait:
            self.working = False
            first = self._come.get()
            self.working = True
            yield first
        with suppress(queue.Empty):
            while True:
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
