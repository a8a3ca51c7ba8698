"""`swarm up`: start the node, in the background or here, and tell how far it is."""

import os
import threading
import time
from typing import Any

import click

from node import notation
from node.cli import launch
from node.cli.client import ControlClient
from node.cli.narrator import Narrator, utc_now
from node.cli.options import Verb, pass_terminal
from node.cli.program import tell
from node.cli.references import checked_reference
from node.cli.terminal import Terminal, duration, plain
from node.exits import ExitCode, Failure
from node.store.home import Home
from node.store.lock import held

START_S = 300.0  # A model of some gigabytes from a slow disk; without models it is seconds.
_LOOK_S = 0.1


@click.command(cls=Verb)
@click.option("--foreground", is_flag=True, help="Stay in the foreground, for services; the log goes to stderr too.")
@click.option("--join", multiple=True, metavar="MULTIADDR", help="A node to connect to at start. Repeatable.")
@click.option("--model", "models", multiple=True, metavar="REF", help="A model to offer. Repeatable.")
@click.option("--no-models", is_flag=True, help="Offer no models: this node only asks.")
@click.option("--listen", multiple=True, metavar="MULTIADDR", help="Where to listen for nodes. Repeatable.")
@click.option("--api", metavar="HOST:PORT", help="Where programs of this machine find the API.")
@click.option("--name", help="What this node is called.")
@click.option("--offline", is_flag=True, help="Loopback only, no discovery.")
@click.option("--swarm", metavar="NAME", help="The swarm to be in.")
@pass_terminal
def command(
    terminal: Terminal,
    foreground: bool,
    join: tuple[str, ...],
    models: tuple[str, ...],
    no_models: bool,
    listen: tuple[str, ...],
    api: str | None,
    name: str | None,
    offline: bool,
    swarm: str | None,
) -> int | None:
    """Start this node.

    Returns once it is ready. A node that is running already stays as it is. A flag replaces what config.toml says.
    """
    if models and no_models:
        raise click.UsageError("--model and --no-models exclude each other.")
    overrides: dict[str, Any] = {
        "node.join": [_dialled(address) for address in join],
        "node.listen": list(listen),
        "node.name": name,
        "node.offline": offline,
        "swarm.current": swarm,
        "api.listen": api,
        "offer.models": [checked_reference(ref) for ref in models],
        "log.stderr": foreground,
    }
    overrides = {key: value for key, value in overrides.items() if value}
    if no_models:
        overrides["offer.models"] = []
    home = terminal.home
    home.create()
    if foreground:
        return _foreground(terminal, overrides)
    return _background(terminal, home, overrides)


def _background(terminal: Terminal, home: Home, overrides: dict[str, Any]) -> int | None:
    limit_s = terminal.timeout_s or START_S
    if status := _running(home, limit_s):
        _tell_running(terminal, status, overrides)
        return None
    narrator = Narrator(terminal, home)
    with launch.started(home, overrides, terminal.environ) as daemon:
        last: dict[str, Any] = {}
        for last in daemon.events(limit_s):
            if last["event"] != "error":
                narrator.tell(last)
        if last["event"] != "error":
            return None
        daemon.wait()
    if last.get("code") == "home_locked" and (status := _running(home, limit_s)):
        _tell_running(terminal, status, overrides)  # Somebody else was starting it at the same moment.
        return None
    raise _reported(last)


def _foreground(terminal: Terminal, overrides: dict[str, Any]) -> int:
    """Become the daemon. It reports to a thread beside it that tells the terminal."""
    read_end, write_end = os.pipe()
    os.environ.update({**terminal.environ, **launch.variables(overrides), launch.READY_FD_VARIABLE: str(write_end)})
    listener = threading.Thread(target=_listen, args=(terminal, read_end), daemon=True)
    listener.start()
    code: int | str | None = ExitCode.DONE
    try:
        from node.daemon import main  # Two seconds of imports, so only here.

        main()
    except SystemExit as end:
        code = end.code
    listener.join(1.0)  # It reads to the end of a pipe that the daemon has closed, if it got as far as opening it.
    return code if isinstance(code, int) else ExitCode.FAILED


def _listen(terminal: Terminal, reports: int) -> None:
    narrator = Narrator(terminal, terminal.home)
    with open(reports, "rb") as lines:
        for line in lines:
            event = launch.read_event(line)
            if event["event"] != "error":
                narrator.tell(event)
            elif terminal.json:
                tell(terminal, _reported(event))  # For people the daemon itself has put it on stderr.


def _running(home: Home, limit_s: float) -> dict[str, Any] | None:
    """The status of a node that holds the home, once it is ready; None if nobody does. Raises Failure if it stays silent."""
    deadline = time.monotonic() + limit_s
    while holder := held(home):
        try:
            status = ControlClient(home).get("/status")
            if isinstance(status, dict) and status.get("state") == "ready":
                return status
        except Failure:
            pass  # It is starting or stopping; the lock tells which in the end.
        if time.monotonic() > deadline:
            raise Failure(
                "not_answering",
                f"process {holder.pid} holds this home, but was not ready after {limit_s:.0f} s",
                hint="Look at its log with: swarm logs. Stop it with: swarm down",
                exit=ExitCode.ALREADY_HELD,
            )
        time.sleep(_LOOK_S)
    return None


def _tell_running(terminal: Terminal, status: dict[str, Any], overrides: dict[str, Any]) -> None:
    if terminal.json:
        event = {"event": "ready", "api": status.get("api", ""), "already_running": True}
        terminal.record({"schema": "swarm.event/1", "t": utc_now(), **event})
    up = duration(float(status.get("uptime_s", 0)))
    terminal.say(f"{click.style('●', fg='green')} running already, for {up}: {plain(str(status.get('name', '')))}")
    if overrides:
        ignored = ", ".join(sorted(overrides))
        terminal.complain(f"! not changed, because it runs: {ignored}. For that: swarm down, then swarm up again.")


def _reported(event: dict[str, Any]) -> Failure:
    try:
        code = ExitCode(event.get("exit", 1))
    except ValueError:
        code = ExitCode.FAILED
    message, hint = str(event.get("message", "the node did not start")), str(event.get("hint", ""))
    return Failure(str(event.get("code", "start_failed")), message, hint=hint, exit=code)


def _dialled(address: str) -> str:
    try:
        notation.check_dialled(address)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--join") from None
    return address
