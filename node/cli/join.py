"""`swarm join`: connect to a node of the swarm."""

import click

from node import notation
from node.cli.client import ControlClient
from node.cli.options import Verb, pass_terminal
from node.cli.reading import read
from node.cli.terminal import Terminal, plain, short_id
from node.views import PeerView

DIAL_S = 60.0  # The node gives up on an address long before.


@click.command(cls=Verb)
@click.argument("address")
@pass_terminal
def command(terminal: Terminal, address: str) -> None:
    """Connect to a node of the swarm.

    ADDRESS is what its `swarm up` and `swarm status` show: /ip4/192.168.1.20/tcp/4976/p2p/12D3KooW… It is dialled now; to
    dial it at every start, list it under [node] join in config.toml.
    """
    try:
        notation.check_dialled(address)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="ADDRESS") from None
    data = ControlClient(terminal.home).post("/join", {"address": address}, wait_s=terminal.timeout_s or DIAL_S)
    peer = read(PeerView, data)
    if terminal.json:
        terminal.record({"schema": "swarm.peer/1", **data})
        return
    terminal.say(f"{click.style('✓', fg='green')} connected to {plain(peer.name)} ({short_id(peer.node)})")
