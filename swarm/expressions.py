"""How the steps of a plan speak of what is known: references, texts with references in them, and conditions.

A value is what JSON can say. Nothing here calls anything: a plan may come from anybody, and what workers answered is data.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

Value: TypeAlias = "bool | int | float | str | list[Value] | dict[str, Value] | None"
Values: TypeAlias = Mapping[str, Value]

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_PLACE = re.compile(r"\$\$\{|\$\{([^{}]*)\}|\$\{")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?")
TEXT_CHARACTERS_MAX = 1_000_000  # Of a text that steps put together: a few lines could double it thirty times.
DEPTH_MAX = 32  # Of lists and objects within each other.
DIGITS_MAX = 300  # Of a number. In a text a longer one is none.
_TOO_LARGE = 10**DIGITS_MAX


class PlanError(Exception):
    """A plan cannot be carried out as it is written. The message names the step and what to write instead."""


class StepFailed(Exception):
    """A step has come to nothing with what it was given. The message is for people."""


@dataclass(frozen=True, slots=True)
class Reference:
    """`${name}` or `${name.field.0}`: a value by its name, and the way into it."""

    name: str
    path: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "${" + ".".join((self.name, *self.path)) + "}"

    def of(self, values: Values) -> Value:
        """What it stands for. Raises StepFailed if the way leads nowhere."""
        value = values[self.name]
        for part in self.path:
            value = _inside(value, part, str(self))
        return value


@dataclass(frozen=True, slots=True)
class Template:
    """A text in which references are filled in: `Translate into ${language}: ${item}`. `$${` stands for `${` itself."""

    parts: tuple[str | Reference, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(part.name for part in self.parts if isinstance(part, Reference))

    def of(self, values: Values) -> str:
        """The text: strings as they are, all else as JSON. Raises StepFailed."""
        return joined((part if isinstance(part, str) else text_of(part.of(values)) for part in self.parts), "")


@dataclass(frozen=True, slots=True)
class Condition:
    """What a value must be. All that is set must hold; a value that is null fulfils none, nor its contrary.

    Texts are compared without regard to case and to white space around them, since models differ in these. `above` and `below` are
    for numbers, also those in a text; a text that is no number fulfils neither. `field` is the way into a value that has parts.
    What it is compared with may name values, too.
    """

    field: tuple[str, ...] = ()
    one_of: "tuple[Value | Template, ...] | None" = None
    contains: str | Template | None = None
    above: float | None = None
    below: float | None = None
    unless: "Condition | None" = None

    @property
    def names(self) -> tuple[str, ...]:
        compared = [part for part in (*(self.one_of or ()), self.contains) if isinstance(part, Template)]
        own = tuple(name for part in compared for name in part.names)
        return own if self.unless is None else own + self.unless.names

    def of(self, values: Values) -> "Condition":
        """The same with values in place of their names. Raises StepFailed."""
        one_of = None if self.one_of is None else tuple(_filled(part, values) for part in self.one_of)
        contains = text_of(_filled(self.contains, values)) if isinstance(self.contains, Template) else self.contains
        unless = None if self.unless is None else self.unless.of(values)
        return Condition(self.field, one_of, contains, self.above, self.below, unless)

    def holds(self, value: Value) -> bool:
        """Of one that names no values any more."""
        for part in self.field:
            try:
                value = _inside(value, part, part)
            except StepFailed:
                return False
        if value is None:
            return False
        if self.one_of is not None and _same(value) not in [_same(other) for other in self.one_of]:
            return False
        if isinstance(self.contains, str) and self.contains.casefold() not in text_of(value).casefold():
            return False
        if self.above is not None or self.below is not None:
            number = number_of(value)
            if number is None or (self.above is not None and not number > self.above):
                return False
            if self.below is not None and not number < self.below:
                return False
        return self.unless is None or not self.unless.holds(value)


def reference_of(text: str) -> Reference:
    """What a text stands for that is nothing but one reference. Raises PlanError."""
    parts = template_of(text).parts
    if len(parts) != 1 or not isinstance(parts[0], Reference):
        raise PlanError(f"{text[:80]!r} is not the name of a value; write ${{name}}")
    return parts[0]


def template_of(text: str) -> Template:
    """A text with its references. Raises PlanError for what looks like one and is none."""
    parts: list[str | Reference] = []
    end = 0
    for found in _PLACE.finditer(text):
        parts.append(text[end : found.start()])
        end = found.end()
        if found.group() == "$${":
            parts.append("${")
            continue
        name, *path = (found.group(1) or "").split(".")
        if not NAME.fullmatch(name) or not all(path):
            shown = text[found.start() : found.start() + 40]
            raise PlanError(f"{shown!r} names no value; write ${{name}} or ${{name.field}}, and $${{ for the signs themselves")
        parts.append(Reference(name, tuple(path)))
    parts.append(text[end:])
    return Template(tuple(part for part in parts if part))


def text_of(value: Value) -> str:
    """A string as it is, all else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def value_of(text: str) -> Value:
    """What JSON says. Raises StepFailed, also for what JSON can say and later steps could not: half characters, endless numbers."""
    try:
        value: Value = json.loads(text)
    except (ValueError, RecursionError):
        raise StepFailed("that is not JSON") from None
    wrong = oddity(value)
    if wrong:
        raise StepFailed(wrong)
    return value


def oddity(value: Value) -> str:
    """What makes a value unfit for a plan, for people; empty if nothing does."""
    below: list[tuple[Value, int]] = [(value, 1)]
    while below:
        each, depth = below.pop()
        if depth > DEPTH_MAX:
            return f"nested more than {DEPTH_MAX} deep"
        if isinstance(each, float) and not math.isfinite(each):
            return "a number that is none, or endless"
        if isinstance(each, int) and abs(each) >= _TOO_LARGE:
            return f"a number of more than {DIGITS_MAX} digits"
        if isinstance(each, str) and not each.isascii():
            try:
                each.encode()
            except UnicodeEncodeError:
                return "half of a character"
        if isinstance(each, list):
            below += [(part, depth + 1) for part in each]
        elif isinstance(each, dict):
            below += [(part, depth + 1) for pair in each.items() for part in pair]
    return ""


def joined(texts: Iterable[str], between: str) -> str:
    """One text out of many. Raises StepFailed as soon as it is too long."""
    parts: list[str] = []
    size = 0
    for text in texts:
        parts.append(text)
        size += len(text) + len(between)
        if size > TEXT_CHARACTERS_MAX:
            raise StepFailed(f"a text of more than {TEXT_CHARACTERS_MAX} characters")
    return between.join(parts)


def number_of(value: Value) -> float | int | None:
    """The number that a value is, also in a text; None if it is none."""
    if isinstance(value, str):
        text = value.strip()
        if len(text) > DIGITS_MAX or not _NUMBER.fullmatch(text):
            return None
        number = int(text) if text.lstrip("+-").isdecimal() else float(text)
        return number if math.isfinite(number) else None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _filled(part: "Value | Template", values: Values) -> Value:
    """A text that is nothing but a reference is the value itself."""
    if not isinstance(part, Template):
        return part
    if len(part.parts) == 1 and isinstance(part.parts[0], Reference):
        return part.parts[0].of(values)
    return part.of(values)


def _same(value: "Value | Template") -> "tuple[bool, Value | Template]":
    """What two values have in common that count as the same. To Python true is 1, to JSON it is not."""
    return isinstance(value, bool), value.strip().casefold() if isinstance(value, str) else value


def _inside(value: Value, part: str, shown: str) -> Value:
    if isinstance(value, dict) and part in value:
        return value[part]
    if isinstance(value, list) and part.isdecimal() and len(part) < 10 and int(part) < len(value):
        return value[int(part)]
    kind = "an object" if isinstance(value, dict) else "a list" if isinstance(value, list) else repr(value)[:40]
    raise StepFailed(f"{shown}: {kind} has no {part}")
