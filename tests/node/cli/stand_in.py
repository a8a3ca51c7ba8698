"""Plays the daemon's part at the start of `swarm up`, well or badly: `python stand_in.py MODE`. Knows only the contract."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from node.store.home import find_home
from node.store.lock import held, hold
from tests.node.cli.control_api import Control, control_api

CHILD = [sys.executable, "-c", "import time; time.sleep(600)"]


def report(event: str, **fields: object) -> None:
    os.write(int(os.environ["SWARM_READY_FD"]), json.dumps({"event": event, **fields}).encode() + b"\n")


def ready() -> None:
    """Starts well, with one model that loads and one that does not, and stops when it is asked to."""
    with held_home() as control:
        report("identity", node="12D3KooWJ8vFbbjwDn3aGsCW5pYkP3sQ1UvnZ7HqkbXNbYk4f9Qc", name="kestrel", created=True)
        report("listening", addresses=["/ip4/127.0.0.1/tcp/1", "/ip4/192.168.1.5/tcp/1/p2p/12D3KooW"])
        report("model", ref="a.gguf", state="loading", detail="")
        report("model", ref="a.gguf", state="ready", detail="")
        report("model", ref="c.gguf", state="resting", detail="")
        report("model", ref="d.gguf", state="removed", detail="")
        report("model", ref="b.gguf", state="failed", detail="it is not a GGUF file")
        report("ready", api="http://127.0.0.1:7976", overrides=os.environ["SWARM_OVERRIDES"])
        while ("POST /shutdown", {}) not in control.asked:
            time.sleep(0.01)


def ready_and_deaf() -> None:
    """Starts well and then never answers; SIGTERM ends it."""
    with hold(find_home()):
        report("ready", api="http://127.0.0.1:7976")
        signal.pause()


def ready_and_immortal() -> None:
    """Starts well, never answers, and ignores SIGTERM too."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with hold(find_home()):
        report("ready", api="http://127.0.0.1:7976")
        time.sleep(600)


def mute() -> None:
    """Begins, starts a child as models do, and then says no more."""
    child = subprocess.Popen(CHILD)
    report("identity", created=False, pids=[os.getpid(), child.pid])
    time.sleep(600)


def stubborn() -> None:
    """As mute, but SIGTERM does not impress it."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    mute()


def refuses() -> None:
    report("error", code="config_invalid", message="config.toml, line 3: no", hint="Do yes.", exit=8)
    sys.exit(8)


def ready_and_slow() -> None:
    """Starts well, hears that it shall stop, and does not; SIGTERM ends it."""
    with held_home():
        report("ready", api="http://127.0.0.1:7976")
        signal.pause()


def beaten() -> None:
    """Finds the home taken by another that was started at the same moment."""
    other = subprocess.Popen([sys.executable, __file__, "ready"], start_new_session=True, **quiet())
    while held(find_home()) is None:
        assert other.poll() is None
        time.sleep(0.01)
    report("error", code="home_locked", message="the home is held", hint="", exit=9)
    sys.exit(9)


def quiet() -> dict[str, Any]:
    """The other reports to somebody else."""
    return {"env": {**os.environ, "SWARM_READY_FD": "1"}, "stdout": subprocess.DEVNULL}


def crashes() -> None:
    print("Traceback: something broke", file=sys.stderr)
    sys.exit(1)


def crashes_by_signal() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def nonsense() -> None:
    os.write(int(os.environ["SWARM_READY_FD"]), b"{}\n")
    time.sleep(600)


@contextmanager
def held_home() -> Iterator[Control]:
    """The home's lock and a control API with canned answers."""
    home = find_home()
    with hold(home):
        home.socket.unlink(missing_ok=True)
        with control_api(home.socket) as control:
            yield control
        home.socket.unlink()


if __name__ == "__main__":
    globals()[sys.argv[1]]()
