"""`swarm history`, `swarm trace` and `swarm ask --detach`: what is printed of tasks that were asked before."""

import json
from dataclasses import asdict, replace

import click
import pytest

from node.cli.history import tasks_table
from node.cli.trace import trace_text
from node.exits import ExitCode
from node.views import AnswerView, TraceView
from tests.conftest import Golden
from tests.node.cli import control_api as canned
from tests.node.cli.conftest import Run
from tests.node.cli.control_api import TASK, Answer, Control

NOW = 1_795_000_192.0


def test_tasks_are_listed_with_age_state_worker_and_first_words(golden: Golden, home: object) -> None:
    golden("history.txt", click.unstyle(tasks_table(canned.tasks(), NOW)) + "\n")


def test_history_prints_a_line_for_each_task(swarm: Run, control: Control) -> None:
    ran = swarm("history")
    assert ran.code == ExitCode.DONE
    assert [line.split()[0] for line in ran.out.splitlines()] == ["TASK", "7f21c0de", "00c1c0de", "11c1c0de"]


def test_history_for_programs_is_one_object_a_line(swarm: Run, control: Control) -> None:
    lines = [json.loads(line) for line in swarm("history", "--json").out.splitlines()]
    assert lines == [asdict(task) for task in canned.tasks()]


def test_history_asks_for_as_many_as_are_wanted(swarm: Run, control: Control) -> None:
    control.answers["GET /tasks?count=3"] = Answer({"schema": "swarm.history/1", "tasks": []})
    ran = swarm("history", "-n", "3")
    assert (ran.out, ran.err) == ("", "Nothing was asked yet.\n")


def test_history_with_an_id_prints_the_answer_alone(swarm: Run, control: Control) -> None:
    ran = swarm("history", "7f21")
    assert (ran.code, ran.out, ran.err) == (ExitCode.DONE, "40.8\n", "")
    assert swarm("history", "7f21", "--json").json["text"] == "40.8"


def test_a_task_that_is_under_way_is_waited_for_as_long_as_the_user_wants(swarm: Run, control: Control) -> None:
    control.answers["GET /tasks/7f21?wait_s=20.000"] = Answer(asdict(canned.trace("open")))
    control.answers["GET /tasks/7f21"] = Answer(asdict(canned.trace("open")))
    for path in [f"GET /tasks/7f21?wait_s={ms / 1000:.3f}" for ms in range(1, 301)]:
        control.answers[path] = Answer(asdict(canned.trace("open")))
    ran = swarm("history", "7f21", "--timeout", "0.3")
    assert (ran.code, ran.out) == (ExitCode.FAILED, "")
    assert "still under way" in ran.err


@pytest.mark.parametrize(
    ("state", "code", "exit"),
    [
        ("failed", "deadline_exceeded", ExitCode.DEADLINE_PASSED),
        ("failed", "no_capable_peer", ExitCode.NO_CAPABLE_PEER),
        ("interrupted", "", ExitCode.FAILED),
        ("cancelled", "cancelled", ExitCode.FAILED),
    ],
)
def test_a_task_that_failed_ends_as_if_it_had_just_been_asked(
    swarm: Run, control: Control, state: str, code: str, exit: ExitCode
) -> None:
    control.answers["GET /tasks/7f21?wait_s=20.000"] = Answer(asdict(canned.trace(state, code, "because", "40")))
    ran = swarm("history", "7f21")
    assert (ran.code, ran.out) == (exit, "40\n"), "the partial text is printed"
    assert "because" in ran.err
    assert swarm("history", "7f21", "--json").code == exit


def test_a_task_without_text_says_so(swarm: Run, control: Control) -> None:
    private = replace(canned.trace(text=""), asked="", task=canned.task(begins=""))
    control.answers["GET /tasks/7f21?wait_s=20.000"] = Answer(asdict(private))
    ran = swarm("history", "7f21")
    assert (ran.code, ran.out, ran.err) == (ExitCode.DONE, "", "The journal keeps no text of this task.\n")


@pytest.mark.parametrize("verb", ["history", "trace"])
@pytest.mark.parametrize("wrong", ["xyz", "../status", "7f2 1"])
def test_what_is_no_id_is_not_sent(swarm: Run, control: Control, verb: str, wrong: str) -> None:
    ran = swarm(verb, wrong)
    assert ran.code == ExitCode.FAILED and "is no task id" in ran.err
    assert control.asked == []


def test_an_unknown_id_leads_to_the_history(swarm: Run, control: Control) -> None:
    control.fail("GET /tasks/00", "unknown_task", "No task of this node has an id that begins with 00.", 404)
    ran = swarm("trace", "00")
    assert ran.code == ExitCode.FAILED
    assert ran.err.endswith("See what was asked with: swarm history\n")


def test_a_trace_shows_each_choice_what_came_of_it_and_where_the_time_went(golden: Golden, home: object) -> None:
    golden("trace.txt", click.unstyle(trace_text(canned.trace(), NOW)) + "\n")


def test_a_trace_of_an_interrupted_task_shows_how_far_it_came(golden: Golden, home: object) -> None:
    account = AnswerView(TASK, "chat", "", "", "", "", "", "", 0, 0, None, 0.0, [], [canned.route()])
    task = replace(
        canned.task("interrupted", reason="the node ended"), seconds=None, name="", privacy="local", batch="b", item="7"
    )
    golden("trace-interrupted.txt", click.unstyle(trace_text(TraceView(task, "", "", account), NOW)) + "\n")


def test_trace_prints_it_and_for_programs_all_of_it(swarm: Run, control: Control) -> None:
    ran = swarm("trace", "7f21")
    assert ran.code == ExitCode.DONE and "WHERE THE TIME WENT" in ran.out
    assert swarm("trace", "7f21", "--json").json == json.loads(json.dumps(asdict(canned.trace())))


def test_detach_prints_the_id_alone_and_how_to_go_on(swarm: Run, control: Control) -> None:
    ran = swarm("ask", "hi", "--detach", "--deadline", "5m")
    assert (ran.code, ran.out) == (ExitCode.DONE, f"{TASK}\n")
    assert "swarm history 7f21c0de" in ran.err and "swarm trace 7f21c0de" in ran.err
    assert control.asked == [("POST /tasks", {"turns": [{"role": "user", "text": "hi"}], "deadline_s": 300.0})]
    assert swarm("ask", "hi", "--detach", "--json").json["task"] == TASK


def test_detach_that_is_refused_prints_no_id(swarm: Run, control: Control) -> None:
    control.fail("POST /tasks", "not_detached", "The task was not taken: the disk is full.", 503)
    ran = swarm("ask", "hi", "--detach")
    assert (ran.code, ran.out) == (ExitCode.FAILED, "")
    assert "the disk is full" in ran.err
