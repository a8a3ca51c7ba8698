"""What a command sees of the terminal: where data and narration go, in which form, and for which home.

stdout is data, stderr is narration. Text from other nodes is drawn only after `plain` has taken its teeth.
"""

import json
import os
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from node.store.home import Home


@dataclass(slots=True)
class Terminal:
    """The flags that every command shares. `timeout_s` is None where the user left it to the command."""

    json: bool = False
    quiet: bool = False
    color: str = "auto"
    debug: bool = False
    timeout_s: float | None = None
    home_folder: str | None = None
    config_file: str | None = None

    @property
    def environ(self) -> dict[str, str]:
        """The environment with --home and --config in it, for finding the home and for the daemon."""
        flags = {"SWARM_HOME": self.home_folder, "SWARM_CONFIG": self.config_file}
        return {**os.environ, **{name: os.path.abspath(value) for name, value in flags.items() if value}}

    @property
    def home(self) -> "Home":
        from node.store.home import find_home

        return find_home(self.environ)

    def out(self, text: str) -> None:
        """Data, for people."""
        click.echo(text, color=self._color(sys.stdout))

    def record(self, data: Mapping[str, Any]) -> None:
        """Data, for programs: one line of JSON."""
        print(json.dumps(data, ensure_ascii=False), flush=True)

    def say(self, text: str) -> None:
        """Narration; --quiet and --json silence it."""
        if not (self.quiet or self.json):
            click.echo(text, err=True, color=self._color(sys.stderr))

    def complain(self, text: str) -> None:
        """Narration of what went wrong; never silenced."""
        click.echo(text, err=True, color=self._color(sys.stderr))

    def _color(self, stream: Any) -> bool:
        if self.color != "auto":
            return self.color == "always"
        return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def plain(text: str, *, lines: bool = False) -> str:
    """Text that cannot move the cursor, recolour the screen or turn its direction around; `lines` keeps line breaks."""
    if text.isprintable():
        return text
    return "".join("\N{REPLACEMENT CHARACTER}" if _dangerous(c) and not (lines and c in "\n\t") else c for c in text)


def _dangerous(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or character in _TURNS_DIRECTION


_TURNS_DIRECTION = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> str:
    """Columns as wide as their widest cell, two spaces apart; columns named in `right` are flushed right."""
    cells = [list(header), *([plain(cell) for cell in row] for row in rows)]
    widths = [max(_width(row[column]) for row in cells) for column in range(len(header))]
    lines = []
    for row in cells:
        parts = []
        for column, cell in enumerate(row):
            gap = " " * (widths[column] - _width(cell))
            parts.append(gap + cell if header[column] in right else cell + gap)
        lines.append("  ".join(parts).rstrip())
    return "\n".join([click.style(lines[0], dim=True), *lines[1:]])


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def duration(seconds: float) -> str:
    """`40 ms`, `0.9 s`, `41s`, `2h 14m`, `3d 4h`: short enough for a column."""
    if seconds < 0.1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02}s"
    if whole < 86_400:
        return f"{whole // 3600}h {whole // 60 % 60:02}m"
    return f"{whole // 86_400}d {whole // 3600 % 24}h"


def short_id(node: str) -> str:
    """A peer id for narrow columns: `12D3KooW…f9Qc`."""
    return f"{node[:8]}…{node[-4:]}" if len(node) > 13 else node


SHORT_ID = (
    8  # Digits of a task's id that are shown; among ten thousand tasks two share them once in a hundred journals.
)


def short_path(path: str | os.PathLike[str]) -> str:
    """A path with the home folder as `~`."""
    text, own = os.fspath(path), os.path.expanduser("~")
    return "~" + text[len(own) :] if own != "/" and text.startswith(own + "/") else text


def size(count: float) -> str:
    """Bytes for people: `512 B`, `14.2 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
