"""The numbers of a run are those of what happened; goals and baselines are held, within what each figure may vary."""

from dataclasses import replace

import msgspec
import pytest

from simulations.play import play
from simulations.report import Report, comparison, drifted, missed_goals, percentile, table_of
from simulations.scenario import BASELINES, ScenarioError, load, names
from tests.simulations.small import scenario


@pytest.fixture(scope="module")
def report() -> Report:
    return play(scenario(), 1)


def test_the_figures_are_those_of_the_run(report: Report) -> None:
    figures = report.figures
    assert figures["tasks"] == pytest.approx(4 * 12, rel=0.5)
    assert figures["done_share"] == 1.0 and not report.failed
    assert 0 < figures["first_piece_p50_s"] <= figures["first_piece_p99_s"] <= figures["end_p99_s"] < 12
    assert figures["attempts_per_task"] >= 1.0
    assert report.messages["TaskFinished"] == figures["tasks"]
    assert figures["messages_per_member_s"] == pytest.approx(
        sum(report.messages.values()) / 16 / report.seconds, abs=1e-3
    )
    assert figures["load_max_over_fair"] >= 1.0
    assert figures["bytes_per_member_s"] > 10 * figures["messages_per_member_s"], "as if it had crossed a wire"
    assert report.trace_hash == ""


def test_refusals_failovers_and_failures_are_counted_apart() -> None:
    busy = scenario(
        rest='[swarm]\nqueue_max = 0\n[[faults]]\nkind = "blackhole"\ngroup = "worker"\nat_s = 8\nshare = 0.5\n'
    )
    busy = msgspec.structs.replace(busy, workload=[msgspec.structs.replace(busy.workload[0], rate_per_s=40.0)])
    report = play(busy, 1)
    assert report.figures["refusals_per_task"] > 0 and report.figures["failovers_per_task"] > 0
    assert report.failed and report.figures["done_share"] < 1.0
    assert report.faults == {"blackhole": 6}


@pytest.mark.parametrize(
    ("samples", "percent", "expected"),
    [([], 50, 0.0), ([3.0], 99, 3.0), ([4.0, 1.0, 3.0, 2.0], 50, 2.0), ([float(n) for n in range(1, 101)], 99, 99.0)],
)
def test_a_percentile_is_the_nearest_rank(samples: list[float], percent: int, expected: float) -> None:
    assert percentile(samples, percent) == expected


@pytest.mark.parametrize(
    ("name", "was", "far"),
    [
        ("done_share", 0.996, False),
        ("done_share", 0.99, True),
        ("end_p50_s", 1.09, False),
        ("end_p50_s", 1.2, True),
        ("end_p99_s", 1.2, False),
        ("end_p99_s", 1.5, True),
        ("refusals_per_task", 0.99, False),
    ],
)
def test_a_figure_drifts_beyond_what_it_may_vary(report: Report, name: str, was: float, far: bool) -> None:
    now = replace(report, figures={**report.figures, name: 1.0})
    assert drifted(now, {name: was}) == ([name] if far else [])


def test_a_missed_goal_is_a_sentence(report: Report) -> None:
    held = msgspec.structs.replace(scenario(), goals={"done_share_min": 0.9, "end_p99_s_max": 60.0})
    assert missed_goals(held, report) == []
    missed = msgspec.structs.replace(scenario(), goals={"tasks_max": 1, "done_share_min": 1.1})
    assert len(missed_goals(missed, report)) == 2
    assert missed_goals(missed, report)[1] == "done_share is 1; the goal is at least 1.1"
    with pytest.raises(ScenarioError, match=r"goals\.speed_min"):
        missed_goals(msgspec.structs.replace(scenario(), goals={"speed_min": 1}), report)


@pytest.mark.parametrize("name", names())
def test_every_goal_and_every_baseline_speaks_of_figures_that_there_are(report: Report, name: str) -> None:
    missed_goals(load(name), report)
    baseline = msgspec.json.decode((BASELINES / f"{name}.json").read_bytes())
    assert (baseline["scenario"], baseline["seed"]) == (name, load(name).seed)
    assert list(baseline["figures"]) == list(report.figures)


def test_tables_show_every_figure_drifts_and_ratios(report: Report) -> None:
    table = table_of(report, {**report.figures, "end_p50_s": 99.0})
    assert all(name in table for name in report.figures)
    assert table.count("drifted") == 1
    doubled = replace(report, scenario="twice", figures={name: 2 * figure for name, figure in report.figures.items()})
    compared = comparison(doubled, report)
    assert "twice" in compared
    assert [line.split()[-1] for line in compared.splitlines() if "end_p50_s" in line] == ["2.00"]
