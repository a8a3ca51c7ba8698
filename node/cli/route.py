"""`swarm route`: who would answer, and why; sends nothing."""

from typing import Any

import click

from node.cli.client import ControlClient
from node.cli.offers import with_offers
from node.cli.options import Verb, pass_terminal
from node.cli.reading import read
from node.cli.tables import route_text
from node.cli.task import body_of, task_options
from node.cli.terminal import Terminal
from node.exits import ExitCode, Failure
from node.views import RouteView


@click.command(cls=Verb)
@task_options
@pass_terminal
def command(terminal: Terminal, /, **task: Any) -> int:
    """Show who would answer, and why; sends nothing.

    The lowest cost is best. Two are drawn at random and the better one is taken, so that not everybody asks the same
    node. Exit code 5 if nobody could answer.
    """
    client = ControlClient(terminal.home, terminal.timeout_s)
    try:
        data = client.post("/route", body_of(**task))
    except Failure as failure:
        raise with_offers(failure, client) from None
    route = read(RouteView, data)
    if terminal.json:
        terminal.record(data)
    else:
        terminal.out(route_text(route))
    return ExitCode.DONE if route.candidates else ExitCode.NO_CAPABLE_PEER
