"""How programs of this project end: the exit codes of the command and the daemon, and the failures that lead to them."""

from enum import IntEnum
from typing import Self


class ExitCode(IntEnum):
    """What the shell sees. The README's table is made from this; systemd's RestartPreventExitStatus names 8 and 9."""

    meaning: str

    def __new__(cls, number: int, meaning: str) -> Self:
        code = int.__new__(cls, number)
        code._value_ = number
        code.meaning = meaning
        return code

    DONE = 0, "done; `status`: up and healthy"
    FAILED = 1, "failed, the message says why; `doctor`: found a failure"
    USAGE = 2, "wrong usage"
    NOT_RUNNING = 3, "the node is not running"
    NOT_IN_SWARM = 4, "not in a swarm"
    NO_CAPABLE_PEER = 5, "no capable peer: nobody known offers this skill or model"
    REFUSED = 6, "refused: by the worker, or the key is wrong"
    DEADLINE_PASSED = 7, "the deadline passed"
    CONFIG_INVALID = 8, "the configuration is invalid; the message names file and key"
    ALREADY_HELD = 9, "another node holds this home, or a port is taken"
    BUG = 70, "a bug; the error id is in the log"
    INTERRUPTED = 130, "interrupted"
    TERMINATED = 143, "terminated"


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
