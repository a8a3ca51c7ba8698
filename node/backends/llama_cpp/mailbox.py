"""What comes in and goes out of the child: requests, taken by a thread of their own, and what is said, sent in one go."""

import os
import queue
from collections.abc import Iterator
from contextlib import suppress

from node.backends.llama_cpp import pipe
from node.backends.llama_cpp.context import AbortFlag


class Requests:
    """What the parent wants, between the thread that reads and the one that works."""

    def __init__(self, source: int, abort: AbortFlag) -> None:
        self._source, self._abort = source, abort
        self._come: queue.SimpleQueue[pipe.Generate | pipe.Cancel] = queue.SimpleQueue()
        self.computing: frozenset[int] = frozenset()
        """The calls that are worth stopping a batch for, should they be cancelled."""

    def read_forever(self) -> None:
        """Ends the process, at once and whatever it is doing, when the parent is gone or makes no sense."""
        unpacker = pipe.Unpacker()
        try:
            while chunk := os.read(self._source, 65_536):
                for said in unpacker.feed(chunk):
                    if isinstance(said, pipe.Generate | pipe.Cancel):
                        self._come.put(said)
                    if isinstance(said, pipe.Cancel) and said.call in self.computing:
                        self._abort.up()
        finally:
            os._exit(0)

    def take(self, wait: bool) -> Iterator[pipe.Generate | pipe.Cancel]:
        """All that has come; if asked to, wait until something does."""
        if wait:
            yield self._come.get()
        with suppress(queue.Empty):
            while True:
                yield self._come.get_nowait()


class Sink:
    """Where the parent listens."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._out = bytearray()

    def say(self, said: pipe.Said) -> None:
        """Put it with what is sent by the next flush."""
        self._out += pipe.pack(said)

    def flush(self) -> None:
        """Send all that was said, in one go."""
        data = memoryview(bytes(self._out))
        self._out.clear()
        while data:
            data = data[os.write(self._descriptor, data) :]
