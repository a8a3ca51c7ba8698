"""What parent and child of a model say to each other: length-prefixed msgpack over the child's stdin and stdout.

A frame is four bytes of length, big-endian, and one msgpack array: the kind's number and the fields in order. Requests carry
numbers, so that an engine may work on several at once. The child parses hostile files, so the parent believes nothing but
frames that are within bounds and of the right types.
"""

from dataclasses import dataclass, field, fields
from typing import get_type_hints

import msgpack

FRAME_BYTES_MAX = 512 * 1024  # Three times the largest request that fits the wire between nodes.
_HEAD_BYTES = 4

Told = list[bytes | float]
"""What is told of one token: its bytes and its log-probability, then the same of each alternative, the likeliest first."""


class PipeBroken(Exception):
    """The other side says what it may not. Nothing more from it is to be believed."""


@dataclass(frozen=True, slots=True)
class Generate:
    """Parent: begin an answer, or go on after what was `delivered`.

    `turns` are [role, text], or [role, text, call, …] with id, name and arguments of each call behind it.

    The other fields are those of `protocol.messages.Sampling` and `Demands`.
    """

    call: int
    skill: str
    turns: list[list[str]]
    tokens_max: int
    stops: list[str] = field(default_factory=list)
    delivered: str = ""
    delivered_tokens: list[int] = field(default_factory=list)
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 40
    min_p: float = 0.05
    repeat_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int = 0
    schema: str = ""
    grammar: str = ""
    options: list[str] = field(default_factory=list)
    forced: str = ""
    forced_tokens: list[int] = field(default_factory=list)
    logprobs: int = 0
    tools: str = ""
    tool: str = ""


@dataclass(frozen=True, slots=True)
class Cancel:
    """Parent: stop this call. The child answers with Ended, unless it has just done so."""

    call: int


@dataclass(frozen=True, slots=True)
class Loading:
    """Child: so large a share of the file has been read."""

    share: float


@dataclass(frozen=True, slots=True)
class Ready:
    """Child: the model is loaded, and works on `slots` answers at once, all together `speedup` times as fast as on one alone.

    `guards` are the parts of the sandbox that hold; `note` says what does not work, and why; `numerics` is equal for children that
    compute the same bits of the same model, and empty for one that cannot go on in the middle of an answer; `block` is how many
    rows a batch is filled up to a multiple of; `text_bytes` what the keys and values of an answer take.
    """

    context_tokens: int
    slots: int
    threads: int
    skills: list[str]
    features: list[str]
    guards: list[str]
    note: str
    numerics: bytes
    speedup: float
    block: int
    text_bytes: float


@dataclass(frozen=True, slots=True)
class Unfit:
    """Child: the model cannot be used, and why; the child exits."""

    reason: str


@dataclass(frozen=True, slots=True)
class Piece:
    """Child: the next text of an answer, and the tokens drawn since the text before with what is to be told of them."""

    call: int
    text: str
    tokens: list[int]
    logprobs: list[Told] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Ended:
    """Child: the last of a call. `finish` is `stop`, `length`, `tool_calls`, `cancelled`, `refused`, `too_long` or `failed`.

    `functions` are the names and arguments of what the model wants called.
    """

    call: int
    finish: str
    tokens_in: int
    tokens_out: int
    reason: str
    functions: list[list[str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Ping:
    """Parent: a sign of life is wanted. Answered by the thread that reads, whatever the other one is computing."""


@dataclass(frozen=True, slots=True)
class Pong:
    """Child: it is there. `steps` counts the batches that it has computed, `busy` is whether it has anything to do."""

    steps: int
    busy: bool


Said = Generate | Cancel | Ready | Unfit | Piece | Ended | Loading | Ping | Pong
_KINDS: tuple[type[Said], ...] = (Generate, Cancel, Ready, Unfit, Piece, Ended, Loading, Ping, Pong)
_TYPES = {kind: {each.name: get_type_hints(kind)[each.name] for each in fields(kind)} for kind in _KINDS}


def pack(said: Said) -> bytes:
    """One frame, whole."""
    parts = [getattr(said, name) for name in _TYPES[type(said)]]
    body: bytes = msgpack.packb([_KINDS.index(type(said)), *parts], unicode_errors="replace")
    if len(body) > FRAME_BYTES_MAX:
        raise PipeBroken(f"a frame of {len(body)} bytes, {FRAME_BYTES_MAX} allowed")
    return len(body).to_bytes(_HEAD_BYTES, "big") + body


class Unpacker:
    """Collects chunks and yields what was said. Holds at most one frame and one chunk."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, chunk: bytes) -> list[Said]:
        """What this chunk completes. Raises PipeBroken."""
        self._buffer += chunk
        said: list[Said] = []
        at = 0
        while len(self._buffer) - at >= _HEAD_BYTES:
            start = at + _HEAD_BYTES
            size = int.from_bytes(self._buffer[at:start], "big")
            if size > FRAME_BYTES_MAX:
                raise PipeBroken(f"a frame of {size} bytes, {FRAME_BYTES_MAX} allowed")
            if len(self._buffer) < start + size:
                break
            said.append(_unpack(bytes(self._buffer[start : start + size])))
            at = start + size
        del self._buffer[:at]
        return said


def _unpack(body: bytes) -> Said:
    try:
        parts = msgpack.unpackb(body)
    except (ValueError, msgpack.UnpackException) as error:
        raise PipeBroken(f"no msgpack: {error}") from error
    if not isinstance(parts, list) or not parts or type(parts[0]) is not int or not 0 <= parts[0] < len(_KINDS):
        raise PipeBroken("a frame of no known kind")
    kind = _KINDS[parts[0]]
    if len(parts) - 1 != len(_TYPES[kind]) or not all(map(_fits, parts[1:], _TYPES[kind].values())):
        raise PipeBroken(f"a {kind.__name__} with fields of other types")
    return kind(*parts[1:])


def _fits(value: object, wanted: object) -> bool:
    if wanted in (list[str], list[int]):
        inner = str if wanted == list[str] else int
        return isinstance(value, list) and all(type(item) is inner for item in value)
    if wanted == list[list[str]]:
        return isinstance(value, list) and all(_fits(item, list[str]) for item in value)
    if wanted == list[Told]:
        return isinstance(value, list) and all(map(_is_told, value))
    return type(value) is wanted


def _is_told(value: object) -> bool:
    if not isinstance(value, list) or not value or len(value) % 2:
        return False
    return all(type(each) is (float if at % 2 else bytes) for at, each in enumerate(value))
