"""`swarm models`: show, add and try this node's own models."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from node.cli.client import ControlClient
from node.cli.keeping import drop_model, keep_model
from node.cli.options import VerbGroup, pass_terminal
from node.cli.reading import read, read_list
from node.cli.references import checked_reference
from node.cli.tables import model_trouble, models_table
from node.cli.terminal import Terminal, plain, short_path, table
from node.exits import Failure, first_error
from node.notation import absolute_reference
from node.views import ModelView

if TYPE_CHECKING:
    from node.backends import Surroundings
    from node.backends.trial import Trial
    from protocol.parts import Capability

LOAD_S = 600.0  # A model of some gigabytes from a slow disk, and its self-test.


@click.group(cls=VerbGroup, invoke_without_command=True)
@click.pass_context
def command(context: click.Context) -> None:
    """Show, add and try this node's own models."""
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
    for line in model_trouble([model]):
        terminal.complain(line)
    if kept:
        terminal.say(f"Kept in {short_path(terminal.home.config_file)}.")


@command.command("rm")
@click.argument("ref")
@click.option("--once", is_flag=True, help="Keep it in config.toml, for the next start.")
@pass_terminal
def remove(terminal: Terminal, ref: str, once: bool) -> None:
    """Let go of a model: free its memory, and offer it no more.

    REF is what `swarm models` shows under FROM, or the model's name. What it is answering goes on elsewhere, if there is
    somebody. Its file stays where it is; the reference leaves config.toml.
    """
    client = ControlClient(terminal.home, terminal.timeout_s)
    data = client.post("/models/remove", {"ref": absolute_reference(ref, Path.cwd())})
    model = read(ModelView, data)
    dropped = not once and drop_model(terminal.home.config_file, {ref, model.ref, model.model})
    if terminal.json:
        terminal.record({"schema": "swarm.model/1", **data})
        return
    terminal.say(f"{plain(model.model or model.ref)} is no longer offered{', nor listed in config.toml' if dropped else ''}.")


@command.command("bench")
@click.argument("ref")
@click.option("--threads", type=click.IntRange(1, 1024), help="Threads of the model; without it, what the node would take.")
@pass_terminal
def bench(terminal: Terminal, ref: str, threads: int | None) -> None:
    """Measure what this machine can do with a model.

    REF is as for `add`. Nothing is kept, and no node needs to run; one that works at the same time takes its share.
    """
    import trio

    from node.backends import BackendError, Surroundings
    from node.cores import model_threads
    from node.settings import load

    wanted = checked_reference(ref)
    offer = load(terminal.home, {}, environ=terminal.environ).offer
    threads = threads or offer.threads or model_threads()
    terminal.say(f"Loading {plain(wanted)} with {threads} thread{'' if threads == 1 else 's'} …")
    try:
        # Not the folder of the node's logs: it may be running with the same model.
        given = Surroundings(terminal.home.logs / "bench", threads, context_tokens=offer.context)
        load_s, capability, found = trio.run(_bench, terminal, wanted, given)
    except* BackendError as group:
        raise Failure("model_failed", f"{plain(wanted)} cannot be used: {first_error(group)}") from None
    if terminal.json:
        trials = [
            {
                "at_once": each.at_once,
                "tokens_per_second": round(each.tokens_per_second, 1),
                "first_text_ms": round(each.first_text_s * 1000),
            }
            for each in found
        ]
        about = {"model": capability.model, "skill": capability.skill, "threads": threads, "load_s": round(load_s, 2)}
        room = {"slots": capability.slots, "context_tokens": capability.context_tokens}
        terminal.record({"schema": "swarm.models.bench/1", **about, **room, "trials": trials})
        return
    header = ["AT ONCE", "TOK/S", "EACH", "FIRST"]
    speeds = [(str(each.at_once), each.tokens_per_second, each.first_text_s) for each in found]
    rows = [[crowd, f"{speed:.0f}", f"{speed / int(crowd):.0f}", f"{first_s:.2f} s"] for crowd, speed, first_s in speeds]
    terminal.out(table(header, rows, right=header))


async def _bench(terminal: Terminal, ref: str, surroundings: "Surroundings") -> "tuple[float, Capability, list[Trial]]":
    """Load, and try until all is known. Raises BackendError in a group."""
    import trio

    from node.backends.references import open_backend
    from node.backends.trial import trials

    found = []
    async with trio.open_nursery() as nursery:
        began = trio.current_time()
        backend = open_backend(ref, surroundings)
        capability, *_ = await nursery.start(backend.run)
        load_s = trio.current_time() - began
        room = f"{capability.slots} at once, {capability.context_tokens} tokens each"
        terminal.say(f"Loaded and tried in {load_s:.1f} s: {capability.skill}, {room}.")
        async for each in trials(backend, capability):
            found.append(each)
            terminal.say(f"{each.at_once} at once: {each.tokens_per_second:.0f} tokens a second")
        nursery.cancel_scope.cancel()
    return load_s, capability, found
