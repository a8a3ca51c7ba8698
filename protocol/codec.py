"""A message body as msgpack bytes and back: arrays only, every field typed and bounded, one encoding for each value."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import msgpack

from protocol import envelope
from protocol import limits as lim
from protocol.bounds import Blob, Many, Real, Text, Whole
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.messages import MESSAGES, Advert, Message, Pulse, Signed, Suspicion

Plain = Any
"""What msgpack packs: int, float, bool, str, bytes, and lists of them."""

_Convert = Callable[[Any], Plain]
_T = TypeVar("_T")
_M = TypeVar("_M", bound=Message)

PASSED_ON: dict[type[Message], int] = {
    Advert: lim.ADVERT_BYTES_MAX,
    Pulse: lim.RUMOUR_BYTES_MAX,
    Suspicion: lim.RUMOUR_BYTES_MAX,
}
"""The messages that travel inside others in envelopes of their own, and how many bytes one may have sealed."""


class _Unfit(ValueError):
    """A value that breaks its bound; becomes a LocalProtocolError or a RemoteProtocolError, depending on whose it is."""


def encode(message: Message) -> bytes:
    """The body of a message: `[kind, field, …]`. Raises LocalProtocolError if a field breaks its bound."""
    pack, _ = _SCHEMAS[type(message)]
    try:
        body = _pack([message.KIND, *pack(message)])
    except (_Unfit, TypeError, AttributeError) as unfit:
        raise LocalProtocolError(f"{type(message).__name__}: {unfit}") from unfit
    if len(body) > lim.BODY_BYTES_MAX:
        raise LocalProtocolError(f"{type(message).__name__}: body of {len(body)} bytes, {lim.BODY_BYTES_MAX} allowed")
    return body


def decode(body: bytes) -> Message:
    """The message in a body. Raises RemoteProtocolError for anything but the one encoding of a message within bounds.

    What has an envelope of its own inside comes parsed but unproven: see `notary`.
    """
    return _decode(body, MESSAGES)


def _decode(body: bytes, allowed: Mapping[int, type[Message]]) -> Message:
    if len(body) > lim.BODY_BYTES_MAX:
        raise RemoteProtocolError("oversized", f"body of {len(body)} bytes, {lim.BODY_BYTES_MAX} allowed")
    parts = unpack(body)
    if not isinstance(parts, list) or not parts or type(parts[0]) is not int:
        raise RemoteProtocolError("garbage", "a body is an array that starts with a kind")
    cls = allowed.get(parts[0])
    if cls is None:
        raise RemoteProtocolError("garbage", f"kind {parts[0]} is unknown, or has no place here")
    _, parse = _SCHEMAS[cls]
    try:
        message: Message = parse(parts[1:])
    except _Unfit as unfit:
        raise RemoteProtocolError("garbage", f"{cls.__name__}: {unfit}") from unfit
    # msgpack reads several encodings of one number. Only the shortest is a message, so that equal messages are equal bytes.
    if _pack(parts) != body:
        raise RemoteProtocolError("garbage", f"{cls.__name__}: not in its shortest encoding")
    return message


def unpack(data: bytes) -> Plain:
    """Any msgpack value within hard limits: no maps, no extensions. Raises RemoteProtocolError."""
    try:
        if b"\xdc" in data or b"\xdd" in data:
            # Heads of long arrays, perhaps. Room for the items is made once one is read; this finds without what is not there.
            promised = msgpack.Unpacker(max_buffer_size=len(data))
            promised.feed(data)
            promised.skip()
        return msgpack.unpackb(
            data,
            raw=False,
            use_list=True,
            max_str_len=lim.BODY_BYTES_MAX,
            max_bin_len=lim.FRAME_BYTES_MAX,
            max_array_len=lim.DELIVERED_TOKENS_MAX,  # The longest list of any message.
            max_map_len=0,
            max_ext_len=0,
        )
    # The library raises ValueError and its own kin; deep nesting ends in RecursionError or StackError.
    except (ValueError, RecursionError, msgpack.UnpackException, msgpack.ExtraData) as wrong:
        raise RemoteProtocolError("garbage", f"not msgpack within limits: {type(wrong).__name__}") from wrong


def signed(kind: type[_M], sealed: bytes) -> Signed[_M]:
    """The message of this kind in a sealed envelope, unproven. Raises RemoteProtocolError."""
    if len(sealed) > PASSED_ON[kind]:
        raise RemoteProtocolError("oversized", f"{kind.__name__} of {len(sealed)} bytes, {PASSED_ON[kind]} allowed")
    header, body, _ = envelope.split(sealed)
    # Only this kind is read at all: a push inside a push inside a push would multiply the work.
    message = _decode(body, {kind.KIND: kind})
    assert isinstance(message, kind)
    return Signed(header.issuer, header.sent_at_ms, header.lifetime_ms, message, sealed)


def _pack(parts: list[Plain]) -> bytes:
    packed: bytes = msgpack.packb(parts, use_bin_type=True)
    return packed


# --- Schemas: made once from the annotations of the message classes --------------------------------------------------


def _schema(cls: type) -> tuple[Callable[[Any], list[Plain]], Callable[[Any], Any]]:
    """How to make a class into a list of plain fields, and a list of plain fields into the class."""
    hints = get_type_hints(cls, include_extras=True)
    names = [field.name for field in dataclasses.fields(cls)]
    converters = [_field(hints[name]) for name in names]
    packers = [(name, pack) for name, (pack, _) in zip(names, converters, strict=True)]
    parsers = [(name, parse) for name, (_, parse) in zip(names, converters, strict=True)]

    def pack_all(value: Any) -> list[Plain]:
        return [_named(name, pack, getattr(value, name)) for name, pack in packers]

    def parse_all(parts: Any) -> Any:
        if type(parts) is not list or len(parts) != len(parsers):
            raise _Unfit(f"{cls.__name__} has {len(parsers)} fields")
        return cls(*[_named(name, parse, part) for (name, parse), part in zip(parsers, parts, strict=True)])

    return pack_all, parse_all


def _named(name: str, convert: Callable[[Any], _T], value: Any) -> _T:
    try:
        return convert(value)
    except _Unfit as unfit:
        raise _Unfit(f"{name}: {unfit}") from None


def _field(hint: Any) -> tuple[_Convert, _Convert]:
    """The converters of one field: its annotation is the rule."""
    if hint is bool:
        return _boolean, _boolean
    if get_origin(hint) is Signed:
        return _signed_field(get_args(hint)[0])
    if dataclasses.is_dataclass(hint):
        return _schema(hint)  # type: ignore[arg-type]
    assert get_origin(hint) is Annotated, f"field without a bound: {hint}"
    inner, bound = get_args(hint)[:2]
    match bound:
        case Text(bytes_max):
            check: _Convert = lambda value: _text(value, bytes_max)  # noqa: E731
            return check, check
        case Blob(least, most):
            check = lambda value: _blob(value, least, most)  # noqa: E731
            return check, check
        case Whole(highest):
            check = lambda value: _whole(value, highest)  # noqa: E731
            return check, check
        case Real(minimum, maximum):
            # Zero has two encodings and means the same; minus zero plus zero is plus zero.
            return (lambda value: _real(value, minimum, maximum) + 0.0), (
                lambda value: _plus_zero(_real(value, minimum, maximum))
            )
        case Many(items_max):
            pack, parse = _field(get_args(inner)[0])
            return (lambda value: _items(value, tuple, pack, items_max)), (
                lambda value: tuple(_items(value, list, parse, items_max))
            )
    raise AssertionError(f"unknown bound {bound!r}")


def _boolean(value: Any) -> bool:
    if type(value) is not bool:
        raise _Unfit("true or false expected")
    return value


def _text(value: Any, bytes_max: int) -> str:
    if type(value) is not str:
        raise _Unfit("text expected")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise _Unfit("text holds a lone surrogate") from None
    if size > bytes_max:
        raise _Unfit(f"{size} bytes of text, {bytes_max} allowed")
    return value


def _blob(value: Any, least: int, most: int) -> bytes:
    if type(value) is not bytes or not least <= len(value) <= most:
        raise _Unfit(f"{least} to {most} bytes expected")
    return value


def _whole(value: Any, maximum: int) -> int:
    if type(value) is not int or not 0 <= value <= maximum:
        raise _Unfit(f"a whole number from 0 to {maximum} expected")
    return value


def _real(value: Any, minimum: float, maximum: float) -> float:
    if type(value) is not float or not math.isfinite(value) or not minimum <= value <= maximum:
        raise _Unfit(f"a float from {minimum:g} to {maximum:g} expected")
    return value


def _plus_zero(value: float) -> float:
    if value == 0.0 and math.copysign(1.0, value) < 0.0:
        raise _Unfit("minus zero")
    return value


def _items(value: Any, kind: type, convert: _Convert, items_max: int) -> list[Any]:
    if type(value) is not kind or len(value) > items_max:  # type: ignore[arg-type]
        raise _Unfit(f"a list of at most {items_max} expected")
    return [convert(item) for item in value]  # type: ignore[attr-defined]


def _signed_field(kind: type[Message]) -> tuple[_Convert, _Convert]:
    def pack_sealed(value: Signed[Message]) -> bytes:
        if not value.sealed:
            raise _Unfit(f"{kind.__name__} without its envelope")
        return _blob(value.sealed, 1, PASSED_ON[kind])

    return pack_sealed, lambda value: signed(kind, _blob(value, 1, PASSED_ON[kind]))


_SCHEMAS: dict[type, tuple[Callable[[Any], list[Plain]], Callable[[Any], Any]]] = {
    cls: _schema(cls) for cls in MESSAGES.values()
}
