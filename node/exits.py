"""How programs of this project end: the exit codes of the command and the daemon, and the failures that lead to them."""

from enum import IntEnum


class ExitCode(IntEnum):
    """What the shell sees. systemd's RestartPreventExitStatus names 8 and 9."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_RUNNING = 3
    NOT_IN_SWARM = 4
    NO_CAPABLE_PEER = 5
    REFUSED = 6
    DEADLINE_PASSED = 7
    CONFIG_INVALID = 8
    ALREADY_HELD = 9
    BUG = 70
    INTERRUPTED = 130
    TERMINATED = 143


MEANINGS = {
    ExitCode.DONE: "done; `status`: up and ready",
    ExitCode.FAILED: "failed, the message says why; `doctor`: found a failure",
    ExitCode.USAGE: "wrong usage",
    ExitCode.NOT_RUNNING: "the node is not running, or does not answer",
    ExitCode.NOT_IN_SWARM: "not in a swarm",
    ExitCode.NO_CAPABLE_PEER: "no capable peer: nobody known offers this skill or model",
    ExitCode.REFUSED: "refused: the worker does not serve us, or the key is wrong",
    ExitCode.DEADLINE_PASSED: "the deadline passed",
    ExitCode.CONFIG_INVALID: "the configuration is invalid; the message names file and key",
    ExitCode.ALREADY_HELD: "another node holds this home, or a port is taken",
    ExitCode.BUG: "a bug; the error id is in the log",
    ExitCode.INTERRUPTED: "interrupted",
    ExitCode.TERMINATED: "terminated",
}
"""The README's table is made from this."""


class Failure(Exception):
    """An expected failure, told to people: the message names the thing, the hint the next step.

    `code` is one word for programs; in JSON mode all four fields are printed.
    """

    def __init__(self, code: str, message: str, *, hint: str = "", exit: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.exit = exit


_EXITS = {
    "no_capable_peer": ExitCode.NO_CAPABLE_PEER,
    "no_such_capability": ExitCode.NO_CAPABLE_PEER,
    "unknown_model": ExitCode.NO_CAPABLE_PEER,
    "unknown_skill": ExitCode.NO_CAPABLE_PEER,
    "unknown_peer": ExitCode.NO_CAPABLE_PEER,
    "not_allowed": ExitCode.REFUSED,
    "invalid_api_key": ExitCode.REFUSED,
    "deadline_exceeded": ExitCode.DEADLINE_PASSED,
    "config_invalid": ExitCode.CONFIG_INVALID,
    "home_locked": ExitCode.ALREADY_HELD,
    "port_taken": ExitCode.ALREADY_HELD,
    "not_in_swarm": ExitCode.NOT_IN_SWARM,
    "not_running": ExitCode.NOT_RUNNING,
    "bug": ExitCode.BUG,
}


def exit_for(code: str) -> ExitCode:
    """The exit code for the name of an error, of `protocol.errors` or of the control API. Names without one are FAILED."""
    return _EXITS.get(code, ExitCode.FAILED)


def first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first exception that is not a group: nurseries wrap what they raise."""
    first: BaseException = group
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first
