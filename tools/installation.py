"""Makes .venv what the pins say: in a tenth of a second when it already is, from nothing when it is not."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools import engine
from tools.progress import Line, spoken
from tools.running import SetupError, run

STAMP = "set-up.json"
LAYOUT = "1"  # Raise it when .venv must be made anew though no pin has changed.
PIP = ("-m", "pip", "--disable-pip-version-check", "--no-input")


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the caller wants of the set-up, beside a node: tools to test it, the engine, the engine built anew."""

    dev: bool
    engine: bool
    rebuild: bool


class Installation:
    """One virtual environment, and the stamp inside it that says what it holds."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.venv = root / ".venv"
        self.python = self.venv / "bin/python"
        self.log = self.venv / "set-up.log"

    def read_stamp(self) -> dict[str, Any]:
        """What was installed the last time. Empty if that was elsewhere, was interrupted, or cannot be read."""
        try:
            stamp = json.loads((self.venv / STAMP).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return stamp if isinstance(stamp, dict) and self.python.exists() else {}

    def write_stamp(self, stamp: dict[str, Any]) -> None:
        """Written after each part that is done, all at once, so that an interruption is repeated and never believed."""
        fresh = self.venv / f"{STAMP}.new"
        fresh.write_text(json.dumps(stamp, indent=1), encoding="utf-8")
        os.replace(fresh, self.venv / STAMP)

    def pins(self, name: str) -> Path:
        """The file of pins of this name."""
        return self.root / "requirements" / f"{name}.txt"

    def wanted(self, wishes: Wishes) -> dict[str, str]:
        """What the stamp must say of each part, for these wishes to be fulfilled."""

        def print_of(*paths: Path) -> str:
            return engine.fingerprint(*(path.read_text(encoding="utf-8") for path in paths))

        wanted = {
            "place": f"{self.venv} {self.python.resolve()}",  # Scripts in it name the one, its packages suit the other.
            "node": f"{LAYOUT} {print_of(self.pins('build'), self.pins('node'))}",
            "project": print_of(self.root / "pyproject.toml"),
        }
        if wishes.dev:
            wanted["dev"] = print_of(self.pins("dev"))
        if wishes.engine:
            wanted["engine"] = engine.wanted(self.pins("engine").read_text(encoding="utf-8"))
        return wanted

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold off another set-up of the same folder until this one is done."""
        with (self.root / ".set-up.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                print("Another set-up of this folder is running; waiting for it.", flush=True)
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def make_venv(self) -> None:
        """An empty virtual environment in place of an old one. Raises SetupError if what is there is not ours to remove."""
        stamp = self.venv / STAMP
        if self.venv.exists() and not stamp.exists():
            raise SetupError(f"{self.venv} was not made by this set-up, and it would be replaced. Move it away first.")
        shutil.rmtree(self.venv, ignore_errors=True)
        self.venv.mkdir()
        self.write_stamp({})  # First, so that a set-up that is interrupted here knows it for its own.
        command = [sys.executable, "-m", "venv", str(self.venv)]
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if made.returncode != 0:
            raise SetupError(
                f"python -m venv failed:\n\n{made.stdout}{made.stderr}\n"
                "Debian and Ubuntu keep it in a package of its own: sudo apt install python3-venv"
            )

    def install(self, name: str, line: Line) -> None:
        """Exactly the pinned packages of this file, each checked against its hash."""
        pinned = sum(row[:1].isalnum() for row in self.pins(name).read_text(encoding="utf-8").splitlines())
        seen = 0

        def follow(text: str) -> None:
            nonlocal seen
            if text.startswith("Collecting "):
                seen += 1
                line.show(f"{name}: {seen}/{pinned} {text.split()[1].partition('==')[0]}")
            elif text.startswith(("Installing collected", "Building wheel")):
                line.show(f"{name}: installing")

        # No resolving (the pins are complete) and no isolated builds (they would fetch unpinned build tools).
        exactly = ["--no-deps", "--require-hashes", "--no-build-isolation", "--progress-bar", "off"]
        command = [str(self.python), *PIP, "install", *exactly, "-r", str(self.pins(name))]
        run(command, self.log, f"Installing the packages of requirements/{name}.txt", follow)

    def install_project(self) -> None:
        """The project itself, so that its command and entry points exist; its files stay where they are."""
        command = [
            str(self.python),
            *PIP,
            "install",
            "--no-deps",
            "--no-build-isolation",
            "--no-index",
            "-e",
            str(self.root),
        ]
        run(command, self.log, "Installing the project itself")


def set_up(root: Path, wishes: Wishes) -> int:
    """Fulfil the wishes. 0 if they are; else the cause has been explained on stderr and the code is 1."""
    installation = Installation(root)
    if not wishes.rebuild and missing_parts(installation, wishes) == []:
        return 0
    begun = time.monotonic()
    try:
        with installation.alone():
            _fulfil(installation, wishes)
    except SetupError as error:
        print(f"\n\nset-up: {error}", file=sys.stderr)
        return 1
    print(f"Ready in {spoken(time.monotonic() - begun)}.", flush=True)
    return 0


def missing_parts(installation: Installation, wishes: Wishes) -> list[str]:
    """The parts that a set-up would install now."""
    stamp = installation.read_stamp()
    return [part for part, value in installation.wanted(wishes).items() if stamp.get(part) != value]


def _fulfil(installation: Installation, wishes: Wishes) -> None:
    missing = missing_parts(installation, wishes)
    if wishes.rebuild and "engine" not in missing:
        missing.append("engine")
    if not missing:
        return  # Another set-up did it while this one waited.
    print(f"Setting up {installation.venv} (Python {sys.version.split()[0]})", flush=True)
    stamp = installation.read_stamp()
    # Changed pins start from nothing, so that no package stays that is no longer pinned.
    anew = "place" in missing or "node" in missing or ("dev" in stamp and "dev" in missing)
    # Before the downloads, so that nobody waits for half a minute to learn that a compiler is missing.
    compiler = engine.find_compiler() if wishes.engine and (anew or "engine" in missing) else None
    if anew:
        installation.make_venv()
        stamp = {}
    wanted = installation.wanted(wishes)
    stamp["place"] = wanted["place"]
    for part, files in (("node", ("build", "node")), ("dev", ("dev",))):
        if part in wanted and stamp.get(part) != wanted[part]:
            line = Line("packages")
            for name in files:
                installation.install(name, line)
            line.end(f"installed: {part}")
            stamp[part] = wanted[part]
            installation.write_stamp(stamp)
    if stamp.get("project") != wanted["project"]:
        installation.install_project()
        stamp["project"] = wanted["project"]
        installation.write_stamp(stamp)
    if compiler is not None:
        line = Line("engine")
        builder = engine.Builder(
            installation.python, installation.pins("engine"), installation.log, engine.cache_folder()
        )
        how = builder.install(compiler, rebuild=wishes.rebuild)
        line.end(f"{how}; it speaks")
        stamp["engine"] = wanted["engine"]
        installation.write_stamp(stamp)
