"""Bounds that a field of a message carries in its type, as in `Annotated[str, Text(32)]`."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Text:
    """UTF-8 of at most this many bytes."""

    bytes_max: int


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes of a length within these bounds, both included."""

    bytes_min: int
    bytes_max: int


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number from zero to this bound, included."""

    maximum: int


@dataclass(frozen=True, slots=True)
class Real:
    """A finite 64-bit float within these bounds, both included."""

    minimum: float
    maximum: float


@dataclass(frozen=True, slots=True)
class Many:
    """A list of at most this many items."""

    items_max: int


Bound = Text | Blob | Whole | Real | Many
