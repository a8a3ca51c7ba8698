"""How long a user waits for the command itself: up, ask, join."""

import json
import os
import subprocess
import sys
from pathlib import Path
from time import perf_counter, sleep

from benchmarks.figures import Figure, at_most, percentile
from tests.processes import ROOT, real_nodes

UPS = 5
ASKS = 20
JOINS = 8


def measure(folder: Path) -> list[Figure]:
    return [*_up(folder / "up"), *_ask(folder / "ask"), *_join(folder / "join")]


def _up(folder: Path) -> list[Figure]:
    waits = []
    for number in range(UPS):
        environment = os.environ | {"SWARM_HOME": str(folder / str(number)), "PYTHONPATH": str(ROOT)}
        began = perf_counter()
        _swarm(["up", "--no-models", "--offline", "--listen", "/ip4/127.0.0.1/tcp/0", "--api", "127.0.0.1:0"], environment)
        waits.append(perf_counter() - began)
        _swarm(["down"], environment)
    return [at_most("`swarm up` to ready, no models, median", percentile(waits, 0.5), 3, "s", 2)]


def _ask(folder: Path) -> list[Figure]:
    with real_nodes(folder) as start:
        node = start.start("node", models=("echo:",))
        environment = os.environ | {"SWARM_HOME": str(node.home), "PYTHONPATH": str(ROOT)}
        whole, server = [], []
        for _ in range(ASKS):
            began = perf_counter()
            _swarm(["ask", "hello there"], environment)
            whole.append(perf_counter() - began)
            began = perf_counter()
            node.ask("hello there")
            server.append(perf_counter() - began)
    overhead_ms = (percentile(whole, 0.5) - percentile(server, 0.5)) * 1000
    return [at_most("`swarm ask`: what the client adds, median", overhead_ms, 150, "ms", 0)]


def _join(folder: Path) -> list[Figure]:
    waits = []
    with real_nodes(folder) as start:
        first = start.start("first")
        for number in range(JOINS):
            second = start.start(f"second-{number}", models=("echo:",))
            began = perf_counter()
            second.control("POST", "join", {"address": first.addresses[0]})
            while not first.control("GET", "skills")["skills"]:
                sleep(0.005)
            waits.append(perf_counter() - began)
            second.stop()
            while len(first.control("GET", "peers")["peers"]) > 1:
                sleep(0.05)
    return [at_most("a second node joins: routable, slowest of 8", max(waits), 1, "s", 3)]


def _swarm(arguments: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "node.cli", *arguments], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, json.dumps([arguments, done.returncode, done.stdout, done.stderr])
