"""What a task is made of on the command line: its text from arguments, files and stdin, and its wishes."""

import hashlib
import json
import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from node.cli.options import DURATION
from node.exits import Failure
from protocol.limits import TURN_BYTES_MAX

BATCH_CHARACTERS_MAX = 256  # As the node takes them.

_Function = TypeVar("_Function", bound=Callable[..., Any])


class Real(click.FloatRange):
    """A number within bounds; NaN is within none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if number != number:
            self.fail(f"{value} is no number.", param, ctx)
        return number


SHARE = Real(0, 1)

_OPTIONS = [
    click.argument("text", nargs=-1),
    click.option(
        "-f", "--file", "files", multiple=True, metavar="FILE", help="Add a file's text; - is stdin. Repeatable."
    ),
    click.option("--system", metavar="TEXT", help="How the model shall behave."),
    click.option("--skill", help="What kind of task it is; see: swarm skills"),
    click.option("--model", help="Only this model."),
    click.option("--peer", metavar="PEER", help="Only this node, by name or id."),
    click.option("--local", is_flag=True, help="Never leave this node."),
    click.option("--deadline", type=DURATION, help="When to give up, such as 20s."),
    click.option("--tokens-max", type=click.IntRange(1), metavar="N", help="The longest answer."),
    click.option("--temperature", type=Real(0, 2), metavar="T", help="0: always the likeliest word."),
    click.option("--top-p", type=SHARE, metavar="P", help="Only the likeliest words of this share."),
    click.option("--top-k", type=click.IntRange(0), metavar="N", help="Only so many of the likeliest words; 0: all."),
    click.option("--min-p", type=SHARE, metavar="P", help="Only words at least so likely as this share of the best."),
    click.option("--repeat-penalty", type=Real(0.1, 10), metavar="X", help="Over 1: avoid what was said last."),
    click.option("--presence-penalty", type=Real(-2, 2), metavar="X", help="Over 0: avoid what the answer has said."),
    click.option("--frequency-penalty", type=Real(-2, 2), metavar="X", help="The same, the more the more often."),
    click.option("--seed", type=click.IntRange(0, 2**32 - 1), metavar="N", help="For the same dice again; 0: any."),
    click.option("--stop", "stops", multiple=True, metavar="TEXT", help="End the answer before this text. Repeatable."),
    click.option("--schema", metavar="FILE|JSON", help="The answer is JSON of this JSON Schema."),
    click.option("--grammar", metavar="FILE", help="The answer is of this grammar, in GBNF."),
    click.option("--option", "options", multiple=True, metavar="TEXT", help="Choose the likeliest of these. Repeatable."),
    click.option("--logprobs", type=click.IntRange(0, 20), metavar="N", help="With --json: how likely each token was."),
]


def task_options(function: _Function) -> _Function:
    """The arguments of a task, in the order of --help; `body_of` takes them."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def wish_options(function: _Function) -> _Function:
    """All but the text: for many tasks at once."""
    for option in reversed(_OPTIONS[2:]):
        function = option(function)
    return function


def body_of(*, text: tuple[str, ...], files: tuple[str, ...], system: str | None, **wishes: Any) -> dict[str, Any]:
    """The body of a request to ask or route. What the user left open is left to the node."""
    return {"turns": turns_of(_gathered(text, files), system), **wishes_of(**wishes)}


def batch_of(name: str | None, file: str) -> str:
    """What answers are found by when the same command runs again: the name that the user gave, or where the file is."""
    batch = name or ("stdin" if file == "-" else os.path.abspath(file))
    return batch if len(batch) <= BATCH_CHARACTERS_MAX else hashlib.sha256(batch.encode()).hexdigest()


def turns_of(text: str, system: str | None) -> list[dict[str, str]]:
    return [*([{"role": "system", "text": system}] if system else []), {"role": "user", "text": text}]


def wishes_of(
    *,
    local: bool,
    deadline: float | None,
    stops: tuple[str, ...],
    options: tuple[str, ...],
    schema: str | None,
    grammar: str | None,
    **others: Any,
) -> dict[str, Any]:
    """What the user wishes besides the text."""
    wishes = {
        "deadline_s": deadline,
        "stops": list(stops),
        "privacy": "local" if local else None,
        "options": list(options),
        "schema": _schema(schema) if schema is not None else None,
        "grammar": _read(grammar) if grammar is not None else None,
        **others,
    }
    return {name: value for name, value in wishes.items() if value is not None and value != []}


def _gathered(text: tuple[str, ...], files: tuple[str, ...]) -> str:
    """Words, then files; a lone `-`, or nothing at all with something piped in, is stdin."""
    parts = []
    words = " ".join(text)
    if words == "-":
        files = ("-", *files)
    elif words:
        parts.append(words)
    if not words and not files:
        if sys.stdin is None or sys.stdin.isatty():
            raise click.UsageError('Nothing to ask. Write it after the command: swarm ask "why is the sky blue?"')
        files = ("-",)
    parts += [_read(file) for file in files]
    gathered = "\n\n".join(parts)
    if not gathered.strip():
        raise click.UsageError("Nothing to ask: the text is empty.")
    try:
        count = len(gathered.encode())
    except UnicodeEncodeError:  # Python keeps bytes of an argument that are no text in this way.
        raise click.UsageError("The text is not UTF-8.") from None
    if count > TURN_BYTES_MAX:
        raise _too_long(f"it has {count:,} bytes")
    return gathered


def read_text(file: str, bytes_max: int, too_long: Callable[[str], Failure]) -> str:
    """The text of a file, or of stdin if it is `-`. Raises Failure; `too_long` makes it of what has more bytes."""
    what = "stdin" if file == "-" else file
    try:
        if file == "-":
            content = sys.stdin.buffer.read(bytes_max + 1)
        else:
            with open(file, "rb") as opened:
                content = opened.read(bytes_max + 1)
    except OSError as error:
        raise Failure("no_such_file", f"{file} cannot be read: {error.strerror}") from None
    if len(content) > bytes_max:
        raise too_long(what)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise Failure("bad_request", f"{what} is not UTF-8 text", hint="Models read text; convert it first.") from None


def _read(file: str) -> str:
    return read_text(file, TURN_BYTES_MAX, lambda what: _too_long(f"{what} alone has more")).rstrip("\n")


def _schema(text: str) -> dict[str, Any]:
    """A JSON Schema, or the file that holds one."""
    what = "--schema" if text.lstrip().startswith("{") else text
    try:
        schema = json.loads(text if what == "--schema" else _read(text))
    except (ValueError, RecursionError) as error:
        raise Failure("bad_request", f"{what} is no JSON: {error}") from None
    if not isinstance(schema, dict):
        raise Failure("bad_request", f"{what} is no JSON Schema", hint='One looks like this: {"type": "object"}')
    return schema


def _too_long(how: str) -> Failure:
    return Failure(
        "too_long",
        f"a task's text has at most {TURN_BYTES_MAX:,} bytes, and {how}",
        hint="Nothing was sent. Ask about a part of it.",
    )
