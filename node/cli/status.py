"""`swarm status`: this node and its swarm on one screen."""

import click

from node.cli.client import ControlClient
from node.cli.options import Verb, pass_terminal
from node.cli.reading import read
from node.cli.tables import model_trouble, peers_table
from node.cli.terminal import Terminal, duration, plain, short_id, size
from node.exits import ExitCode
from node.views import StatusView


@click.command(cls=Verb)
@pass_terminal
def command(terminal: Terminal) -> int:
    """This node and its swarm on one screen.

    Exit code 0 if it is up and ready, 3 if it is not running.
    """
    data = ControlClient(terminal.home, terminal.timeout_s).get("/status")
    status = read(StatusView, data)
    if terminal.json:
        terminal.record(data)
    else:
        terminal.out(status_text(status))
    return ExitCode.DONE if status.state == "ready" else ExitCode.FAILED


def status_text(status: StatusView) -> str:
    """The screen."""
    ready = status.state == "ready"
    dot = click.style("●", fg="green" if ready else "yellow")
    since = f"up {duration(status.uptime_s)}" if ready else plain(status.state)
    head = [f"{dot} {since}", f"node {plain(status.name)} {short_id(status.node)}", f"swarm {plain(status.swarm)}"]
    counts = f"{status.asked} asked · {status.answered} answered · {status.failed} failed · {status.served} served"
    lines = [
        "   ".join([*head, f"v{plain(status.version)}"]),
        "   ".join([f"  api {plain(status.api)}", counts, size(status.rss_bytes)]),
        *(f"  listening on {plain(address)}" for address in status.addresses),
    ]
    if status.reach.verdict == "closed":
        through = f", they come through {plain(', '.join(status.reach.relays))}" if status.reach.relays else ""
        lines.append(f"  others cannot dial this node{through}: swarm doctor --net")
    if status.reserved:
        lines.append("  you are using this machine, so peers get no work done here for now (offer.when)")
    if status.peers:
        lines += ["", peers_table(status.peers, ids=False)]
    offences = " · ".join(f"{count} {plain(kind)}" for kind, count in sorted(status.refused.items()))
    mark = click.style("!", fg="yellow")
    # Those that have failed are among the warnings.
    trouble = model_trouble([model for model in status.models if model.state != "failed"])
    trouble += [f"{mark} {plain(warning)}" for warning in status.warnings]
    if status.journal:
        trouble.append(f"{mark} {plain(status.journal)}")
    if offences:
        trouble.append(f"{mark} messages of peers refused: {offences}")
    return "\n".join([*lines, *([""] if trouble else []), *trouble])
