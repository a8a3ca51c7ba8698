"""`swarm sim`: run scenarios, compare them, keep their baselines. Data goes to stdout, narration to stderr."""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from simulations.play import play
from simulations.processes import ProcessEnded, cores, play_many
from simulations.report import Report, comparison, drifted, missed_goals, table_of
from simulations.revisions import baselines_here, baselines_of, changes
from simulations.scenario import BASELINES, Scenario, ScenarioError, load, names
from simulations.world import WorldFailure

OK, FAILED, USAGE, BAD_SCENARIO = 0, 1, 2, 8  # As the exit codes of the `swarm` command.


def main(args: list[str]) -> int:
    """Run one `swarm sim` command and return its exit code."""
    try:
        chosen = _parser().parse_args(args)
    except SystemExit as ended:  # argparse has said why.
        return ended.code if isinstance(ended.code, int) else USAGE
    try:
        return {"run": _run, "ls": _list, "compare": _compare, "baseline": _baseline}[chosen.verb](chosen)
    except ScenarioError as wrong:
        print(f"swarm: {wrong}", file=sys.stderr)
        return BAD_SCENARIO
    except WorldFailure as failure:
        print(f"swarm: {failure}", file=sys.stderr)
        return FAILED
    except ProcessEnded as ended:
        print(f"swarm: {ended}. If it has not said why, memory may have run out: try --jobs 1", file=sys.stderr)
        return FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="swarm sim",
        description="Members in a virtual world: the same decisions as in a node, under a virtual clock.",
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    run = verbs.add_parser("run", help="play scenarios and check invariants, goals and baselines")
    run.add_argument("scenarios", nargs="*", metavar="SCENARIO", help="a name, NAME:VARIANT or a TOML file")
    run.add_argument("--all", action="store_true", help="every scenario that comes with the project")
    run.add_argument("--seed", type=int, help="instead of the scenario's own")
    run.add_argument("--seeds", type=int, default=1, metavar="N", help="play N seeds, counting up")
    run.add_argument("--check", action="store_true", help="fail if a figure has drifted from its baseline")
    run.add_argument("--jobs", type=int, metavar="N", help="so many at once; as many as there are cores, if it is not given")
    run.add_argument("--trace", metavar="FILE", help="write every event and effect to FILE")
    run.add_argument("--trace-hash", action="store_true", help="show the hash over the trace")
    run.add_argument("--json", action="store_true", help="reports as JSON, one a line")
    listing = verbs.add_parser("ls", help="list the scenarios")
    listing.add_argument("--json", action="store_true")
    compare = verbs.add_parser("compare", help="two scenarios, two reports, or the baselines of two git revisions")
    compare.add_argument(
        "one", metavar="A", help="a scenario (herd:greedy), a report (run --json > FILE.json) or a git revision (main)"
    )
    compare.add_argument("two", metavar="B", nargs="?", help="the same; with a revision alone: the baselines as they are now")
    compare.add_argument("--seed", type=int)
    compare.add_argument("--json", action="store_true")
    baseline = verbs.add_parser("baseline", help="play scenarios and keep their figures as baselines")
    baseline.add_argument("scenarios", nargs="+", metavar="SCENARIO")
    return parser


def _run(chosen: argparse.Namespace) -> int:
    wanted = names() if chosen.all else chosen.scenarios
    if not wanted:
        raise ScenarioError("nothing to run. Name a scenario, or use --all; `swarm sim ls` shows what there is.")
    runs = [
        (scenario, seed)
        for scenario in [load(reference) for reference in wanted]
        for first in [scenario.seed if chosen.seed is None else chosen.seed]
        for seed in range(first, first + chosen.seeds)
    ]
    status = OK
    for (scenario, seed), report in zip(runs, _reports(runs, chosen), strict=True):
        baseline = _baseline_of(scenario, seed)
        if chosen.json:
            print(json.dumps(report.as_json()), flush=True)
        else:
            print(table_of(report, baseline), end="\n\n", flush=True)
        complaints = missed_goals(scenario, report)
        if chosen.check:
            complaints += _drift(scenario, report, baseline)
        for complaint in complaints:
            print(f"swarm: {scenario.name}, seed {seed}: {complaint}", file=sys.stderr)
            status = FAILED
    return status


def _reports(runs: list[tuple[Scenario, int]], chosen: argparse.Namespace) -> Iterator[Report]:
    """Several at once, unless they are traced."""
    is_traced = chosen.trace is not None or chosen.trace_hash
    jobs = 1 if is_traced else min(len(runs), cores() if chosen.jobs is None else chosen.jobs)
    if jobs < 1:
        raise ScenarioError(f"--jobs {jobs} plays nothing. Give 1 or more.")
    many = play_many(runs, jobs) if jobs > 1 else None
    for scenario, seed in runs:
        print(f"{scenario.name}, seed {seed}: {scenario.about}", file=sys.stderr)
        yield next(many) if many is not None else _traced(scenario, seed, chosen)


def _traced(scenario: Scenario, seed: int, chosen: argparse.Namespace) -> Report:
    if chosen.trace is None:
        return play(scenario, seed, hashed=chosen.trace_hash)
    with Path(chosen.trace).open("w", encoding="utf-8") as trace:
        return play(scenario, seed, hashed=True, trace=trace)


def _list(chosen: argparse.Namespace) -> int:
    for scenario in map(load, names()):
        members = sum(table.count for table in scenario.members)
        if chosen.json:
            print(
                json.dumps(
                    {"name": scenario.name, "about": scenario.about, "members": members, "seconds": scenario.seconds}
                )
            )
        else:
            print(f"{scenario.name:<12}{members:>6} members{scenario.seconds:>6g} s   {scenario.about}")
            for variant in scenario.variants:
                print(f"{scenario.name}:{variant}")
    return OK


def _compare(chosen: argparse.Namespace) -> int:
    if not _is_scenario(chosen.one):
        return _compare_revisions(chosen)
    if chosen.two is None:
        raise ScenarioError(f"compare {chosen.one} with what? Name another scenario or report.")
    one, two = (_report_or_run(reference, chosen.seed) for reference in (chosen.one, chosen.two))
    if chosen.json:
        print(json.dumps([one, two]))
    else:
        print(comparison(one, two))
    return OK


def _is_scenario(reference: str) -> bool:
    """Whether it can be played, or has been; else it is taken for a revision."""
    named = reference.partition(":")[0]
    return named in names() or named.endswith((".toml", ".json"))


def _compare_revisions(chosen: argparse.Namespace) -> int:
    try:
        one = baselines_of(chosen.one)
    except ScenarioError as wrong:
        raise ScenarioError(f"{chosen.one} is no scenario, and no revision with baselines. {wrong}") from None
    two = baselines_here() if chosen.two is None else baselines_of(chosen.two)
    print(json.dumps([one, two]) if chosen.json else changes(one, two))
    return OK


def _report_or_run(reference: str, seed: int | None) -> dict[str, Any]:
    if reference.endswith(".json"):
        try:
            report: dict[str, Any] = msgspec.json.decode(Path(reference).read_bytes(), type=dict)
        except (OSError, msgspec.DecodeError) as wrong:
            raise ScenarioError(f"{reference} is not a report: {wrong}") from None
        return report
    scenario = load(reference)
    return play(scenario, scenario.seed if seed is None else seed).as_json()


def _baseline(chosen: argparse.Namespace) -> int:
    scenarios = [load(reference) for reference in chosen.scenarios]
    runs = [(scenario, scenario.seed) for scenario in scenarios]
    reports = play_many(runs, min(len(runs), cores())) if len(runs) > 1 else (play(*run) for run in runs)
    for scenario, report in zip(scenarios, reports, strict=True):
        path = _baseline_path(scenario)
        kept = {"scenario": scenario.name, "seed": report.seed, "figures": report.figures}
        path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
        print(table_of(report, None))
        print(f"Wrote {path}. The commit says why it changed.", file=sys.stderr)
    return OK


def _baseline_of(scenario: Scenario, seed: int) -> dict[str, float] | None:
    path = _baseline_path(scenario)
    if not path.exists():
        return None
    kept = json.loads(path.read_bytes())
    figures: dict[str, float] = kept["figures"]
    return figures if kept["seed"] == seed else None


def _baseline_path(scenario: Scenario) -> Path:
    if scenario.name.endswith(".toml"):
        return Path(scenario.name).with_suffix(".baseline.json")
    return BASELINES / f"{scenario.name.replace(':', '-')}.json"


def _drift(scenario: Scenario, report: Report, baseline: dict[str, float] | None) -> list[str]:
    if baseline is None:
        return [f"no baseline for this seed. `swarm sim baseline {scenario.name}` makes one"]
    return [
        f"{name} was {baseline[name]:g} and is {report.figures[name]:g}. If that is meant: swarm sim baseline {scenario.name}"
        for name in drifted(report, baseline)
    ]
