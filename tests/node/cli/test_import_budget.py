"""The command stays a thin client: what it imports is counted, since a clock would measure the machine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from node.cli.program import COMMANDS
from node.store.home import Home
from tests.node.cli.control_api import Control
from tests.processes import ROOT

HEAVY = {
    "anycorn", "anyio", "asyncio", "cryptography", "httpx", "libp2p", "llama_cpp", "msgpack", "msgspec", "multiaddr", "nacl",
    "numpy", "rich", "simulations", "sqlite3", "starlette", "trio",
}  # fmt: skip
MODULES_MAX = 220  # Python itself, click, http.client and json are about 160; a library more is at least some dozens.
OURS_MAX = 20  # Of node, protocol and swarm: the command, its client, the home.

_PROGRAM = """
import json, sys
from node.cli.program import run
try:
    code = run(sys.argv[1:])
finally:
    print(json.dumps([code, sorted(sys.modules)]), file=sys.stderr)
"""


def imported(*arguments: str, environ: dict[str, str] | None = None) -> tuple[int, set[str]]:
    """The exit code of a command, and the modules that its process has imported."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), **(environ or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    code, modules = json.loads(done.stderr.splitlines()[-1])
    return code, set(modules)


@pytest.mark.parametrize(
    "words",
    [
        "--help",
        "ask hi",
        "ask hi --json",
        "ask hi --why",
        "ask hi --detach",
        "history",
        "history 7f21",
        "trace 7f21",
        "map /dev/null",
        "route hi",
        "status",
        "peers",
        "skills",
        "models",
        "models add --once echo:",
        "join /ip4/127.0.0.1/tcp/1",
        "paths",
        "version",
        "logs --help",
        "up --help",
        "down",
    ],
)
def test_a_command_imports_no_part_of_the_node(control: Control, words: str) -> None:
    code, modules = imported(*words.split())
    assert code == 0
    assert_light(modules)


def test_starting_a_node_imports_no_part_of_it(home: Home) -> None:
    code, modules = imported("up", environ={"SWARM_API__LISTEN": "refused by the daemon"})
    assert code == 8
    assert_light(modules)


def assert_light(modules: set[str]) -> None:
    roots = [name.partition(".")[0] for name in modules]
    assert not set(roots) & HEAVY
    assert len(modules) < MODULES_MAX
    assert sum(root in ("node", "protocol", "swarm") for root in roots) <= OURS_MAX


def test_help_imports_no_command(home: Home) -> None:
    _, modules = imported("--help")
    commands = {module for section in COMMANDS.values() for module, _ in section.values()}
    assert not commands & modules
    assert "http.client" not in modules


def test_without_swarm_home_only_platformdirs_comes_along(tmp_path: Path) -> None:
    code, modules = imported("ask", "hi", environ={"SWARM_HOME": "", "HOME": str(tmp_path)})
    assert code == 3
    assert "platformdirs" in modules
    assert not {name.partition(".")[0] for name in modules} & HEAVY


def test_asking_without_why_does_not_pay_for_it(control: Control) -> None:
    _, modules = imported("ask", "hi")
    assert "node.views" not in modules
    assert "platformdirs" not in modules
