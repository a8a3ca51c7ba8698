"""`swarm sim` as its user sees it: what is printed where, and the exit code."""

import json
import pickle
import subprocess
from pathlib import Path

import pytest

from simulations import command, revisions
from simulations.command import BAD_SCENARIO, FAILED, OK, USAGE, main
from simulations.invariants import EveryTaskEndsOnce
from simulations.processes import ProcessEnded
from simulations.scenario import ScenarioError
from simulations.world import Violation, WorldFailure

SMALL = """
about = "a dozen members"
seconds = 14
start_s = 1
[[members]]
name = "node"
count = 8
skills = ["chat"]
[[workload]]
skills = ["chat"]
rate_per_s = 4
from_s = 5
deadline_s = 10
[variants.greedy]
choosing_draws = 0
"""


@pytest.fixture
def small(tmp_path: Path) -> str:
    file = tmp_path / "small.toml"
    file.write_text(SMALL, encoding="utf-8")
    return str(file)


def test_run_prints_a_table_and_succeeds(small: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", small, "--seed", "5"]) == OK
    out, err = capsys.readouterr()
    assert "seed 5: 8 members" in out and "done_share" in out
    assert "a dozen members" in err


def test_run_as_json_is_one_report_a_line_and_repeats_itself(small: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", small, "--seeds", "2", "--json", "--trace-hash"]) == OK
    first = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [report["seed"] for report in first] == [1, 2]
    assert main(["run", small, "--seeds", "2", "--json", "--trace-hash"]) == OK
    second = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [report["trace_hash"] for report in first] == [report["trace_hash"] for report in second]
    assert first[0]["trace_hash"] != first[1]["trace_hash"]


def test_several_are_played_at_once_and_told_of_in_order(small: str, capsys: pytest.CaptureFixture[str]) -> None:
    told = []
    for jobs in ("1", "3"):
        assert main(["run", small, "--seeds", "3", "--json", "--jobs", jobs]) == OK
        reports = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        told.append([(report["seed"], report["figures"]) for report in reports])
    assert told[0] == told[1]
    assert [seed for seed, _ in told[0]] == [1, 2, 3]


def test_what_went_wrong_in_another_process_is_told_as_here() -> None:
    failure = WorldFailure("small", 3, 1.5, "planted", ["one line"])
    assert str(pickle.loads(pickle.dumps(failure))) == str(failure)


def test_a_process_that_ends_too_soon_is_told_of(
    small: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ProcessEnded("the process that played small ended too soon")

    monkeypatch.setattr(command, "play_many", broken)
    assert main(["run", small, "--seeds", "2", "--jobs", "2"]) == FAILED
    assert "ended too soon. If it has not said why" in capsys.readouterr().err


def test_a_trace_holds_every_event_and_effect(small: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "trace.txt"
    assert main(["run", small, "--trace", str(file)]) == OK
    lines = file.read_text(encoding="utf-8").splitlines()
    assert lines[0].split()[1:] == ["node-0", "Started(['/sim/0'])"]
    assert sum(" Asked(" in line for line in lines) == sum(" Conclude(" in line for line in lines) > 10


def test_a_broken_invariant_fails_with_the_command_that_shows_it_again(
    small: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise Violation("planted")

    monkeypatch.setattr(EveryTaskEndsOnce, "look", broken)
    assert main(["run", small, "--seed", "3"]) == FAILED
    assert f"swarm sim run {small} --seed 3" in capsys.readouterr().err


def test_a_missed_goal_fails(small: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path(small).write_text(SMALL + "[goals]\ntasks_min = 1_000_000\n", encoding="utf-8")
    assert main(["run", small]) == FAILED
    assert "the goal is at least 1e+06" in capsys.readouterr().err


def test_a_baseline_is_written_and_held(small: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", small, "--check"]) == FAILED
    assert "no baseline" in capsys.readouterr().err
    assert main(["baseline", small]) == OK
    assert main(["run", small, "--check"]) == OK
    Path(small).write_text(SMALL.replace("rate_per_s = 4", "rate_per_s = 8"), encoding="utf-8")
    capsys.readouterr()
    assert main(["run", small]) == OK, "only --check holds it"
    assert "drifted" in capsys.readouterr().out
    assert main(["run", small, "--check"]) == FAILED
    assert "tasks was" in capsys.readouterr().err


def test_compare_shows_two_scenarios_or_reports_side_by_side(
    small: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", small, "--json"]) == OK
    report = tmp_path / "report.json"
    report.write_text(capsys.readouterr().out, encoding="utf-8")
    assert main(["compare", f"{small}:greedy", str(report)]) == OK
    out = capsys.readouterr().out
    assert "ratio" in out and "load_max_over_fair" in out
    assert main(["compare", small, str(report), "--json"]) == OK
    one, two = json.loads(capsys.readouterr().out)
    assert one["figures"] == two["figures"]


def test_compare_shows_what_has_changed_in_the_baselines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {"herd": {"tasks": 10.0, "end_p99_s": 2.0, "gone": 1.0}, "lost": {}, "same": {"tasks": 1.0}}
    after = {"herd": {"tasks": 10.0, "end_p99_s": 3.0, "near_best": 1.0}, "same": {"tasks": 1.0}}
    monkeypatch.setattr("simulations.command.baselines_of", lambda revision: {"main": before}[revision])
    monkeypatch.setattr("simulations.command.baselines_here", lambda: after)
    assert main(["compare", "main"]) == OK
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines == ["herd:", "end_p99_s 2 3 1.50x <--", "gone gone", "near_best new", "lost: gone"]
    monkeypatch.setattr("simulations.command.baselines_here", lambda: before)
    assert main(["compare", "main"]) == OK
    assert capsys.readouterr().out == "No figure of any baseline differs.\n"


def test_baselines_come_out_of_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*args: str) -> None:
        who = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
        subprocess.run(["git", *who, *args], cwd=tmp_path, check=True, capture_output=True)

    folder = tmp_path / revisions.FOLDER
    folder.mkdir(parents=True)
    (folder / "calm.json").write_text('{"figures": {"tasks": 3.0}}', encoding="utf-8")
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "one")
    monkeypatch.setattr(revisions, "ROOT", tmp_path)
    assert revisions.baselines_of("HEAD") == {"calm": {"tasks": 3.0}}
    with pytest.raises(ScenarioError, match="nowhere"):
        revisions.baselines_of("nowhere")


def test_ls_names_every_scenario_and_variant(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls"]) == OK
    out = capsys.readouterr().out
    assert {"calm", "churn", "herd", "herd:greedy", "partition", "scale", "storm", "wire"} <= set(out.split())
    assert main(["ls", "--json"]) == OK
    assert all(json.loads(line)["members"] for line in capsys.readouterr().out.splitlines())


@pytest.mark.parametrize(
    ("args", "code", "complaint"),
    [
        (["run", "clam"], BAD_SCENARIO, "did you mean calm?"),
        (["compare", "clam"], BAD_SCENARIO, "clam is no scenario, and no revision with baselines"),
        (["compare", "calm"], BAD_SCENARIO, "compare calm with what?"),
        (["run"], BAD_SCENARIO, "nothing to run"),
        (["run", "calm", "--jobs", "0"], BAD_SCENARIO, "--jobs 0 plays nothing"),
        (["compare", "nowhere.json", "nowhere.json"], BAD_SCENARIO, "nowhere.json is not a report"),
        (["fly"], USAGE, "invalid choice"),
        ([], USAGE, "required"),
        (["--help"], OK, ""),
    ],
)
def test_mistakes_are_told_on_stderr(
    args: list[str], code: int, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(args) == code
    out, err = capsys.readouterr()
    assert complaint in err
    assert "Traceback" not in out + err
