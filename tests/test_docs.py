"""The documents tell the truth: every command, setting, route and exit code is in the README, and its console blocks run."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from node.api.app import ROUTES, ApiRoute
from node.api.plans import STEPS, ConditionBody, plan_body
from node.cli.program import COMMANDS
from node.exits import MEANINGS, ExitCode
from node.settings import load
from node.store.home import find_home
from swarm.plans import FUNCTIONS

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
DOCUMENTS = ("README.md", "SPEC.md", "CONTRIBUTING.md", "CHANGELOG.md")


def test_readme_opens_with_the_two_commands() -> None:
    first_block = README.partition("```sh\n")[2].partition("```")[0]
    assert [line.split("#")[0].strip() for line in first_block.splitlines()] == ["make demo", "make test"]


VERBS = sorted(verb for section in COMMANDS.values() for verb in section)


@pytest.mark.parametrize("command", VERBS)
def test_every_command_is_documented(command: str) -> None:
    assert f"swarm {command}" in README


def test_every_setting_is_documented_with_its_default(tmp_path: Path) -> None:
    rows = dict(re.findall(r"^\| `([a-z_]+\.[a-z_]+)` \| (.*?) \|", README, re.MULTILINE))
    settings = load(find_home({"SWARM_HOME": str(tmp_path)}), {}, environ={})
    assert set(rows) == {key for key, _, _ in settings.items()}
    for key, value, _ in settings.items():
        if isinstance(value, bool):
            assert rows[key] == f"`{str(value).lower()}`", key
        elif value and not isinstance(value, tuple):
            assert rows[key] == f"`{value}`", key


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_every_route_is_documented(route: ApiRoute) -> None:
    assert route.path.replace(":path}", "}") in README


def test_the_plan_of_the_readme_is_one_and_every_kind_of_step_is_explained() -> None:
    shown = re.search(r"```json\n(.*?)```", README, re.DOTALL)
    assert shown
    for text in (shown.group(1), (ROOT / "tools" / "demo_plan.json").read_text(encoding="utf-8")):
        body = plan_body(text.encode())
        assert [step.id for step in body.steps] == ["language", "english", "summary", "news"]
    operations = re.findall(r"^\| `([a-z]+)` \| ", README.partition("| `op` | its value |")[2].partition("\n\n")[0], re.MULTILINE)
    assert operations == [kind.__struct_config__.tag for kind in STEPS]
    for word in (*FUNCTIONS, *ConditionBody.__struct_encode_fields__):
        assert f"`{word}`" in README, word


@pytest.mark.parametrize("code", list(ExitCode))
def test_every_exit_code_is_documented(code: ExitCode) -> None:
    assert f"| {int(code)} | {MEANINGS[code]} |" in README


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_between_documents_lead_somewhere(document: str) -> None:
    text = (ROOT / document).read_text()
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / target).exists(), f"{document} links to {target}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_named_in_documents_exist(document: str) -> None:
    text = (ROOT / document).read_text()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for name in re.findall(r"`make ([a-z-]+)`", text):
        assert name in targets, f"{document} names make {name}"
    for name in re.findall(r"`swarm ([a-z]+)", text):
        assert name in VERBS, f"{document} names swarm {name}"


def test_console_blocks_of_the_readme_run(tmp_path: Path) -> None:
    commands = [
        line.removeprefix("$ ")
        for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL)
        for line in block.splitlines()
        if line.startswith("$ ")
    ]
    assert len(commands) > 4
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SWARM_")}
    environment |= {
        "SWARM_HOME": str(tmp_path / "home"),
        "PYTHONPATH": str(ROOT),
        # The README's own ports may be in use on this machine.
        "SWARM_NODE__LISTEN": "/ip4/127.0.0.1/tcp/0",
        "SWARM_API__LISTEN": "127.0.0.1:0",
        "SWARM_NODE__MDNS": "false",
    }
    try:
        for command in commands:
            name, *arguments = shlex.split(command)
            assert name == "swarm"
            done = subprocess.run(
                [sys.executable, "-m", "node.cli", *arguments],
                env=environment, capture_output=True, text=True, timeout=120, check=False,
            )  # fmt: skip
            assert done.returncode == 0, f"$ {command}\n{done.stdout}{done.stderr}"
            assert done.stdout or done.stderr, command
    finally:
        down = [sys.executable, "-m", "node.cli", "down"]
        subprocess.run(down, env=environment, capture_output=True, timeout=60, check=False)
