"""`swarm doctor`: find what is wrong, and say what to do about it."""

from collections.abc import Callable, Iterator

import click

from node.cli import checks, net_checks
from node.cli.checks import Check, State, Surroundings
from node.cli.client import ControlClient
from node.cli.options import Verb, pass_terminal
from node.cli.terminal import Terminal, plain
from node.exits import ExitCode, Failure

_CHECKS: tuple[Callable[[Surroundings], Check], ...] = (
    checks.config,
    checks.identity,
    checks.api_key,
    checks.node,
    checks.ports,
    checks.api,
    checks.packages,
    checks.libraries,
    checks.engine,
    checks.disk,
    checks.journal,
    checks.clock,
    checks.models,
)
_MARKS = {State.OK: ("✓", "green"), State.WARNING: ("!", "yellow"), State.FAILED: ("✗", "red")}


@click.command(cls=Verb)
@click.option("--net", is_flag=True, help="Look at the network: who can reach this node, and by which ways.")
@pass_terminal
def command(terminal: Terminal, net: bool) -> int:
    """Find what is wrong.

    Works whether the node is running or not. Exit code 1 if something failed; warnings are no failures.
    """
    about = Surroundings(terminal.home, terminal.environ, _status(terminal))
    found = []
    for check in _checks(about, net):
        found.append(check)
        if not terminal.json:
            terminal.out(_line(check))
    failed = sum(check.state is State.FAILED for check in found)
    warnings = sum(check.state is State.WARNING for check in found)
    if terminal.json:
        listed = [
            {"name": check.name, "state": check.state.value, "finding": check.finding, "hint": check.hint}
            for check in found
        ]
        terminal.record({"schema": "swarm.doctor/1", "checks": listed, "failed": failed, "warnings": warnings})
    else:
        terminal.out(f"{failed} failed, {warnings} warning{'' if warnings == 1 else 's'}")
    return ExitCode.FAILED if failed else ExitCode.DONE


def _checks(about: Surroundings, net: bool) -> Iterator[Check]:
    """One after the other, since some take a while."""
    if net:
        yield from net_checks.look(about)
        return
    yield from (check(about) for check in _CHECKS)
    if about.status is not None:
        yield from (check for check in net_checks.look(about) if check.state is not State.OK)


def _status(terminal: Terminal) -> dict[str, object] | None:
    try:
        found = ControlClient(terminal.home, terminal.timeout_s).get("/status")
    except Failure:
        return None
    return found if isinstance(found, dict) else None


def _line(check: Check) -> str:
    mark, color = _MARKS[check.state]
    text = f"{click.style(mark, fg=color)} {plain(check.finding)}"
    return f"{text}\n    {plain(check.hint)}" if check.hint and check.state is not State.OK else text
