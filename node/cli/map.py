"""`swarm map`: many tasks from a file, some at a time; results as they come, and nothing is asked twice after a restart.

Each item is a detached task of the node: it is on the disk before it is asked, goes on if this command ends, and goes on again
when the node itself was killed. What has been answered under the same batch and item is read from the journal.
"""

import hashlib
import json
import os
import queue
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO

import click

from node.cli.client import ControlClient
from node.cli.history import wait_ended
from node.cli.options import Verb, pass_terminal
from node.cli.task import batch_of, turns_of, wish_options, wishes_of
from node.cli.terminal import Terminal, plain
from node.exits import ExitCode, Failure

LINE_BYTES_MAX = 200_000  # A task has at most 96 kB; JSON may write each byte as two.
AT_ONCE = 8
AT_ONCE_MAX = 64  # As many as the node runs.
_ENDS_ALL = ("not_running", "connection_lost", "not_answering", "timeout", "journal_unreadable", "not_detached")


@click.command(cls=Verb)
@click.argument("file")
@wish_options
@click.option(
    "-j", "at_once", type=click.IntRange(1, AT_ONCE_MAX), default=AT_ONCE, show_default=True, help="At a time."
)
@click.option("--batch", metavar="NAME", help="The name to resume by; the file's path unless given.")
@pass_terminal
def command(
    terminal: Terminal, /, file: str, at_once: int, batch: str | None, system: str | None, **wishes: Any
) -> int:
    """Ask many tasks, one for each line of a file.

    A line of FILE (or of stdin, as -) is JSON: a text in quotes, or an object with "text", perhaps "id", "system", and what
    else may differ from item to item, such as "skill" or "tokens_max". Results are lines of JSON in the order in which they
    come; "item" is the id, or else the number of the line.

    Run it again to go on after an interruption: what has been answered is not asked again, what has failed is. To ask
    everything anew, give another --batch. Exit code 1 if an item failed.
    """
    defaults = {"system": system, **wishes_of(**wishes)}
    with _opened(file) as lines:
        work = _Work(terminal, lines, batch_of(batch, file), defaults)
        return work.run(at_once)


def _opened(file: str) -> BinaryIO:
    if file == "-":
        return os.fdopen(os.dup(sys.stdin.fileno()), "rb")
    try:
        return open(file, "rb")
    except OSError as error:
        raise Failure("no_such_file", f"{file} cannot be read: {error.strerror}") from None


@dataclass(frozen=True, slots=True)
class _Item:
    """One line. `key` is how the user calls it; `body` is empty if `wrong` says what is wrong with the line."""

    key: str
    body: dict[str, Any]
    wrong: str = ""

    @property
    def identity(self) -> str:
        """The same for the same question only: a line that was edited is another item."""
        asked = json.dumps(self.body, sort_keys=True).encode()
        return f"{self.key[:100]} {hashlib.sha256(asked).hexdigest()[:32]}"


class _Work:
    """The items of one run, those under way in threads of their own."""

    def __init__(self, terminal: Terminal, lines: BinaryIO, batch: str, defaults: dict[str, Any]) -> None:
        self._terminal, self._batch = terminal, batch
        self._items = _items(lines, defaults)
        self._taking = threading.Lock()
        self._stopped = False
        self._results: queue.Queue[dict[str, Any] | Failure | Exception | None] = queue.Queue()

    def run(self, at_once: int) -> int:
        for _ in range(at_once):
            threading.Thread(target=self._ask_all, daemon=True).start()
        running, done, failed = at_once, 0, 0
        try:
            while running:
                result = self._results.get()
                if result is None:
                    running -= 1
                elif isinstance(result, Exception):
                    raise result
                else:
                    self._terminal.record(result)
                    done += result["state"] == "done"
                    failed += result["state"] != "done"
        except (KeyboardInterrupt, Failure):
            self._stopped = True
            self._terminal.say(f"{done} answered, {failed} failed so far. The same command goes on from here.")
            raise
        self._terminal.say(f"{done} answered, {failed} failed.")
        return ExitCode.FAILED if failed else ExitCode.DONE

    def _ask_all(self) -> None:
        try:
            while not self._stopped:
                with self._taking:
                    item = next(self._items, None)
                if item is None:
                    break
                self._results.put(self._result(item))
            self._results.put(None)
        except Exception as error:  # noqa: BLE001  The main thread raises it.
            self._results.put(error)

    def _result(self, item: _Item) -> dict[str, Any]:
        result: dict[str, Any] = {"schema": "swarm.item/1", "item": item.key, "task": "", "state": "failed"}
        if item.wrong:
            return {**result, "code": "bad_request", "reason": item.wrong}
        client = ControlClient(self._terminal.home, self._terminal.timeout_s)
        try:
            begun = client.post("/tasks", {**item.body, "batch": self._batch, "item": item.identity})
            trace = wait_ended(self._terminal, client, str(begun["task"]))
        except Failure as failure:
            if failure.code in _ENDS_ALL:
                raise
            return {**result, "code": failure.code, "reason": plain(failure.message)}
        told = {name: trace["task"][name] for name in ("task", "state", "code", "reason", "name", "model", "seconds")}
        return {**result, **told, "text": trace["text"]}


def _items(lines: BinaryIO, defaults: dict[str, Any]) -> Iterator[_Item]:
    number = 0
    while line := lines.readline(LINE_BYTES_MAX + 1):
        number += 1
        if len(line) > LINE_BYTES_MAX:
            while line and not line.endswith(b"\n"):
                line = lines.readline(LINE_BYTES_MAX)
            yield _Item(str(number), {}, f"line {number} is longer than {LINE_BYTES_MAX:,} bytes")
        elif line.strip():
            yield _item(number, line, defaults)


def _item(number: int, line: bytes, defaults: dict[str, Any]) -> _Item:
    found: Any = None
    with suppress(ValueError):
        found = json.loads(line)
    if isinstance(found, str):
        found = {"text": found}
    if not isinstance(found, dict) or not isinstance(found.get("text"), str):
        return _Item(str(number), {}, f'line {number} is neither a text in quotes nor an object with "text"')
    wishes = {**defaults, **{name: value for name, value in found.items() if name not in ("id", "text")}}
    system = wishes.pop("system")
    key = str(found["id"]) if isinstance(found.get("id"), str | int) else str(number)
    return _Item(key, {"turns": turns_of(found["text"], system if isinstance(system, str) else None), **wishes})
