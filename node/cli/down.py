"""`swarm down`: stop the node, politely, then firmly."""

import os
import signal
import time
from contextlib import suppress

import click

from node.cli.client import ControlClient, NotRunning
from node.cli.options import Verb, pass_terminal
from node.cli.terminal import Terminal
from node.exits import Failure
from node.store.home import Home
from node.store.lock import held

POLITE_S = 15.0  # Models get a second to stop, links the time for a Goodbye; the rest is for a busy machine.
FIRM_S = 5.0
_LOOK_S = 0.05


@click.command(cls=Verb)
@pass_terminal
def command(terminal: Terminal) -> None:
    """Stop this node.

    Waits until it is gone. A node that is not running is no failure.
    """
    home = terminal.home
    stopped = stop(terminal, home, terminal.timeout_s or POLITE_S)
    if terminal.json:
        terminal.record({"schema": "swarm.event/1", "event": "stopped", "was_running": stopped})
    else:
        terminal.say("Stopped." if stopped else "This node is not running.")


def stop(terminal: Terminal, home: Home, polite_s: float) -> bool:
    """Stop the node of a home and wait for its lock. False if none was running. Raises Failure if it does not end."""
    try:
        ControlClient(home, polite_s).post("/shutdown", {})
    except NotRunning:
        return False
    except Failure as failure:
        if held(home) is None:
            return True  # It went while we asked.
        terminal.say(f"{failure.message[:1].upper()}{failure.message[1:]}; ending its process.")
    else:
        if _gone(home, polite_s):
            return True
        terminal.say(f"Still stopping after {polite_s:.0f} s; ending its process.")
    holder = held(home)
    if holder is not None and holder.pid:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(holder.pid, signal.SIGTERM)
    if _gone(home, FIRM_S):
        return True
    holder = held(home)
    pid = holder.pid if holder else 0
    raise Failure(
        "still_running",
        f"process {pid} does not stop" if pid else "the node does not stop",
        hint=f"Its log may say why: swarm logs. As a last resort: kill -9 {pid}" if pid else "See: swarm logs",
    )


def _gone(home: Home, limit_s: float) -> bool:
    deadline = time.monotonic() + limit_s
    while held(home) is not None:
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK_S)
    return True
