"""Every field of every message: where it stands, and what it may hold at the edge of its bound and one step beyond."""

import dataclasses
import math
from collections.abc import Iterator
from random import Random
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from protocol import codec
from protocol.bounds import Blob, Many, Real, Text, Whole
from protocol.messages import Advert, Message, Pulse, Signed, Suspicion
from protocol.notary import Notary
from tests.strategies import ADA, NOW_S, SWARM

Path = tuple[int, ...]


LEAST: dict[type[Message], Message] = {
    Advert: Advert("", (), (), 0, 0, 0, False, False),
    Pulse: Pulse(0, 0, 0, False, False),
    Suspicion: Suspicion(ADA.node, 0),
}
"""The smallest messages of the kinds that are passed on in envelopes of their own."""


def is_signed(hint: Any) -> bool:
    return get_origin(hint) is Signed


def sealed(kind: type[Message]) -> bytes:
    """The smallest message of a kind, sealed."""
    return Notary(ADA, SWARM, Random(1)).sign(LEAST[kind], 60.0, NOW_S).sealed


def children(hint: Any) -> list[Any]:
    """The annotations of the parts of a field, if it has parts."""
    if is_signed(hint) or not dataclasses.is_dataclass(hint):
        return []
    hints = get_type_hints(hint, include_extras=True)
    return [hints[field.name] for field in dataclasses.fields(hint)]


def bound_of(hint: Any) -> Any:
    return get_args(hint)[1] if get_origin(hint) is Annotated else None


def item_of(hint: Any) -> Any:
    return get_args(get_args(hint)[0])[0]


def least(hint: Any) -> Any:
    """The smallest plain value of a field or of a class."""
    if is_signed(hint):
        return sealed(get_args(hint)[0])
    if hint is bool:
        return False
    match bound_of(hint):
        case Text():
            return ""
        case Blob(bytes_min, _):
            return bytes(bytes_min)
        case Whole():
            return 0
        case Real(minimum, _):
            return minimum
        case Many():
            return []
    return [least(child) for child in children(hint)]


def places(hint: Any) -> Iterator[Path]:
    """The way to every field within, through one item of each list."""
    for at, child in enumerate(children(hint)):
        yield (at,)
        if isinstance(bound_of(child), Many):
            yield (at, 0)
            yield from ((at, 0, *rest) for rest in places(item_of(child)))


def hint_at(hint: Any, path: Path) -> Any:
    for step in path:
        hint = item_of(hint) if isinstance(bound_of(hint), Many) else children(hint)[step]
    return hint


def with_item(hint: Any, path: Path, item: Any) -> Any:
    """The smallest plain value of a class, but for one field."""
    if not path:
        return item
    if isinstance(bound_of(hint), Many):
        return [with_item(item_of(hint), path[1:], item)]
    return [
        with_item(child, path[1:], item) if at == path[0] else least(child) for at, child in enumerate(children(hint))
    ]


def within(hint: Any) -> list[Any]:
    """Plain values at the very edge of a field's bound."""
    match bound_of(hint):
        case Text(bytes_max):
            return ["", "x" * bytes_max, "é" * (bytes_max // 2), "\U0001f426" * (bytes_max // 4)]
        case Blob(bytes_min, bytes_max):
            return [bytes(bytes_min), bytes(bytes_max)]
        case Whole(highest):
            return [0, highest]
        case Real(minimum, maximum):
            return [minimum, maximum, math.nextafter(maximum, minimum)]
        case Many(items_max):
            return [[], [least(item_of(hint))] * items_max]
    return [False, True] if hint is bool else [least(hint)]


def beyond(hint: Any) -> list[Any]:
    """Plain values of the right type, one step outside a field's bound."""
    match bound_of(hint):
        case Text(bytes_max):
            return ["x" * (bytes_max + 1), "é" * (bytes_max // 2 + 1)]
        case Blob(bytes_min, bytes_max):
            return [bytes(bytes_max + 1), *([bytes(bytes_min - 1)] if bytes_min else [])]
        case Whole(highest):
            return [-1, highest + 1]
        case Real(minimum, maximum):
            outside = [math.nextafter(minimum, -math.inf), math.nextafter(maximum, math.inf)]
            return [*outside, math.nan, math.inf, -math.inf]
        case Many(items_max):
            return [[least(item_of(hint))] * (items_max + 1)]
    return [b"", b"x" * (codec.PASSED_ON[get_args(hint)[0]] + 1)] if is_signed(hint) else []


def built(hint: Any, value: Any) -> Any:
    """The object that a plain value stands for, without any check."""
    if is_signed(hint):
        return Signed(ADA.node, 0, 1, LEAST[get_args(hint)[0]], value)
    if isinstance(bound_of(hint), Many):
        return tuple(built(item_of(hint), item) for item in value)
    if dataclasses.is_dataclass(hint):
        return hint(*[built(child, part) for child, part in zip(children(hint), value, strict=True)])  # type: ignore[operator]
    return value
