"""`swarm sim`: hands over to the simulator, which is another world.

`node` and `simulations` never import each other. The simulator announces itself as the entry point `sim` of the group
`swarm.commands`; in a source tree that is not installed, it is found by name.
"""

import importlib
from collections.abc import Callable
from importlib import metadata
from typing import cast

import click

from node.exits import Failure

GROUP = "swarm.commands"
_BY_NAME = "simulations.command"

Command = Callable[[list[str]], int]


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
    add_help_option=False,
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(arguments: tuple[str, ...]) -> int:
    """Run the swarm in a simulated world.

    All arguments go to the simulator; see: swarm sim --help
    """
    return _simulator()(list(arguments))


def _simulator() -> Command:
    for point in metadata.entry_points(group=GROUP, name="sim"):
        return cast(Command, point.load())
    try:
        return cast(Command, importlib.import_module(_BY_NAME).main)
    except ModuleNotFoundError as error:
        if error.name not in (_BY_NAME, _BY_NAME.partition(".")[0]):
            raise
        raise Failure(
            "no_simulator", "the simulator is not installed", hint="It comes with the source tree of starlings."
        ) from None
