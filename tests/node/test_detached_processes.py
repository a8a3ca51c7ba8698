"""A task that nobody waits for outlives the node that took it: real processes, a real kill -9, the same home again."""

import json
import os
import resource
import subprocess
import sys
from typing import Any

import pytest

from tests.processes import ROOT, ControlError, RealNode, Starter


def run(node: RealNode, *arguments: str) -> str:
    """What the command prints for the home of this node."""
    done = subprocess.run(
        [sys.executable, "-m", "node.cli", *arguments], cwd=ROOT, env={**os.environ, "SWARM_HOME": str(node.home)},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def state(node: RealNode, task: str) -> dict[str, Any]:
    found: dict[str, Any] = node.control("GET", f"tasks/{task}")
    return found


def test_detached_task_is_answered_after_its_node_was_killed_and_came_back(start: Starter) -> None:
    worker = start.start("worker", models=("echo:first_ms=600,delay_ms=100",))
    asker = start.start("asker", join=worker.addresses[:1])
    asker.wait_for("chat")
    task = run(asker, "ask", "the answer survives", "--detach").strip()
    stream = asker.stream("and I am interrupted")
    assert next(stream)[0] == "route"
    asker.kill()
    asker.process.wait()
    stream.close()
    again = start.start("asker", join=worker.addresses[:1])
    again.wait_until(lambda: state(again, task[:8])["task"]["state"] != "open")
    found = state(again, task)
    assert (found["task"]["state"], found["text"], found["asked"]) == ("done", "the answer survives", "the answer survives")
    assert found["task"]["name"] == "worker"
    assert [candidate["chosen"] for candidate in found["answer"]["routes"][-1]["candidates"]] == [True]
    listed = [json.loads(line) for line in run(again, "history", "--json").splitlines()]
    assert [(old["begins"], old["state"]) for old in listed] == [
        ("and I am interrupted", "interrupted"),
        ("the answer survives", "done"),
    ]
    assert run(again, "history", task[:8]) == "the answer survives\n"
    told = run(again, "trace", task[:8])
    assert "worker (echo) after" in told and "WHERE THE TIME WENT" in told
    assert "the node ended before the answer was complete" in run(again, "trace", listed[0]["task"])


def test_full_disk_stops_nobody_and_is_told_until_there_is_room_again(start: Starter) -> None:
    node = start.start("alone", models=("echo:words=3",))
    limits = resource.prlimit(node.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(node.process.pid, resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    long = "x" * 50_000
    for _ in range(40):
        assert node.ask(long)[1]["code"] == ""
    assert "not recorded" in node.control("GET", "status")["journal"]
    with pytest.raises(ControlError) as refused:
        node.control("POST", "tasks", {"text": "keep this"})
    assert refused.value.answer["error"]["code"] == "not_detached"
    resource.prlimit(node.process.pid, resource.RLIMIT_FSIZE, limits)
    assert node.ask("there is room")[1]["code"] == ""
    node.wait_until(lambda: node.control("GET", "status")["journal"] == "")
    assert len(node.control("GET", "tasks?count=100")["tasks"]) == 42
    assert node.control("POST", "tasks", {"text": "keep this"})["state"] == "open"


def test_unknown_and_ambiguous_tasks_are_told_apart(start: Starter) -> None:
    node = start.start("alone", models=("echo:",))
    for number in range(17):  # Two of them begin with the same digit.
        node.ask(f"question {number}")
    tasks = [found["task"] for found in node.control("GET", "tasks")["tasks"]]
    assert len(tasks) == 17
    digits = [task[0] for task in tasks]
    twice = next(digit for digit in digits if digits.count(digit) > 1)
    for prefix, status, code in ((twice, 409, "ambiguous_task"), ("f" * 32, 404, "unknown_task"), ("xyz", 400, "bad_request")):
        with pytest.raises(ControlError) as refused:
            state(node, prefix)
        assert (refused.value.status, refused.value.answer["error"]["code"]) == (status, code)
