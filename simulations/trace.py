"""One line for each handled event and each effect, the same in every run of a seed; and the hash over all of them."""

from dataclasses import fields, is_dataclass
from enum import Enum
from hashlib import sha256
from typing import Any

from protocol.identity import NODE_ID_BYTES, NodeId
from simulations.machines import Process
from swarm.effects import Effect
from swarm.events import Event

Recorded = tuple[float, Process, Event | list[Effect]]
"""When, where, and an event or what came of one."""

TEXT_SHOWN_MAX = 80  # Inputs are long, and all alike.

_FIELDS: dict[type, tuple[str, ...]] = {}


def line_of(at: float, name: str, what: Any, names: dict[NodeId, str]) -> str:
    """`12.345678 worker-3 Received(worker-9, Ping(7))`: nodes by name, ids in hex."""
    return f"{at:.6f} {name} {_text(what, names)}"


def _text(value: Any, names: dict[NodeId, str]) -> str:
    kind = type(value)
    if kind is str:
        return repr(value) if len(value) <= TEXT_SHOWN_MAX else f"{value[:TEXT_SHOWN_MAX]!r}… {len(value)} characters"
    if kind is bytes:
        return names.get(value) or value.hex() if len(value) == NODE_ID_BYTES else value.hex()
    if kind is tuple:
        return "[" + ", ".join([_text(part, names) for part in value]) + "]"
    known = _FIELDS.get(kind)
    if known is None:
        if isinstance(value, Enum):
            return value.name
        if not is_dataclass(value):
            return repr(value)
        known = _FIELDS[kind] = tuple(field.name for field in fields(value))
    return f"{kind.__name__}({', '.join([_text(getattr(value, name), names) for name in known])})"


class TraceHash:
    """SHA-256 over the lines of a trace."""

    def __init__(self) -> None:
        self._hash = sha256()

    def __call__(self, line: str) -> None:
        self._hash.update(line.encode())
        self._hash.update(b"\n")

    def hexdigest(self) -> str:
        return self._hash.hexdigest()
