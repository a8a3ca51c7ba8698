"""Frames on their way to one peer: queued without waiting, taken together, bounded in bytes."""

from collections import deque

import trio

OUTBOX_BYTES_MAX = 2 * 1024 * 1024  # Sixteen of the largest frames. A peer this far behind does not read.
WRITE_BYTES_MAX = 64 * 1024  # Queued frames leave together, one yamux frame at a time.


class Outbox:
    """Frames on their way to one pipe, bounded in bytes."""

    def __init__(self) -> None:
        self._frames: deque[bytes] = deque()
        self._bytes = 0
        self._closed = False
        self._changed = trio.Event()

    def put(self, frame: bytes) -> bool:
        """False if the frame does not fit; then nothing was queued."""
        if self._closed or self._bytes + len(frame) > OUTBOX_BYTES_MAX:
            return False
        self._frames.append(frame)
        self._bytes += len(frame)
        self._changed.set()
        return True

    def close(self) -> None:
        """Nothing more will come; what is queued can still be taken."""
        self._closed = True
        self._changed.set()

    async def take(self) -> bytes:
        """All that is queued, up to WRITE_BYTES_MAX (or one longer frame), or nothing once closed and empty."""
        while not self._frames and not self._closed:
            self._changed = trio.Event()
            await self._changed.wait()
        taken: list[bytes] = []
        size = 0
        while self._frames and (not taken or size + len(self._frames[0]) <= WRITE_BYTES_MAX):
            taken.append(self._frames.popleft())
            size += len(taken[-1])
        self._bytes -= size
        return b"".join(taken)
