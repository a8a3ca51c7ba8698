"""`swarm trace`: what happened to a task, decision by decision, and where the time went."""

import time

import click

from node.cli.client import ControlClient
from node.cli.history import task_path
from node.cli.options import Verb, pass_terminal
from node.cli.reading import read
from node.cli.tables import route_text
from node.cli.terminal import Terminal, duration, plain, table
from node.cli.why import attempt_text, headline
from node.exits import ExitCode
from node.views import AnswerView, AttemptView, TaskView, TraceView


@click.command(cls=Verb)
@click.argument("id")
@pass_terminal
def command(terminal: Terminal, /, id: str) -> int:
    """Show what happened to a task, and where the time went.

    The first digits of the ID are enough. For each choice: every candidate with what its cost was made of, who was left
    out and why, and how the attempt went: refused, failed, overtaken, gone on elsewhere, or answered.
    """
    data = ControlClient(terminal.home, terminal.timeout_s).get(task_path(id))
    trace = read(TraceView, data)
    if terminal.json:
        terminal.record(data)
    else:
        terminal.out(trace_text(trace, time.time()))
    return ExitCode.DONE


def trace_text(trace: TraceView, now: float) -> str:
    """The whole account, for people."""
    answer = trace.answer
    lines = [_title(trace.task, now)]
    if trace.task.begins:
        lines.append(f"  {plain(trace.task.begins)}")
    if trace.task.state == "open":
        lines.append("— under way")
    elif trace.task.seconds is None:
        lines.append(f"— {plain(trace.task.reason)}")
    else:
        lines.append(headline(answer))
        if answer.code:
            lines.append(f"  {plain(answer.code)}: {plain(answer.reason)}")
    begun = sorted(answer.attempts, key=lambda attempt: attempt.begun_s)
    paired = len(begun) == len(answer.routes)
    for number, route in enumerate(answer.routes):
        attempt = begun[number] if paired else None
        why = f", {_WHY.get(attempt.why, plain(attempt.why))}, at {duration(attempt.begun_s)}" if attempt else ""
        lines += ["", f"{number + 1}. choice{why}: {route_text(route)}"]
        if attempt:
            lines += _attempt(attempt)
    if not paired:
        lines += ["", *(line for attempt in begun for line in _attempt(attempt))]
    spent = _spent(answer, begun)
    if spent:
        lines += ["", table(["WHERE THE TIME WENT", ""], spent, right=[""])]
    return "\n".join(lines)


_WHY = {
    "first": "the first",
    "retry": "as the one before did not do",
    "hedge": "as the one before was slower than usual",
    "silence": "as the one before gave no sign of life",
    "moved": "as the one before had others to serve first",
    "resume": "to go on in the middle",
}


def _title(task: TaskView, now: float) -> str:
    facts = [f"task {plain(task.task)}", plain(task.skill), plain(task.state)]
    facts.append(f"{duration(max(0.0, now - task.asked_at_ms / 1000))} ago")
    facts += ["detached"] if task.detached else []
    facts += ["never left this node"] if task.privacy == "local" else []
    facts += [f"batch {plain(task.batch)}, item {plain(task.item)}"] if task.batch else []
    return " · ".join(facts)


def _attempt(attempt: AttemptView) -> list[str]:
    steps = []
    if attempt.accepted_s is not None:
        steps.append(f"accepted after {duration(attempt.accepted_s)}")
    if attempt.first_piece_s is not None:
        steps.append(f"first text after {duration(attempt.first_piece_s)}, {attempt.pieces} in all")
    return [attempt_text(attempt), *([f"    {', '.join(steps)}"] if steps else [])]


def _spent(answer: AnswerView, begun: list[AttemptView]) -> list[list[str]]:
    """The parts of the whole time, as far as they are known; the last worker's own clock tells queue from thinking."""
    if not begun:
        return []
    last = next((attempt for attempt in begun if not attempt.code), begun[-1])
    parts: list[tuple[str, float | None]] = [("until the first worker was asked", begun[0].begun_s)]
    if last is not begun[0]:
        parts.append((f"with others, until {last.name} was asked", last.begun_s - begun[0].begun_s))
    parts.append((f"until {last.name} accepted", last.accepted_s))
    if last.first_piece_s is not None and last.accepted_s is not None:
        waited_s = last.first_piece_s - last.accepted_s
        if answer.worker_first_token_s is not None and not last.code:
            thought_s = min(waited_s, answer.worker_first_token_s)
            parts += [("in its queue and on the way", waited_s - thought_s), ("until its first token", thought_s)]
        else:
            parts.append(("until its first text", waited_s))
        parts.append(("text", last.seconds - last.first_piece_s))
    elif last.accepted_s is not None:
        parts.append(("without text", last.seconds - last.accepted_s))
    if answer.gap_s is not None:
        parts.append(("  of which the longest silence", answer.gap_s))
    parts.append(("in all", answer.seconds))
    return [[name, duration(max(0.0, seconds))] for name, seconds in parts if seconds is not None]
