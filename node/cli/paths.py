"""`swarm paths`: where this node's files are."""

import click

from node.cli.options import Verb, pass_terminal
from node.cli.terminal import Terminal


@click.command(cls=Verb)
@pass_terminal
def command(terminal: Terminal) -> None:
    """Show where this node's files are.

    SWARM_HOME=DIR puts all of them under one folder, so that several nodes can run on one machine.
    """
    home = terminal.home
    found = {
        "config": home.config_file,
        "identity": home.identity_key,
        "models": home.models,
        "api key": home.api_key,
        "journal": home.journal,
        "lock": home.lock,
        "socket": home.socket,
        "log": home.log_file,
        "output": home.stdio_file,
    }
    if terminal.json:
        paths = {name.replace(" ", "_"): str(path) for name, path in found.items()}
        terminal.record({"schema": "swarm.paths/1", **paths})
        return
    for name, path in found.items():
        terminal.out(f"{name:<9} {path}" + ("" if path.exists() else "   (not there yet)"))
