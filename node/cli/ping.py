"""`swarm ping`: how far away a node is, and by which way."""

import time

import click

from node.cli.client import ControlClient
from node.cli.options import Verb, pass_terminal
from node.cli.reading import read
from node.cli.terminal import Terminal, plain
from node.views import PingView

PAUSE_S = 1.0  # Between two pings.
WAIT_S = 30.0  # The node gives up long before.


@click.command(cls=Verb)
@click.argument("peer")
@click.option("--count", "-c", type=click.IntRange(1, 1000), default=3, show_default=True, help="How often.")
@click.option("--until-direct", is_flag=True, help="Stop as soon as the way is direct.")
@pass_terminal
def command(terminal: Terminal, peer: str, count: int, until_direct: bool) -> None:
    """Show how far away a node is, and by which way.

    PEER is a name or an id as `swarm peers` shows them; a node without a link is dialled. A way over a relay is replaced by a
    direct one as soon as there is one.
    """
    client = ControlClient(terminal.home)
    for number in range(count):
        if number:
            time.sleep(PAUSE_S)
        data = client.post("/ping", {"peer": peer}, wait_s=terminal.timeout_s or WAIT_S)
        pong = read(PingView, data)
        if terminal.json:
            terminal.record(data)
        else:
            terminal.out(ping_text(pong))
        if until_direct and pong.path == "direct":
            return


def ping_text(pong: PingView) -> str:
    """One line."""
    if pong.path != "direct":
        way = f"via {plain(pong.path)}"
    else:
        way = f"direct, at {plain(pong.address.partition('/p2p/')[0])}" if pong.address else "direct"
    return f"pong from {plain(pong.name)} in {pong.rtt_ms:.1f} ms, {way}"
