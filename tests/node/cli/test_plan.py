"""`swarm plan` through real nodes: specialists in a row, deaths in between, and a second run that asks nothing twice."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from node.exits import ExitCode
from tests.node.cli.conftest import Run
from tests.processes import ROOT, ControlError, RealNode, Starter

TEXTS = [f"question number {number} of twelve" for number in range(12)]


def written(folder: Path, steps: list[dict[str, Any]], **more: Any) -> str:
    file = folder / "plan.json"
    file.write_text(json.dumps({"steps": steps, "out": "${" + steps[-1]["id"] + "}", **more}))
    return str(file)


def mapped(name: str, over: str, skill: str, text: str = "${item}", **more: Any) -> dict[str, Any]:
    return {"id": name, "op": "map", "over": over, "call": {"skill": skill, "text": text}, **more}


def here(node: RealNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWARM_HOME", str(node.home))


TWO_SKILLS = [
    mapped("read", "${texts}", "classify"),
    {"id": "kept", "op": "filter", "over": "${texts}", "by": "${read}", "where": {"contains": "number 1"}},
    mapped("told", "${kept}", "chat", "about ${item}"),
    {"id": "all", "op": "reduce", "over": "${told}", "fn": "join"},
]


def test_specialists_of_a_swarm_do_a_task_that_none_of_them_can(
    swarm: Run, start: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asker = start.start("asker")
    here(asker, monkeypatch)
    for name, skill in (("reader", "classify"), ("writer", "chat")):
        start.start(name, models=(f"echo:skills={skill},model={name}",), join=asker.addresses)
        asker.wait_for(skill)
    plan = written(tmp_path, TWO_SKILLS, inputs={"texts": TEXTS})
    ran = swarm("plan", plan)
    assert ran.code == ExitCode.DONE, ran.err
    assert ran.out == "".join(f"about question number {number} of twelve\n" for number in (1, 10, 11))
    assert "read: 12 by reader\n" in ran.err
    assert "told: 3 by writer\n" in ran.err
    assert "15 asked" in ran.err
    again = swarm("plan", plan, "--json")
    assert again.json["value"] + "\n" == ran.out
    assert (again.json["tasks"], [step["known"] for step in again.json["steps"]]) == (0, [12, 3])
    assert swarm("plan", plan, "--batch", "anew", "--json").json["tasks"] == 15
    assert 'swarm_plans_total{state="done"} 3' in asker.metrics()
    kept = asker.control("GET", "tasks?batch=anew")["tasks"]
    assert {task["state"] for task in kept} == {"done"}
    assert len(kept) == 15


def test_a_worker_that_dies_in_the_middle_is_no_matter_of_the_plan(
    swarm: Run, start: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asker = start.start("asker")
    here(asker, monkeypatch)
    workers = [start.start(f"w{n}", models=("echo:delay_ms=40,slots=2",), join=asker.addresses) for n in range(3)]
    asker.wait_for("chat", 3)
    plan = written(tmp_path, [mapped("told", "${texts}", "chat")], inputs={"texts": TEXTS * 2})
    running = subprocess.Popen(
        [sys.executable, "-m", "node.cli", "plan", plan, "--json"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    asker.wait_until(lambda: workers[0].control("GET", "status")["served"] >= 1)
    workers[0].kill(signal.SIGKILL)
    out, _ = running.communicate(timeout=60)
    end = json.loads(out)
    assert (end["state"], end["value"], end["tasks"]) == ("done", TEXTS * 2, 24)


def test_a_plan_goes_on_after_its_own_node_was_killed(
    swarm: Run, start: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = start.start("node", models=("echo:delay_ms=120,slots=2",))
    here(node, monkeypatch)
    plan = written(tmp_path, [mapped("told", "${texts}", "chat")], inputs={"texts": TEXTS})
    running = subprocess.Popen(
        [sys.executable, "-m", "node.cli", "plan", plan], cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    node.wait_until(lambda: node.control("GET", "status")["answered"] >= 4)
    done = [task for task in node.control("GET", "tasks")["tasks"] if task["state"] == "done"]  # So these are on the disk.
    node.kill(signal.SIGKILL)
    out, said = running.communicate(timeout=60)
    assert (running.returncode, out) == (ExitCode.FAILED, "")
    assert "The same command goes on from here." in said
    again = start.start("node", models=("echo:delay_ms=120,slots=2",))
    ran = swarm("plan", plan, "--json")
    assert ran.json["value"] == TEXTS
    assert ran.json["steps"][0]["known"] >= len(done) >= 4
    assert again.control("GET", "status")["asked"] == 12 - ran.json["steps"][0]["known"]


def test_whoever_leaves_takes_the_tasks_along(
    start: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = start.start("node", models=("echo:delay_ms=2000,slots=2",))
    here(node, monkeypatch)
    plan = written(tmp_path, [mapped("told", "${texts}", "chat")], inputs={"texts": TEXTS})
    running = subprocess.Popen([sys.executable, "-m", "node.cli", "plan", plan], cwd=ROOT, stderr=subprocess.PIPE)
    node.wait_until(lambda: node.control("GET", "status")["asked"] == 12)
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=60)
    assert running.returncode == ExitCode.INTERRUPTED
    node.wait_until(lambda: {task["state"] for task in node.control("GET", "tasks")["tasks"]} == {"cancelled"})
    node.wait_until(lambda: node.control("GET", "status")["peers"][0]["busy"] == 0)


def test_what_fails_is_told_with_what_there_is(
    swarm: Run, start: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here(start.start("node", models=("echo:",)), monkeypatch)
    steps = [mapped("a", "${texts}", "chat"), mapped("b", "${a}", "chat", "${item.name}")]
    plan = written(tmp_path, steps, inputs={"texts": ["one two", "three four"]})
    ran = swarm("plan", plan)
    assert (ran.code, ran.out) == (ExitCode.FAILED, "")
    assert "the plan came to no result: step b, element 0: ${item.name}: 'one two' has no name" in ran.err
    told = swarm("plan", plan, "--json").json
    assert (told["state"], told["value"]) == ("failed", None)
    assert told["steps"][0]["values"] == ["one two", "three four"]
    steps[1]["on_fail"] = "null"
    ran = swarm("plan", written(tmp_path, steps, inputs={"texts": ["one two", "three four"]}))
    assert (ran.code, json.loads(ran.out)) == (ExitCode.DONE, [None, None])
    assert "2 known, 2 failed" in ran.err


def test_a_plan_waits_for_the_only_worker_to_come_back(
    swarm: Run, start: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asker = start.start("asker")
    here(asker, monkeypatch)
    worker = start.start("worker", models=("echo:delay_ms=120,slots=2",), join=asker.addresses)
    asker.wait_for("chat")
    plan = written(tmp_path, [mapped("told", "${texts}", "chat")], inputs={"texts": TEXTS})
    with subprocess.Popen(
        [sys.executable, "-m", "node.cli", "plan", plan, "--json"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as running:
        asker.wait_until(lambda: asker.control("GET", "status")["answered"] >= 2)
        worker.kill(signal.SIGKILL)
        worker.process.wait()
        asker.wait_until(lambda: asker.control("GET", "status")["failed"] >= 1)
        start.start("worker", models=("echo:delay_ms=120,slots=2",), join=asker.addresses)
        out, _ = running.communicate(timeout=60)
    end = json.loads(out)
    assert (end["state"], end["value"]) == ("done", TEXTS)
    assert end["tasks"] > 12


def test_inputs_come_from_the_command_line(
    swarm: Run, start: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here(start.start("node", models=("echo:",)), monkeypatch)
    (tmp_path / "l.jsonl").write_text('"x"\n\n{"y": 1}\n')
    (tmp_path / "t.txt").write_text("a text")
    (tmp_path / "v.json").write_text('{"w": [1, 2]}')
    steps = [{"id": "a", "op": "template", "text": "${list} ${text} ${value.w.1} ${plain}"}]
    plan = written(tmp_path, steps, inputs={"plain": "old"})
    given = [f"list=@{tmp_path}/l.jsonl", f"text=@{tmp_path}/t.txt", f"value=@{tmp_path}/v.json", "plain=a=b"]
    ran = swarm("plan", plan, *[part for text in given for part in ("--input", text)])
    assert ran.out == '["x",{"y":1}] a text 2 a=b\n'
    assert swarm("plan", "-", typed=Path(plan).read_bytes()).code == ExitCode.FAILED


@pytest.mark.parametrize(
    ("arguments", "content", "why", "code"),
    [
        (("FILE",), "{", "is not JSON", ExitCode.USAGE),
        (("FILE",), "[]", "is no plan", ExitCode.USAGE),
        (("FILE",), " " * 1_000_001, "is larger than", ExitCode.FAILED),
        (("/nowhere/p.json",), "{}", "cannot be read", ExitCode.FAILED),
        (("FILE", "--input", "x"), "{}", "write NAME=VALUE", ExitCode.USAGE),
        (("FILE", "--input", "x=@/nowhere"), "{}", "cannot be read", ExitCode.FAILED),
        (("FILE",), "{}", "not running", ExitCode.NOT_RUNNING),
    ],
)
def test_bad_words_are_told_before_anything_is_asked(
    swarm: Run, tmp_path: Path, arguments: tuple[str, ...], content: str, why: str, code: int
) -> None:
    (tmp_path / "p.json").write_text(content)
    ran = swarm("plan", *[str(tmp_path / "p.json") if argument == "FILE" else argument for argument in arguments])
    assert why in ran.err
    assert (ran.code, ran.out) == (code, "")


def test_every_kind_of_step_and_condition_is_read_as_it_is_written(start: Starter) -> None:
    node = start.start("node", models=("echo:",))
    people = [{"name": "Ada", "age": 36}, {"name": "bob", "age": "41"}, {"name": "Cyd"}, None]

    def kept(**where: Any) -> list[str]:
        condition = {name.rstrip("_"): value for name, value in where.items()}
        steps = [
            {"id": "kept", "op": "filter", "over": "${people}", "where": condition},
            {"id": "out", "op": "map", "over": "${kept}", "call": {"text": "${item.name}"}},
        ]
        value = node.plan({"inputs": {"people": people, "who": "BOB"}, "steps": steps, "out": "${out}"})["value"]
        assert isinstance(value, list)
        return value

    assert kept(field="name", is_="ada") == ["Ada"]
    assert kept(field="name", is_="${who}") == ["bob"]
    assert kept(field="name", in_=["Cyd", "${who}"]) == ["bob", "Cyd"]
    assert kept(field="name", contains="D") == ["Ada", "Cyd"]
    assert kept(field="age", above=36) == ["bob"]
    assert kept(field="age", above=35, below=40.5) == ["Ada"]
    assert kept(field="name", not_={"contains": "a"}) == ["bob", "Cyd"]
    assert kept(field="age", is_=36) == ["Ada"]
    assert kept(is_=None) == []
    steps: list[dict[str, Any]] = [
        {"id": "said", "op": "call", "call": {"turns": [{"role": "user", "text": "${people.0.age} $${x}"}]}},
        {"id": "way", "op": "branch", "on": "${said}", "where": {"contains": "36"}, "then": "${said}", "else": "${never}"},
        {"id": "never", "op": "call", "call": {"text": "not asked"}},
        {"id": "told", "op": "template", "text": "<${way}>"},
    ]
    end = node.plan({"about": "all kinds", "inputs": {"people": people}, "steps": steps, "out": "${told}"})
    assert (end["value"], end["tasks"]) == ("<36 ${x}>", 1)


STEP = {"id": "a", "op": "call", "call": {"text": "x"}}
WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "steps"),
    ({"steps": []}, "out"),
    ({"steps": [], "out": "${a}"}, "0 steps"),
    ({"steps": [STEP], "out": "a"}, "'a' is not the name of a value"),
    ({"steps": [STEP], "out": "${b}"}, "nothing is called b"),
    ({"steps": [{**STEP, "op": "think"}], "out": "${a}"}, "steps[0].op"),
    ({"steps": [{**STEP, "tools": 1}], "out": "${a}"}, "tools"),
    ({"steps": [{**STEP, "call": {}}], "out": "${a}"}, "step a: Give either text or turns"),
    ({"steps": [{**STEP, "call": {"text": "${"}}], "out": "${a}"}, "step a: '${' names no value"),
    ({"steps": [{**STEP, "call": {"text": "x", "peer": "nobody"}}], "out": "${a}"}, 'step a: No node "nobody" is known'),
    ({"steps": [{**STEP, "call": {"text": "x", "temperature": 9}}], "out": "${a}"}, "steps[0].call.temperature"),
    ({"steps": [{"id": "a", "op": "filter", "over": "${a}", "where": {}}], "out": "${a}"}, "nothing is asked of the value"),
    ({"steps": [STEP], "out": "${a}", "budget": {"tasks": 0}}, "budget.tasks"),
    ({"steps": [STEP], "out": "${a}", "budget": {"deadline_s": 1e9}}, "budget.deadline_s"),
    ({"steps": [{**STEP, "id": f"a{n}"} for n in range(65)], "out": "${a0}"}, "steps"),
]


def test_a_plan_that_cannot_be_is_refused_with_the_place(start: Starter) -> None:
    node = start.start("node", models=("echo:",))
    for body, why in WRONG:
        with pytest.raises(ControlError) as refused:
            node.control("POST", "plans", body)
        assert refused.value.status == 400, body
        assert why in refused.value.answer["error"]["message"], body
    assert node.control("GET", "status")["asked"] == 0
