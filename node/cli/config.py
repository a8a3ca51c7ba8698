"""`swarm config`: what is set, and where it was set."""

import json

import click

from node.cli.options import VerbGroup, pass_terminal
from node.cli.terminal import Terminal, table


@click.group(cls=VerbGroup)
def command() -> None:
    """Show what is set, and where."""


@command.command("show")
@pass_terminal
def show(terminal: Terminal) -> None:
    """Show every setting and its origin: default, file or env.

    As the node would find it at its next start. Exit code 8 if something is wrong.
    """
    from node.settings import load  # Brings msgspec along, which nobody else here needs.

    home = terminal.home
    settings = load(home, {}, environ=terminal.environ)
    if terminal.json:
        found = {key: {"value": value, "origin": origin} for key, value, origin in settings.items()}
        terminal.record({"schema": "swarm.config/1", "file": str(home.config_file), "settings": found})
        return
    rows = [[key, json.dumps(value, ensure_ascii=False), origin] for key, value, origin in settings.items()]
    terminal.out(table(["KEY", "VALUE", "ORIGIN"], rows))
    if not home.config_file.exists():
        terminal.say(f"There is no {home.config_file} yet; you may write one.")


@command.command("path")
@pass_terminal
def path(terminal: Terminal) -> None:
    """Show where config.toml is, or would be."""
    file = terminal.home.config_file
    if terminal.json:
        terminal.record({"schema": "swarm.config-path/1", "file": str(file), "exists": file.exists()})
    else:
        terminal.out(str(file))
