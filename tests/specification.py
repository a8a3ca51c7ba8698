"""The tables of SPEC.md, written from the registries of `protocol/`."""

import dataclasses
import re
from collections.abc import Callable
from inspect import getdoc
from pathlib import Path
from textwrap import fill
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import protocol.limits
from protocol.bounds import Blob, Many, Real, Text, Whole
from protocol.codec import PASSED_ON
from protocol.errors import ERROR_CODES
from protocol.exchange import TRANSITIONS
from protocol.messages import MESSAGES, Digest, Signed
from protocol.parts import Alternative, Capability, Demands, FunctionCall, Logprob, Sampling, Turn

SPEC = Path(__file__).parent.parent / "SPEC.md"
WIDTH = 120

_GROUPS = {1: "The link", 16: "Finding", 32: "Doing"}


def tables() -> dict[str, str]:
    """Each generated table by the name in its marker."""
    makers: dict[str, Callable[[], str]] = {
        "messages": _messages,
        "exchange": _exchange,
        "codes": _codes,
        "limits": _limits,
    }
    return {name: make() for name, make in makers.items()}


def with_tables(text: str) -> str:
    """The text of SPEC.md with its tables as they should be."""
    for name, table in tables().items():
        marker = re.compile(rf"(<!-- generated: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        assert len(marker.findall(text)) == 1, f"SPEC.md has no place for {name}"
        text = marker.sub(lambda found, table=table: f"{found[1]}\n{table}\n\n{found[2]}", text)
    return text


def _table(*rows: tuple[str, ...]) -> str:
    head, *rest = rows
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ("---",) * len(head), *rest))


def _messages() -> str:
    parts = []
    for kind, cls in sorted(MESSAGES.items()):
        if kind in _GROUPS:
            parts.append(f"### {_GROUPS[kind]}")
        parts.append(f"#### {kind} {cls.__name__} ({'sealed' if cls.SEALED else 'bare'})")
        parts.append(_described(cls))
    parts.append("### Parts")
    for part in (Alternative, Capability, Demands, Digest, FunctionCall, Logprob, Sampling, Turn):
        parts += [f"#### {part.__name__}", _described(part)]
    return "\n\n".join(parts)


def _described(cls: type) -> str:
    hints = get_type_hints(cls, include_extras=True)
    rows = [(f"`{field.name}`", _type(hints[field.name])) for field in dataclasses.fields(cls)]
    prose = [fill(" ".join(part.split()), WIDTH) for part in (getdoc(cls) or "").split("\n\n")]
    return "\n\n".join([*prose, _table(("field", "type"), *rows)])


def _type(hint: Any) -> str:
    if hint is bool:
        return "boolean"
    if get_origin(hint) is Signed:
        kind = get_args(hint)[0]
        return f"sealed {kind.__name__} up to {PASSED_ON[kind]}"
    if dataclasses.is_dataclass(hint):
        return hint.__name__  # type: ignore[union-attr]
    assert get_origin(hint) is Annotated
    inner, bound = get_args(hint)[:2]
    match bound:
        case Text(bytes_max):
            return f"text up to {bytes_max}"
        case Blob(least, most):
            return f"bytes {least}" if least == most else f"bytes {least} to {most}"
        case Whole(highest):
            return f"whole number up to {highest}"
        case Real(minimum, maximum):
            return f"real number {_number(minimum)} to {_number(maximum)}"
        case Many(items_max):
            return f"list up to {items_max} of {_type(get_args(inner)[0])}"
    raise AssertionError(bound)


def _exchange() -> str:
    rows = [(f.value, side.value, cls.__name__, after.value) for (f, side, cls), after in TRANSITIONS.items()]
    return _table(("stage", "sender", "message", "next stage"), *rows)


def _codes() -> str:
    rows = [
        (str(code.number), f"`{code.name}`", "definite" if code.definite else "indefinite", code.meaning)
        for code in ERROR_CODES.values()
    ]
    return _table(("number", "name", "", "meaning"), *rows)


def _number(value: float) -> str:
    return f"{value:.0f}" if value.is_integer() else str(value)


def _limits() -> str:
    """Numbers from the module, reasons from the comments beside them."""
    source = Path(protocol.limits.__file__).read_text(encoding="utf-8")
    rows = []
    for name, reason in re.findall(r"^(\w+): Final = [^#\n]+?(?:  # (.*))?$", source, re.MULTILINE):
        rows.append((f"`{name}`", str(getattr(protocol.limits, name)), reason))
    return _table(("limit", "value", "why"), *rows)
