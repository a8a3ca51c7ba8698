"""The top of the command line: which commands there are, and how every ending becomes an exit code and a message."""

import importlib
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType
from typing import Any, NoReturn

import click

from node.cli.options import shared_options
from node.cli.terminal import Terminal, plain
from node.exits import ExitCode, Failure

# A command's module is imported only when it runs; the sentences here are its help, held equal by a test.
COMMANDS: dict[str, dict[str, tuple[str, str]]] = {
    "Run": {
        "up": ("node.cli.up", "Start this node."),
        "down": ("node.cli.down", "Stop this node."),
        "status": ("node.cli.status", "This node and its swarm on one screen."),
        "logs": ("node.cli.logs", "Show the log of the daemon."),
        "doctor": ("node.cli.doctor", "Find what is wrong."),
    },
    "Ask": {
        "ask": ("node.cli.ask", "Ask the swarm, and print the answer as it comes."),
        "map": ("node.cli.map", "Ask many tasks, one for each line of a file."),
        "plan": ("node.cli.plan", "Carry out a plan: a larger task in steps for several workers."),
        "route": ("node.cli.route", "Show who would answer, and why; sends nothing."),
        "history": ("node.cli.history", "Show what was asked before, or the answer to one task."),
        "trace": ("node.cli.trace", "Show what happened to a task, and where the time went."),
    },
    "Swarm": {
        "join": ("node.cli.join", "Connect to a node of the swarm."),
        "peers": ("node.cli.peers", "Show who is here."),
        "ping": ("node.cli.ping", "Show how far away a node is, and by which way."),
        "skills": ("node.cli.skills", "Show what can be asked for, and who offers it."),
    },
    "Models": {
        "models": ("node.cli.models", "Show, add and try this node's own models."),
    },
    "Simulate": {
        "sim": ("node.cli.sim", "Run the swarm in a simulated world."),
    },
    "About": {
        "config": ("node.cli.config", "Show what is set, and where."),
        "paths": ("node.cli.paths", "Show where this node's files are."),
        "version": ("node.cli.version", "Show the version."),
    },
}
_MODULES = {name: entry for section in COMMANDS.values() for name, entry in section.items()}
_BUGS_FILE_BYTES_MAX = 1_000_000  # Then it begins anew.


class Program(click.Group):
    """The group of all commands, which imports none of them until it runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _MODULES:
            return None
        command = importlib.import_module(_MODULES[cmd_name][0]).command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in _MODULES and not args[0].startswith("-"):
            import difflib

            close = difflib.get_close_matches(args[0], _MODULES, n=1)
            ctx.fail(f'no command "{args[0]}".' + (f' Did you mean "{close[0]}"?' if close else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, _MODULES))
        for title, section in COMMANDS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), text) for name, (_, text) in section.items()])


def _program() -> Program:
    return Program(
        "swarm",
        params=[*shared_options(hidden=False), _version_option()],
        help="A peer-to-peer swarm of small AI models. Start with: swarm up",
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
        callback=lambda: None,
        no_args_is_help=True,
        epilog="The shared options may also follow the command. Each command explains itself with --help.",
    )


def _version_option() -> click.Option:
    def show(context: click.Context, parameter: click.Parameter, value: bool) -> None:
        if value and not context.resilient_parsing:
            from node.version import program_version

            click.echo(f"swarm {program_version()}")
            context.exit()

    return click.Option(
        ["--version"], is_flag=True, is_eager=True, expose_value=False, callback=show, help="Show the version."
    )


class Terminated(BaseException):
    """SIGTERM came. Unwinds like Ctrl-C, so that nothing that was started is left behind."""


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; whatever happens has been told on the terminal."""
    terminal = Terminal(json="--json" in arguments)  # Known before parsing, since parsing can fail.
    try:
        result = _program().main(list(arguments), prog_name="swarm", standalone_mode=False, obj=terminal)
        sys.stdout.flush()
        return int(result or ExitCode.DONE)
    except Failure as failure:
        tell(terminal, failure)
        return failure.exit
    except click.exceptions.NoArgsIsHelpError as error:
        terminal.complain(error.format_message())
        return ExitCode.USAGE
    except click.UsageError as error:
        return _told_usage(terminal, error)
    except click.ClickException as error:
        tell(terminal, Failure("failed", error.format_message()))
        return ExitCode.FAILED
    except (click.Abort, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    except Terminated:
        return ExitCode.TERMINATED
    except BrokenPipeError:  # `swarm peers | head`: the reader has what it wanted.
        return ExitCode.FAILED
    except Exception as bug:  # noqa: BLE001  The edge: whatever it is becomes exit code 70 and a line in the log.
        return _told_bug(terminal, bug)


def run_and_exit() -> NoReturn:
    """`run` for a process of its own: with its arguments, its signals and its last breath."""
    signal.signal(signal.SIGTERM, _terminate)
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    try:
        code = run(sys.argv[1:])
    except Terminated:
        code = ExitCode.TERMINATED
    except KeyboardInterrupt:
        code = ExitCode.INTERRUPTED
    except SystemExit as end:  # click's own, for a reader that has gone.
        code = end.code if isinstance(end.code, int) else ExitCode.FAILED
    with suppress(OSError, ValueError):
        sys.stderr.flush()
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        # The interpreter would flush once more at its end and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(int(code))


def tell(terminal: Terminal, failure: Failure, **more: Any) -> None:
    """Say what failed: two lines on stderr, or one object on stdout in JSON mode."""
    if terminal.json:
        error = {"schema": "swarm.error/1", "code": failure.code, "message": failure.message, "hint": failure.hint}
        terminal.record({**error, "exit": int(failure.exit), **more})
        return
    mark = click.style("swarm:", fg="red", bold=True)
    terminal.complain(f"{mark} {plain(failure.message, lines=True)}")
    if failure.hint:
        terminal.complain(plain(failure.hint, lines=True))


def _told_usage(terminal: Terminal, error: click.UsageError) -> int:
    path = error.ctx.command_path if error.ctx else "swarm"
    hint = f"See: {path} --help"
    tell(terminal, Failure("usage", error.format_message(), hint=hint, exit=ExitCode.USAGE))
    return ExitCode.USAGE


def _told_bug(terminal: Terminal, bug: Exception) -> int:
    """A traceback is for the log; people get its id."""
    import traceback  # Only bugs need it.

    identifier = os.urandom(4).hex()
    text = "".join(traceback.format_exception(bug))
    where = ""
    with suppress(OSError, Failure):
        home = terminal.home
        home.create()
        file = home.logs / "bugs.log"
        fresh = not file.exists() or file.stat().st_size > _BUGS_FILE_BYTES_MAX
        opened = os.open(file, os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if fresh else os.O_APPEND) | os.O_NOFOLLOW, 0o600)
        with open(opened, "w", encoding="utf-8", errors="replace") as log:
            log.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {identifier}\n{text}\n")
        where = f"The details are in {file}. "
    if terminal.debug:
        terminal.complain(text)
    message = f"this is a bug: {type(bug).__name__}: {bug} (error id {identifier})"
    tell(terminal, Failure("bug", message, hint=f"{where}Please report it with them.", exit=ExitCode.BUG))
    return ExitCode.BUG


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated
