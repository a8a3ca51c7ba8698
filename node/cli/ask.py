"""`swarm ask`: one task; its answer goes to stdout as it comes."""

import sys
from typing import Any

import click

from node.cli.client import ControlClient, task_failure
from node.cli.offers import with_offers
from node.cli.options import Verb, pass_terminal
from node.cli.program import tell
from node.cli.task import body_of, task_options
from node.cli.terminal import SHORT_ID, Terminal, plain
from node.exits import ExitCode, Failure


@click.command(cls=Verb)
@task_options
@click.option("--why", is_flag=True, help="Tell afterwards who answered, and who else could have.")
@click.option("--no-stream", is_flag=True, help="Print the answer when it is complete.")
@click.option("--detach", is_flag=True, help="Do not wait: print the task's id, and let the node go on.")
@pass_terminal
def command(terminal: Terminal, /, why: bool, no_stream: bool, detach: bool, **task: Any) -> int:
    """Ask the swarm, and print the answer as it comes.

    TEXT is the question; with - or without any it is read from stdin.

    A detached task is on the disk before its id is printed, and goes on even if the node ends and is started again.
    Its answer: swarm history ID
    """
    body = body_of(**task)
    client = ControlClient(terminal.home, terminal.timeout_s)
    if detach:
        return _detach(terminal, client, body)
    answer = _Answer(terminal, streamed=not (no_stream or terminal.json))
    end: dict[str, Any] | None = None
    try:
        for name, data in client.stream("/ask", body):
            if name == "text":
                answer.add(str(data["text"]), data.get("logprobs", []))
            elif name == "end":
                end = data
                break
            elif name == "error":
                raise task_failure(str(data["error"]["code"]), str(data["error"]["message"]))
        if end is None:
            raise Failure(
                "connection_lost", "the node went away before the answer was complete", hint="See: swarm status"
            )
        if end["code"]:
            raise task_failure(str(end["code"]), str(end["reason"] or end["code"]))
    except (Failure, KeyboardInterrupt) as ending:
        answer.finish()
        if not isinstance(ending, Failure):
            raise
        ending = with_offers(ending, client)
        more = {"text": answer.text, "answer": end} if terminal.json else {}
        tell(terminal, ending, **more)
        if why and end is not None and not terminal.json:
            _explain(terminal, end)
        return ending.exit
    answer.finish()
    if terminal.json:
        logprobs = {"logprobs": answer.logprobs} if answer.logprobs else {}
        terminal.record({"schema": "swarm.answer/1", "text": answer.text, **logprobs, **end})
    elif why:
        _explain(terminal, end)
    return ExitCode.DONE


def _detach(terminal: Terminal, client: ControlClient, body: dict[str, Any]) -> int:
    """Hand the task in and leave."""
    try:
        taken = client.post("/tasks", body)
    except Failure as failure:
        raise with_offers(failure, client) from None
    if terminal.json:
        terminal.record(taken)
        return ExitCode.DONE
    identity = str(taken["task"])
    terminal.out(plain(identity))
    terminal.say(
        f"Its answer: swarm history {plain(identity[:SHORT_ID])}    What happens to it: swarm trace {plain(identity[:SHORT_ID])}"
    )
    return ExitCode.DONE


class _Answer:
    """The text so far, and how much of it has been printed."""

    def __init__(self, terminal: Terminal, *, streamed: bool) -> None:
        self._json = terminal.json
        self._streamed = streamed
        self._teeth = not sys.stdout.isatty()  # Into a file or pipe goes exactly what the model wrote.
        self._pieces: list[str] = []
        self.logprobs: list[Any] = []

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    def add(self, text: str, logprobs: list[Any]) -> None:
        self._pieces.append(text)
        self.logprobs += logprobs
        if self._streamed:
            self._print(text)

    def finish(self) -> None:
        """Print what is left, and end the last line."""
        if self._json:
            return
        text = self.text
        if not self._streamed:
            self._print(text)
        if text and not text.endswith("\n"):
            self._print("\n")

    def _print(self, text: str) -> None:
        sys.stdout.write(text if self._teeth else plain(text, lines=True))
        sys.stdout.flush()


def _explain(terminal: Terminal, end: dict[str, Any]) -> None:
    """Who answered, and how they were chosen."""
    from node.cli.reading import read  # These cost 15 ms, which only --why shall pay.
    from node.cli.why import why_text
    from node.views import AnswerView

    terminal.complain(why_text(read(AnswerView, end)))
