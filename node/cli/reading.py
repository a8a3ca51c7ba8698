"""Makes views out of the node's JSON, and says so when the node is of another version."""

import types
import typing
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, TypeVar

from node.exits import Failure

_View = TypeVar("_View")


def read(view: type[_View], data: Any) -> _View:
    """A view from decoded JSON. Fields that this version does not know are skipped; missing ones raise Failure."""
    try:
        return typing.cast(_View, _value(view, data))
    except (TypeError, ValueError, KeyError) as error:
        raise Failure(
            "bad_answer",
            f"the node's answer is not a {view.__name__} ({error})",
            hint="If it was upgraded while it ran, restart it: swarm down && swarm up",
        ) from None


def read_list(view: type[_View], data: Any, key: str) -> list[_View]:
    """The views in one list of an answer."""
    if not isinstance(data, dict) or not isinstance(data.get(key), list):
        return [read(view, None)]
    return [read(view, item) for item in data[key]]


def _value(kind: Any, data: Any) -> Any:
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if is_dataclass(kind):
        return _view(kind, data)
    if origin is list:
        return [_value(parts[0], item) for item in _expect(list, data)]
    if origin is tuple:
        return tuple(_value(part, item) for part, item in zip(parts, _expect(list, data), strict=True))
    if origin is dict:
        return {_expect(str, key): _value(parts[1], item) for key, item in _expect(dict, data).items()}
    if origin is types.UnionType:
        if data is None and type(None) in parts:
            return None
        return _value(next(part for part in parts if part is not type(None)), data)
    if kind is float:
        return float(_expect((int, float), data))
    return _expect(kind, data)


def _view(kind: Any, data: Any) -> Any:
    _expect(dict, data)
    hints = typing.get_type_hints(kind)
    values = {}
    for item in fields(kind):
        if item.name in data:
            values[item.name] = _value(hints[item.name], data[item.name])
        elif item.default is MISSING and item.default_factory is MISSING:
            raise KeyError(item.name)
    return kind(**values)


def _expect(kind: Any, data: Any) -> Any:
    if not isinstance(data, kind) or (isinstance(data, bool) and kind is not bool):
        raise TypeError(f"{type(data).__name__} in place of {kind}")
    return data
