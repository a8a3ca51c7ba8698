"""`swarm version`: which version this is, and which one runs."""

import platform

import click

from node.cli.client import ControlClient
from node.cli.options import Verb, pass_terminal
from node.cli.terminal import Terminal, plain
from node.exits import Failure
from node.version import program_version


@click.command(cls=Verb)
@pass_terminal
def command(terminal: Terminal) -> None:
    """Show the version.

    Also that of the running node, which differs after an upgrade until it is restarted.
    """
    own, running = program_version(), _running(terminal)
    if terminal.json:
        found = {"version": own, "running": running, "python": platform.python_version()}
        terminal.record({"schema": "swarm.version/1", **found})
        return
    terminal.out(f"swarm {own}")
    if running and running != own:
        terminal.complain(f"! the running node is {plain(running)}; restart it: swarm down && swarm up")


def _running(terminal: Terminal) -> str | None:
    try:
        status = ControlClient(terminal.home, terminal.timeout_s).get("/status")
    except Failure:
        return None
    found = status.get("version") if isinstance(status, dict) else None
    return found if isinstance(found, str) else None
