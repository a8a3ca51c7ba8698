"""Frames out of a byte stream that comes in pieces: four bytes of length, big-endian, one byte of form, then the payload."""

from enum import IntEnum

from protocol import limits as lim
from protocol.errors import LocalProtocolError, RemoteProtocolError

HEAD_BYTES = 5


class Form(IntEnum):
    """What a frame's payload is."""

    SEALED = 1  # An envelope.
    BARE = 2  # A body alone, for kinds that rely on the channel.


def frame(form: Form, payload: bytes) -> bytes:
    """One frame, whole."""
    if len(payload) > lim.FRAME_BYTES_MAX:
        raise LocalProtocolError(f"frame of {len(payload)} bytes, {lim.FRAME_BYTES_MAX} allowed")
    return len(payload).to_bytes(4, "big") + bytes((form,)) + payload


class FrameReader:
    """Collects chunks and yields whole frames. Holds at most one frame and one chunk."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, chunk: bytes) -> list[tuple[Form, bytes]]:
        """The frames that this chunk completes. Raises RemoteProtocolError for a length or form out of bounds."""
        self._buffer += chunk
        frames: list[tuple[Form, bytes]] = []
        at = 0
        while len(self._buffer) - at >= HEAD_BYTES:
            size = int.from_bytes(self._buffer[at : at + 4], "big")
            if size > lim.FRAME_BYTES_MAX:
                raise RemoteProtocolError("oversized", f"frame of {size} bytes, {lim.FRAME_BYTES_MAX} allowed")
            form = self._buffer[at + 4]
            if form not in (Form.SEALED, Form.BARE):
                raise RemoteProtocolError("garbage", f"frame of unknown form {form}")
            end = at + HEAD_BYTES + size
            if len(self._buffer) < end:
                break
            frames.append((Form(form), bytes(self._buffer[at + HEAD_BYTES : end])))
            at = end
        del self._buffer[:at]
        return frames
