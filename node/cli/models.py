"""`swarm models`: show and add this node's own models."""

import click

from node.cli.client import ControlClient
from node.cli.keeping import keep_model
from node.cli.options import VerbGroup, pass_terminal
from node.cli.reading import read, read_list
from node.cli.references import checked_reference
from node.cli.tables import model_trouble, models_table
from node.cli.terminal import Terminal, plain, short_path
from node.exits import Failure
from node.views import ModelView

LOAD_S = 600.0  # A model of some gigabytes from a slow disk, and its self-test.


@click.group(cls=VerbGroup, invoke_without_command=True)
@click.pass_context
def command(context: click.Context) -> None:
    """Show and add this node's own models."""
    if context.invoked_subcommand is None:
        context.invoke(show)


@command.command("ls")
@pass_terminal
def show(terminal: Terminal) -> None:
    """Show this node's own models. The default."""
    data = ControlClient(terminal.home, terminal.timeout_s).get("/models")
    models = read_list(ModelView, data, "models")
    if terminal.json:
        terminal.record(data)
        return
    if models:
        terminal.out(models_table(models))
    else:
        terminal.say("None yet. Add one with: swarm models add FILE.gguf")
    for line in model_trouble(models):
        terminal.complain(line)


@command.command("add")
@click.argument("ref")
@click.option("--once", is_flag=True, help="Do not keep it in config.toml.")
@pass_terminal
def add(terminal: Terminal, ref: str, once: bool) -> None:
    """Load one more model now, and keep it.

    REF is a GGUF file, the URL of an OpenAI-compatible server, or BACKEND:ARGUMENT. Once it has loaded it is listed under
    [offer] models in config.toml, so that the next start offers it too.
    """
    client = ControlClient(terminal.home)
    wanted = checked_reference(ref)
    terminal.say(f"Loading {plain(wanted)} …")
    data = client.post("/models", {"ref": wanted}, wait_s=terminal.timeout_s or LOAD_S)
    model = read(ModelView, data)
    if model.state == "failed":
        raise Failure("model_failed", f"{model.ref} cannot be used: {model.detail}")
    kept = not once and keep_model(terminal.home.config_file, wanted)
    if terminal.json:
        terminal.record({"schema": "swarm.model/1", **data})
        return
    terminal.out(models_table([model]))
    if kept:
        terminal.say(f"Kept in {short_path(terminal.home.config_file)}.")
