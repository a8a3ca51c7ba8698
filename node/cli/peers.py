"""`swarm peers`: who is here."""

import click

from node.cli.client import ControlClient
from node.cli.options import Verb, pass_terminal
from node.cli.reading import read_list
from node.cli.tables import peers_table
from node.cli.terminal import Terminal
from node.views import PeerView


@click.command(cls=Verb)
@pass_terminal
def command(terminal: Terminal) -> None:
    """Show who is here.

    The asterisk marks this node. Speeds are what the nodes claim of themselves.
    """
    data = ControlClient(terminal.home, terminal.timeout_s).get("/peers")
    peers = read_list(PeerView, data, "peers")
    if terminal.json:
        terminal.record(data)
        return
    terminal.out(peers_table(peers, ids=True))
    if all(peer.state == "self" for peer in peers):
        terminal.say("Nobody else yet. Connect with: swarm join ADDRESS")
