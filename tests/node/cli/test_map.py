"""`swarm map`: many tasks from a file through a real node, and nothing is asked twice, whoever dies in between."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from node.exits import ExitCode
from tests.node.cli.conftest import Run
from tests.processes import ROOT, RealNode, Starter


def results(out: str) -> dict[str, dict[str, Any]]:
    return {line["item"]: line for line in map(json.loads, out.splitlines())}


def here(node: RealNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWARM_HOME", str(node.home))


LINES = b"""\
"one is first"
{"id": "b", "text": "two words", "system": "be brief"}

not json
{"id": "c", "text": "x", "colour": "red"}
["a list"]
"""


def test_each_line_becomes_a_result_and_wrong_lines_are_told(
    swarm: Run, start: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here(start.start("node", models=("echo:",)), monkeypatch)
    (tmp_path / "f.jsonl").write_bytes(LINES + b'"' + b"x" * 300_000 + b'"\n"the last"')
    ran = swarm("map", str(tmp_path / "f.jsonl"))
    found = results(ran.out)
    assert {item: line.get("text") for item, line in found.items() if line["state"] == "done"} == {
        "1": "one is first",
        "b": "two words",
        "8": "the last",
    }
    assert {item: line["code"] for item, line in found.items() if line["state"] == "failed"} == {
        "4": "bad_request",
        "c": "bad_request",
        "6": "bad_request",
        "7": "bad_request",
    }
    assert "colour" in found["c"]["reason"]
    assert "line 7 is longer" in found["7"]["reason"]
    assert ran.code == ExitCode.FAILED
    assert "3 answered" in ran.err


def test_a_second_run_asks_only_what_is_new_edited_or_failed(
    swarm: Run, start: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = start.start("node", models=("echo:",))
    here(node, monkeypatch)
    file = tmp_path / "f.jsonl"
    file.write_text('"first"\n"second"\n')
    first = results(swarm("map", str(file)).out)
    file.write_text('"first"\n"edited"\n"third"\n')
    second = results(swarm("map", str(file), "-j", "1").out)
    assert {item: line["text"] for item, line in second.items()} == {"1": "first", "2": "edited", "3": "third"}
    assert second["1"]["task"] == first["1"]["task"]
    assert node.control("GET", "status")["asked"] == 4
    swarm("map", str(file), "--batch", "anew")
    assert node.control("GET", "status")["asked"] == 7
    assert len(node.control("GET", "tasks?batch=anew")["tasks"]) == 3


def test_without_a_node_nothing_is_printed(swarm: Run, tmp_path: Path) -> None:
    (tmp_path / "f.jsonl").write_text('"first"\n' * 30)
    ran = swarm("map", str(tmp_path / "f.jsonl"))
    assert (ran.code, ran.out) == (ExitCode.NOT_RUNNING, "")
    assert swarm("map", str(tmp_path / "gone.jsonl")).code == ExitCode.FAILED


def test_a_batch_goes_on_after_its_node_was_killed(
    swarm: Run, start: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = start.start("node", models=("echo:delay_ms=50",))
    here(node, monkeypatch)
    file = tmp_path / "f.jsonl"
    file.write_text("".join(f'"question number {number} of thirty"\n' for number in range(30)))
    mapping = subprocess.Popen(
        [sys.executable, "-m", "node.cli", "map", str(file), "-j", "4"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert mapping.stdout is not None
    before = [mapping.stdout.readline() for _ in range(5)]
    node.kill(signal.SIGKILL)
    node.process.wait()
    rest, said = mapping.communicate(timeout=60)
    assert mapping.returncode != 0
    assert "The same command goes on from here." in said
    told = results("".join(before) + "".join(line for line in rest.splitlines(True) if "swarm.item" in line))
    again = start.start("node", models=("echo:delay_ms=50",))
    ran = swarm("map", str(file))
    found = results(ran.out)
    assert ran.code == ExitCode.DONE, ran.err
    assert {line["text"] for line in found.values()} == {f"question number {number} of thirty" for number in range(30)}
    assert all(found[item]["task"] == line["task"] for item, line in told.items()), "what was told is not asked again"
    assert again.control("GET", "status")["asked"] <= 30 - len(told)
