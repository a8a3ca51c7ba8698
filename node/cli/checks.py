"""What `swarm doctor` looks at. Each check looks at one thing and changes nothing."""

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from importlib import metadata
from pathlib import Path
from typing import Any

from node import notation
from node.exits import Failure
from node.store.home import Home
from node.store.keys import check_key_file
from node.store.lock import held

DISTRIBUTION = "starlings"
PACKAGES = ("protocol", "swarm", "node")
LIBRARIES = (
    "trio",
    "libp2p",
    "multiaddr",
    "msgpack",
    "msgspec",
    "nacl",
    "starlette",
    "anycorn",
    "httpx",
    "platformdirs",
)
ENGINE = "llama_cpp"
ENGINE_S = 120.0  # To import the engine; seconds where the disk is idle.
FREE_BYTES_MIN = 100_000_000  # Less, and logs and keys cannot be written for long.
FREE_BYTES_GOOD = 2_000_000_000  # Room for some small models.
_EPOCH_S = 1_767_225_600  # 2026: no signed message is older than this program.


class State(Enum):
    """How a check went. A warning is something that works, but not as well as it could."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Check:
    """One finding, and what to do about it."""

    name: str
    state: State
    finding: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the checks may look at. `status` is that of the running node, None if none answers."""

    home: Home
    environ: Mapping[str, str]
    status: Mapping[str, Any] | None


def config(about: Surroundings) -> Check:
    file = about.home.config_file
    try:
        from node.settings import load

        load(about.home, {}, environ=about.environ)
    except Failure as failure:
        return Check("config", State.FAILED, failure.message, failure.hint)
    except ImportError as error:
        return Check("config", State.FAILED, f"the configuration cannot be checked: {error}", _REINSTALL)
    given = sorted(name for name in about.environ if name.startswith("SWARM_") and "__" in name)
    places = [str(file)] if file.exists() else []
    return Check("config", State.OK, f"configuration is valid ({', '.join([*places, *given]) or 'all defaults'})")


def identity(about: Surroundings) -> Check:
    return _key("identity", "identity key", about.home.identity_key)


def api_key(about: Surroundings) -> Check:
    return _key("api_key", "API key", about.home.api_key)


def node(about: Surroundings) -> Check:
    holder = held(about.home)
    if about.status is not None:
        return Check("node", State.OK, f"node is running (process {about.status.get('pid')})")
    if holder is not None:
        who = f"process {holder.pid}" if holder.pid else "a process"
        finding = f"{who} holds this home but does not answer"
        return Check("node", State.FAILED, finding, "If it is not just starting: swarm logs, then swarm down")
    return Check("node", State.OK, "node is not running; nobody holds its home")


def ports(about: Surroundings) -> Check:
    """Only a node that is not running can find its ports taken; one that runs has them."""
    if about.status is not None:
        return Check("ports", State.OK, "ports are in use by this node")
    try:
        from node.settings import load

        settings = load(about.home, {}, environ=about.environ)
    except (Failure, ImportError):
        return Check("ports", State.WARNING, "ports were not checked", "First mend the configuration.")
    wanted = [("api.listen", settings.api.host, settings.api.port)]
    wanted += [("node.listen", str(host), port) for host, port in map(notation.listening_parts, settings.node.listen)]
    for key, host, port in wanted:
        try:
            _bind(host, port)
        except OSError as error:
            finding = f"{host}:{port} ({key}) cannot be bound: {error.strerror}"
            return Check(
                "ports", State.FAILED, finding, f"Stop what uses it, or set {key} to another port; 0 takes any."
            )
    return Check("ports", State.OK, f"ports are free: {', '.join(str(port) for _, _, port in wanted)}")


def api(about: Surroundings) -> Check:
    if about.status is None:
        return Check("api", State.OK, "API is not running")
    address = str(about.status.get("api", ""))
    try:
        host, _ = notation.host_and_port(address.removeprefix("http://"))
    except ValueError:
        return Check("api", State.WARNING, f"API is at an address that cannot be read: {address}")
    if not notation.is_loopback(host):
        return Check(
            "api", State.FAILED, f"API at {address} can be reached from outside", "Set api.listen to 127.0.0.1:7976"
        )
    return Check("api", State.OK, f"API is on loopback ({address})")


def packages(about: Surroundings) -> Check:
    """Other distributions have packages of these names too; in one environment they would overwrite each other."""
    places = {name: _folder_of(name) for name in PACKAGES}
    foreign = [name for name, folder in places.items() if folder != _OWN]
    if foreign:
        finding = ", ".join(f"{name} ({places[name] or 'missing'})" for name in foreign)
        return Check("packages", State.FAILED, f"packages are not ours: {finding}", _REINSTALL)
    owners = metadata.packages_distributions()
    others = sorted({owner for name in PACKAGES for owner in owners.get(name, ()) if owner != DISTRIBUTION})
    if others and _OWN.name in ("site-packages", "dist-packages"):
        finding = f"{', '.join(others)} installs packages of the same names as {DISTRIBUTION}"
        return Check("packages", State.FAILED, finding, f"{_REINSTALL} Or: pip uninstall {' '.join(others)}")
    return Check("packages", State.OK, f"packages are ours ({_OWN})")


def libraries(about: Surroundings) -> Check:
    missing = [name for name in LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        return Check("libraries", State.FAILED, f"libraries are missing: {', '.join(missing)}", _REINSTALL)
    return Check("libraries", State.OK, "libraries are there")


def engine(about: Surroundings) -> Check:
    """In a process of its own: a broken engine ends the process that imports it."""
    if importlib.util.find_spec(ENGINE) is None:
        hint = "Without it this node can ask, and offer other kinds of models. Install: pip install llama-cpp-python"
        return Check("engine", State.WARNING, "llama engine is missing", hint)
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", f"import {ENGINE} as engine; print(engine.__version__)"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=ENGINE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Check("engine", State.FAILED, f"llama engine could not be imported within {ENGINE_S:.0f} s")
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"it ended with exit code {done.returncode}"])[-1]
        hint = "Built for another machine? pip install --force-reinstall --no-binary llama-cpp-python llama-cpp-python"
        return Check("engine", State.FAILED, f"llama engine cannot be imported: {last}", hint)
    return Check("engine", State.OK, f"llama engine {done.stdout.strip()}")


def disk(about: Surroundings) -> Check:
    folder = next(path for path in (about.home.data, *about.home.data.parents) if path.exists())
    free = shutil.disk_usage(folder).free
    finding = f"{free / 1e9:.1f} GB free at {folder}"
    if free < FREE_BYTES_MIN:
        return Check("disk", State.FAILED, finding, "Free some space, or set SWARM_HOME to another disk.")
    if free < FREE_BYTES_GOOD:
        return Check("disk", State.WARNING, finding, "That is little room for models.")
    return Check("disk", State.OK, finding)


def journal(about: Surroundings) -> Check:
    """Tasks are answered without it too, so what is wrong with it is never more than a warning."""
    said = str(about.status.get("journal", "")) if about.status else ""
    if said:
        hint = "Free some space, or give the folder back to you; nothing else is affected."
        return Check("journal", State.WARNING, f"journal: {said}", hint)
    aside = sorted(about.home.journal.parent.glob(f"{about.home.journal.name}.bad-*[0-9]"))
    if aside:
        finding = f"journal: one that could not be read was set aside as {aside[-1]}"
        return Check("journal", State.WARNING, finding, f"If you do not miss it: rm {about.home.journal}.bad-*")
    return Check("journal", State.OK, "journal of tasks has no trouble")


def clock(about: Surroundings) -> Check:
    """Peers refuse what is signed at the wrong time, and we refuse theirs; a few such refusals happen, many tell of a clock."""
    if time.time() < _EPOCH_S:
        finding = f"the clock says {time.strftime('%Y-%m-%d')}"
        return Check("clock", State.FAILED, finding, "Set it; peers refuse messages from the past.")
    refused = about.status.get("refused", {}) if about.status else {}
    stale = refused.get("stale", 0) if isinstance(refused, dict) else 0
    if stale:
        finding = f"{stale} messages of peers came at the wrong time"
        return Check("clock", State.WARNING, finding, "Check this machine's clock, and that of the peers.")
    return Check("clock", State.OK, "clock agrees with all peers" if about.status else "clock is plausible")


def models(about: Surroundings) -> Check:
    found = about.status.get("models", []) if about.status else []
    failed = [model for model in found if isinstance(model, dict) and model.get("state") == "failed"]
    if failed:
        finding = f"model {failed[0].get('ref')} failed: {failed[0].get('detail')}"
        return Check("models", State.FAILED, finding, "See: swarm models")
    if about.status is None:
        return Check("models", State.OK, "models are loaded when the node runs")
    return Check("models", State.OK, f"{len(found)} model{'' if len(found) == 1 else 's'} without failure")


_OWN = Path(__file__).resolve().parent.parent.parent
_REINSTALL = f"Install {DISTRIBUTION} into an environment of its own: pipx install {DISTRIBUTION}"


def _key(name: str, what: str, file: Path) -> Check:
    if not file.exists() and not file.is_symlink():
        return Check(name, State.OK, f"{what} will be made at the first start")
    try:
        check_key_file(file)
    except Failure as failure:
        return Check(name, State.FAILED, failure.message, failure.hint)
    return Check(name, State.OK, f"{what} is readable only by you")


def _folder_of(package: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).resolve().parent.parent


def _bind(host: str, port: int) -> None:
    """Bind and let go at once. REUSEADDR as the node itself does, or a port that was just closed would look taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        if os.name == "posix":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        probe.listen(1)
