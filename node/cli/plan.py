"""`swarm plan`: a larger task, written down as steps, which the node shares out over the swarm; the result goes to stdout."""

import json
import sys
from collections import Counter
from typing import Any

import click

from node.cli.client import ControlClient, task_failure
from node.cli.options import Verb, pass_terminal
from node.cli.program import tell
from node.cli.task import batch_of, read_text
from node.cli.terminal import Terminal, duration, plain
from node.exits import ExitCode, Failure

BYTES_MAX = 1_000_000  # Of a file; the node reads a body of one MiB.


@click.command(cls=Verb)
@click.argument("file")
@click.option(
    "--input", "inputs", multiple=True, metavar="NAME=VALUE", help="A text, or @FILE: .json and .jsonl are read as such."
)
@click.option("--batch", metavar="NAME", help="The name to resume by; the file's path unless given.")
@pass_terminal
def command(terminal: Terminal, /, file: str, inputs: tuple[str, ...], batch: str | None) -> int:
    """Carry out a plan: a larger task in steps for several workers.

    FILE (or stdin, as -) is JSON: steps, each a value that others are made from, and which of them is the result. The README
    shows what steps there are. --input gives or replaces values of the plan's "inputs".

    Run it again to go on after an interruption: what has been answered is not asked again, unless the step or what it was
    asked about has changed. To ask everything anew, give another --batch.
    """
    body = _decoded(_read(file), file)
    if not isinstance(body, dict):
        raise Failure("bad_plan", f"{file} is no plan: not a JSON object", exit=ExitCode.USAGE)
    given = dict(_input(text) for text in inputs)
    if given:
        known = body.get("inputs")
        body["inputs"] = {**(known if isinstance(known, dict) else {}), **given}
    if batch or "batch" not in body:
        body["batch"] = batch_of(batch, file)
    end = _carried_out(terminal, body)
    if terminal.json:
        terminal.record(end)
    elif end["state"] == "done":
        value = end["value"]
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)
        terminal.out(text if not sys.stdout.isatty() else plain(text, lines=True))
    terminal.say(_summary(end))
    if end["state"] == "done":
        return ExitCode.DONE
    failure = Failure("plan_failed", f"the plan came to no result: {end['reason']}", hint="The same command goes on from here.")
    if not terminal.json:
        tell(terminal, failure)
    return failure.exit


def _carried_out(terminal: Terminal, body: dict[str, Any]) -> dict[str, Any]:
    """The end of the plan; what comes before is told as it comes."""
    ends: dict[str, Counter[str]] = {}  # Of each step, how many tasks ended with whom, or failed.
    for name, data in ControlClient(terminal.home, terminal.timeout_s).stream("/plans", body):
        if name == "task":
            ends.setdefault(data["step"], Counter())["failed" if data["code"] else f"by {data['name']}"] += 1
        elif name == "step" and data["settled"] == data["of"]:
            ended = ends.get(data["step"], Counter())
            ended["known before"] = data["known"]
            parts = [f"{count} {what}" for what, count in ended.most_common() if count]
            terminal.say(plain(f"{data['step']}: {', '.join(parts) or 'nothing to ask'}"))
        elif name == "error":
            raise task_failure(str(data["error"]["code"]), str(data["error"]["message"]))
        elif name == "end":
            found: dict[str, Any] = data
            return found
    raise Failure("connection_lost", "the node went away before the plan was done", hint="The same command goes on from here.")


def _summary(end: dict[str, Any]) -> str:
    known = sum(step["known"] for step in end["steps"])
    failed = sum(step["failed"] for step in end["steps"])
    parts = [f"{end['tasks']} asked", *([f"{known} known"] if known else []), *([f"{failed} failed"] if failed else [])]
    return f"{', '.join(parts)}, {duration(end['seconds'])}"


def _input(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise Failure("bad_input", f'--input "{text[:80]}": write NAME=VALUE, or NAME=@FILE', exit=ExitCode.USAGE)
    if not value.startswith("@"):
        return name, value
    path = value[1:]
    content = _read(path)
    if path.endswith(".jsonl"):
        return name, [_decoded(line, path) for line in content.splitlines() if line.strip()]
    if path.endswith(".json"):
        return name, _decoded(content, path)
    return name, content


def _read(path: str) -> str:
    return read_text(path, BYTES_MAX, lambda what: Failure("too_large", f"{what} is larger than {BYTES_MAX:,} bytes"))


def _decoded(text: str, origin: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Failure("bad_plan", f"{origin} is not JSON: {error}", exit=ExitCode.USAGE) from None
