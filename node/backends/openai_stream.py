"""Reads the stream of a chat completion: server-sent events out of bytes that come in pieces, and what the events say."""

import json
from dataclasses import dataclass
from typing import Any

from node import function_calls
from node.backends import BackendError
from node.backends.likelihoods import bounded
from protocol.limits import (
    ARGUMENTS_BYTES_MAX,
    CALLS_MAX,
    FUNCTION_BYTES_MAX,
    LOGPROB_MIN,
    LOGPROBS_MAX,
)
from protocol.parts import FunctionCall, Logprob

LINE_BYTES_MAX = 1 << 20  # One event. A server that sends more without a line's end is broken, or means harm.


@dataclass(frozen=True, slots=True)
class CallPart:
    """A part of what calls a function: id and name come with the first one, the arguments bit by bit."""

    index: int | None
    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Event:
    """One event of the stream. `done` is the `[DONE]` at its end; counts are there only in the event that brings them."""

    text: str = ""
    calls: tuple[CallPart, ...] = ()
    logprobs: tuple[Logprob, ...] = ()
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


class CallCollector:
    """The calls of functions in an answer, out of their parts."""

    def __init__(self) -> None:
        self._parts: dict[int, CallPart] = {}

    def add(self, part: CallPart) -> None:
        """Raises BackendError for calls that are too many or too long to travel."""
        index = part.index if part.index is not None else len(self._parts)  # Who does not count sends them whole.
        known = self._parts.get(index, CallPart(index, "", "", ""))
        whole = CallPart(index, known.id or part.id, known.name or part.name, known.arguments + part.arguments)
        self._parts[index] = whole
        if len(self._parts) > CALLS_MAX:
            raise BackendError(f"it calls more than {CALLS_MAX} functions at once")
        if len(whole.name.encode()) > FUNCTION_BYTES_MAX or len(whole.arguments.encode()) > ARGUMENTS_BYTES_MAX:
            raise BackendError(f"its call of a function is too long ({len(whole.arguments)} characters)")

    def calls(self) -> tuple[FunctionCall, ...]:
        """All of them. Raises BackendError for arguments that are no JSON object."""
        return tuple(map(_call, self._parts.values()))


def _call(part: CallPart) -> FunctionCall:
    try:
        parse_object(part.arguments.encode() or b"{}")
    except BackendError as error:
        raise BackendError(f'its call of "{part.name}" cannot be read: {error}') from None
    given = part.id if 0 < len(part.id.encode()) <= FUNCTION_BYTES_MAX else function_calls.new_id()
    return FunctionCall(given, part.name, part.arguments or "{}")


def _event(data: bytes) -> Event:
    if data == b"[DONE]":
        return Event(done=True)
    said = parse_object(data)
    if said.get("error"):
        raise BackendError(f"it reports an error: {error_text(said)}")
    choices = said.get("choices")
    choice = _object(choices[0]) if isinstance(choices, list) and choices else {}
    delta, counts = _object(choice.get("delta")), _object(said.get("usage"))
    reason = choice.get("finish_reason")
    finish = None if reason is None else reason if reason in ("length", "tool_calls") else "stop"
    return Event(
        _text(delta.get("content")),
        tuple(map(_call_part, _objects(delta.get("tool_calls")))),
        tuple(map(_logprob, _objects(_object(choice.get("logprobs")).get("content")))),
        finish,
        _count(counts.get("prompt_tokens")),
        _count(counts.get("completion_tokens")),
    )


def _call_part(said: dict[str, Any]) -> CallPart:
    function = _object(said.get("function"))
    return CallPart(_count(said.get("index")), _text(said.get("id")), _text(function.get("name")), _text(function.get("arguments")))


def _logprob(said: dict[str, Any]) -> Logprob:
    top = [(_token(other), _likelihood(other)) for other in _objects(said.get("top_logprobs"))[: LOGPROBS_MAX - 1]]
    return bounded(_token(said), _likelihood(said), top)


def _token(said: dict[str, Any]) -> bytes:
    """Its bytes, which are given apart where they are no text."""
    given = said.get("bytes")
    if isinstance(given, list) and all(type(byte) is int and 0 <= byte < 256 for byte in given):
        return bytes(given)
    return _text(said.get("token")).encode()


def _likelihood(said: dict[str, Any]) -> float:
    value = said.get("logprob")
    return value if isinstance(value, int | float) else LOGPROB_MIN


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


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _objects(value: object) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _text(value: object) -> str:
    """JSON can hold halves of characters, which nothing else can."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else ""


def _count(value: object) -> int | None:
    return value if type(value) is int and 0 <= value < 2**31 else None
