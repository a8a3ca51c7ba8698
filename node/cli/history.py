"""`swarm history`: what was asked before, newest first; or, with an id, the answer to that task."""

import sys
import time
from typing import Any

import click

from node.cli.client import ControlClient, task_failure
from node.cli.options import Verb, pass_terminal
from node.cli.reading import read, read_list
from node.cli.terminal import SHORT_ID, Terminal, duration, plain, table
from node.exits import ExitCode, Failure
from node.views import TaskView, TraceView

WAIT_S = 20.0  # The node answers after that at the latest, and is asked again.
_LISTED_MAX = 10_000
_NONE = "—"


@click.command(cls=Verb)
@click.argument("id", required=False)
@click.option("-n", "count", type=click.IntRange(1, _LISTED_MAX), default=20, show_default=True, help="How many tasks.")
@pass_terminal
def command(terminal: Terminal, /, id: str | None, count: int) -> int:
    """Show what was asked before, or the answer to one task.

    With an ID, of which the first digits are enough, print that task's answer; if it is still under way, wait for it.
    Then the exit code is that of the task, as if it had just been asked.
    """
    client = ControlClient(terminal.home, terminal.timeout_s)
    if id is not None:
        return _answer(terminal, client, id)
    data = client.get(f"/tasks?count={count}")
    tasks = read_list(TaskView, data, "tasks")
    if terminal.json:
        for task in data["tasks"]:
            terminal.record(task)
    elif tasks:
        terminal.out(tasks_table(tasks, time.time()))
    else:
        terminal.say("Nothing was asked yet.")
    return ExitCode.DONE


def tasks_table(tasks: list[TaskView], now: float) -> str:
    """One line for each task."""
    rows = [
        [
            task.task[:SHORT_ID],
            duration(max(0.0, now - task.asked_at_ms / 1000)),
            task.skill,
            f"{task.state}: {task.code}" if task.state == "failed" else task.state,
            task.name or _NONE,
            _NONE if task.seconds is None else duration(task.seconds),
            task.begins,
        ]
        for task in tasks
    ]
    return table(["TASK", "AGO", "SKILL", "STATE", "WORKER", "TOOK", "QUESTION"], rows, right=["AGO", "TOOK"])


def _answer(terminal: Terminal, client: ControlClient, prefix: str) -> int:
    data = wait_ended(terminal, client, prefix)
    trace = read(TraceView, data)
    if terminal.json:
        terminal.record(data)
    elif trace.text:
        whole = trace.text if not sys.stdout.isatty() else plain(trace.text, lines=True)
        sys.stdout.write(whole if whole.endswith("\n") else whole + "\n")
    task = trace.task
    if task.state == "done":
        if not trace.text and not task.begins and not terminal.json:
            terminal.say("The journal keeps no text of this task.")
        return ExitCode.DONE
    failure = task_failure(task.code or task.state, task.reason or f"the task was {task.state}")
    if terminal.json:
        return failure.exit
    raise failure


def wait_ended(terminal: Terminal, client: ControlClient, prefix: str) -> Any:
    """The trace of a task once it has ended. Raises Failure, also when --timeout has passed."""
    until = None if terminal.timeout_s is None else time.monotonic() + terminal.timeout_s
    while True:
        left_s = WAIT_S if until is None else max(0.0, min(WAIT_S, until - time.monotonic()))
        data = client.get(task_path(prefix, left_s))
        if read(TraceView, data).task.state != "open":
            return data
        if left_s < WAIT_S:
            raise Failure("timeout", "the task is still under way", hint=f"What happens to it: swarm trace {prefix}")


def task_path(prefix: str, wait_s: float = 0.0) -> str:
    """Where one task is told of. Raises Failure for what cannot be an id."""
    if not prefix or not all(digit in "0123456789abcdefABCDEF" for digit in prefix):
        raise Failure("bad_request", f'"{prefix}" is no task id', hint="See what was asked with: swarm history")
    return f"/tasks/{prefix}?wait_s={wait_s:.3f}" if wait_s else f"/tasks/{prefix}"
