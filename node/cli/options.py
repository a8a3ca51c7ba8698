"""The flags that every command takes, before or after its name, and the types of arguments."""

from collections.abc import Callable
from typing import Any

import click

from node.cli.terminal import Terminal


def _setter(field: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def remember(context: click.Context, parameter: click.Parameter, value: Any) -> None:
        if value is not None and value is not False and context.obj is not None:
            setattr(context.obj, field, value)

    return remember


class Duration(click.ParamType[float]):
    """Seconds, written like 20s or 2m."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        from node import notation  # Here, since most commands need no duration and the module brings ipaddress along.

        try:
            found = value if isinstance(value, float) else notation.seconds(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if found <= 0:
            self.fail("must be longer than nothing", param, ctx)
        return found


DURATION = Duration()


def shared_options(*, hidden: bool) -> list[click.Option]:
    """Fresh options of the shared kind. Commands hide all but --json, which the top level explains."""
    kinds: list[tuple[list[str], dict[str, Any]]] = [
        (["--json"], {"is_flag": True, "help": "Print data as JSON, one object a line; errors too."}),
        (["--quiet", "-q"], {"is_flag": True, "help": "No narration on stderr.", "hidden": hidden}),
        (
            ["--color"],
            {"type": click.Choice(["auto", "always", "never"]), "help": "Colours in the output.", "hidden": hidden},
        ),
        (["--debug"], {"is_flag": True, "help": "Show the traceback of a bug.", "hidden": hidden}),
        (
            ["--home"],
            {"metavar": "DIR", "help": "The node's folder, instead of SWARM_HOME or your own.", "hidden": hidden},
        ),
        (["--config"], {"metavar": "FILE", "help": "Another config.toml.", "hidden": hidden}),
        (["--timeout"], {"type": DURATION, "help": "How long to wait for the node.", "hidden": hidden}),
    ]
    fields = {"--home": "home_folder", "--config": "config_file", "--timeout": "timeout_s"}
    return [
        click.Option(names, expose_value=False, callback=_setter(fields.get(names[0], names[0][2:])), **settings)
        for names, settings in kinds
    ]


class Verb(click.Command):
    """A command that takes the shared flags too."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.params += shared_options(hidden=True)


class VerbGroup(click.Group):
    """A command with subcommands, all of which take the shared flags."""

    command_class = Verb

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.params += shared_options(hidden=True)


pass_terminal = click.make_pass_decorator(Terminal)
