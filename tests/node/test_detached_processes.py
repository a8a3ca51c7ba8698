"""A task that nobody waits for outlives the node that took it: real processes, a real kill -9, the same home again."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.processes import ControlError, RealNode, Starter, real_nodes


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Starter]:
    with real_nodes(tmp_path) as starter:
        yield starter


def state(node: RealNode, task: str) -> dict[str, Any]:
    found: dict[str, Any] = node.control("GET", f"tasks/{task}")
    return found


def test_detached_task_is_answered_after_its_node_was_killed_and_came_back(start: Starter) -> None:
    worker = start.start("worker", models=("echo:first_ms=600,delay_ms=100",))
    asker = start.start("asker", join=worker.addresses[:1])
    asker.wait_for("chat")
    task = asker.control("POST", "tasks", {"text": "the answer survives"})["task"]
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
    history = again.control("GET", "tasks?count=5")["tasks"]
    assert [(old["begins"], old["state"]) for old in history] == [
        ("and I am interrupted", "interrupted"),
        ("the answer survives", "done"),
    ]


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
