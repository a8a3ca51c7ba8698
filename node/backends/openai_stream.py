"""Reads the stream of a chat completion: server-sent events out of bytes that come in pieces, and what the events say."""

import json
from dataclasses import dataclass
from typing import Any

from node.backends import BackendError

LINE_BYTES_MAX = 1 << 20  # One event. A server that sends more without a line's end is broken, or means harm.


@dataclass(frozen=True, slots=True)
class Event:
    """One event of the stream. `done` is the `[DONE]` at its end; counts are there only in the event that brings them."""

    text: str = ""
    finish: str | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    done: bool = False


class EventReader:
    """Collects chunks and yields whole events."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that this chunk completes. Raises BackendError for what is no event, and for the server's own errors."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > LINE_BYTES_MAX:
            raise BackendError(f"an event of more than {LINE_BYTES_MAX} bytes")
        # Comments, names of events and blank lines carry nothing that matters here.
        return [_event(line[5:].strip()) for line in lines if line.startswith(b"data:") and line[5:].strip()]


def _event(data: bytes) -> Event:
    if data == b"[DONE]":
        return Event(done=True)
    said = parse_object(data)
    if said.get("error"):
        raise BackendError(f"it reports an error: {error_text(said)}")
    text, finish = "", None
    choices = said.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        delta = choices[0].get("delta")
        content = delta.get("content") if isinstance(delta, dict) else None
        # JSON can hold halves of characters, which nothing else can.
        text = content.encode("utf-8", "replace").decode() if isinstance(content, str) else ""
        reason = choices[0].get("finish_reason")
        finish = None if reason is None else "length" if reason == "length" else "stop"
    usage = said.get("usage")
    counts = usage if isinstance(usage, dict) else {}
    return Event(text, finish, _count(counts.get("prompt_tokens")), _count(counts.get("completion_tokens")))


def parse_object(data: bytes) -> dict[str, Any]:
    """Raises BackendError if this is no JSON object."""
    try:
        said = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BackendError("it sends what is no JSON") from error
    if not isinstance(said, dict):
        raise BackendError("it sends JSON that is no object")
    return said


def error_text(said: dict[str, Any]) -> str:
    """The message in an OpenAI-style error, in one short line."""
    error = said.get("error", said.get("detail", said))
    message = error.get("message", error) if isinstance(error, dict) else error
    return " ".join("".join(c if c.isprintable() else " " for c in str(message)).split())[:160]


def _count(value: object) -> int | None:
    return value if type(value) is int and 0 <= value < 2**31 else None
