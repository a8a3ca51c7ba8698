"""What happened in a run, in numbers: as JSON, as a table, and against a baseline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from protocol.errors import error_code
from simulations.machines import Process
from simulations.news import News
from simulations.scenario import Scenario, ScenarioError
from simulations.shares import Shares
from simulations.truth import Truth
from simulations.world import World
from swarm.doing.asking import OVERTAKEN
from swarm.doing.moving import CROWDED
from swarm.effects import Assigned, Conclude, PlanConcluded
from swarm.events import Asked, GenerationFinished
from swarm.finding.gossip import TWIN
from swarm.finding.places import is_relayed
from swarm.values import Outcome, PlanOutcome

SCHEMA = "swarm.simulation/1"

TOLERANCE = (0.10, 0.02)
"""How far a figure may be from its baseline: the larger of a share of it and an absolute difference (seconds and shares near zero
differ for nothing), unless TOLERANCES says otherwise."""
TOLERANCES: dict[str, tuple[float, float]] = {
    "done_share": (0.0, 0.005),  # The promise.
    "first_piece_p99_s": (0.25, 0.1),  # A hundredth of the tasks decides it.
    "first_piece_p999_s": (0.5, 0.5),
    "end_p99_s": (0.25, 0.1),
    "plan_p99_s": (0.25, 0.5),
    "end_p999_s": (0.5, 0.5),  # A thousandth: mostly one task.
    "load_max_over_fair": (0.25, 0.0),  # One machine decides it.
    "crowded_s": (0.5, 1.0),
    "placed_max_over_fair": (0.5, 1.0),  # One window of one machine decides it.
    "told_p95_s": (0.25, 0.1),
    "left_p95_s": (0.25, 0.1),
    "gone_p95_s": (0.25, 0.5),
    "gone_p99_s": (0.25, 1.0),
    "gone_max_s": (0.5, 1.0),  # One death in one member's eyes decides it.
    "orphaned": (0.25, 5.0),  # A few tasks.
    "unasked": (0.25, 5.0),
}


@dataclass(frozen=True, slots=True)
class Report:
    """One run. `figures` are what baselines and goals speak of; `cpu_s` depends on the computer."""

    scenario: str
    seed: int
    seconds: float
    members: int
    figures: dict[str, float]
    failed: dict[str, int]
    messages: dict[str, int]
    faults: dict[str, int]
    cpu_s: float = 0.0
    trace_hash: str = ""
    schema: str = SCHEMA

    @property
    def events_per_s(self) -> float:
        """Events handled in each second of processor time."""
        return self.figures["events"] / self.cpu_s if self.cpu_s else 0.0

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "events_per_s": round(self.events_per_s)}


@dataclass(slots=True)
class Tally:
    """Counts while a world runs."""

    asked: int = 0
    ends: list[Outcome] = field(default_factory=list)
    busy_s: dict[int, float] = field(default_factory=dict)  # By machine.
    plans: list[PlanOutcome] = field(default_factory=list)  # Those that have ended.

    def watches(self) -> dict[type, Callable[[Process, Any], None]]:
        return {
            Asked: self._asked, Assigned: self._asked, Conclude: self._concluded, GenerationFinished: self._finished,
            PlanConcluded: self._plan_concluded,
        }

    def _asked(self, process: Process, event: Asked | Assigned) -> None:
        self.asked += 1

    def _concluded(self, process: Process, effect: Conclude) -> None:
        self.ends.append(effect.outcome)

    def _plan_concluded(self, process: Process, effect: PlanConcluded) -> None:
        self.plans.append(effect.outcome)

    def _finished(self, process: Process, event: GenerationFinished) -> None:
        index = process.machine.index
        self.busy_s[index] = self.busy_s.get(index, 0.0) + event.usage.total_s


def report_of(
    world: World, tally: Tally, truth: Truth, shares: Shares, news: News, orphaned: int, unasked: int, faults: dict[str, int]
) -> Report:  # fmt: skip
    """The numbers of a run that has ended."""
    done = [outcome for outcome in tally.ends if outcome.code is None]
    failed: dict[str, int] = {}
    refusals = failovers = attempts = hedges = resumes = moves = 0
    for outcome in tally.ends:
        attempts += len(outcome.attempts)
        if outcome.code is not None:
            failed[outcome.code.name] = failed.get(outcome.code.name, 0) + 1
        for end in outcome.attempts:
            if end.code is not None:
                definite = error_code(end.code.number).definite
                refusals += definite
                failovers += not definite and end.reason not in (OVERTAKEN, CROWDED)
            hedges += end.why == "hedge"
            moves += end.why == "moved"
            resumes += end.why == "resume"
    cancelled = failed.get("cancelled", 0)
    ended, members, now = max(1, len(tally.ends)), len(world.machines), world.agenda.now
    sent = sum(world.network.sent.values())
    first = [outcome.first_piece_s for outcome in done if outcome.first_piece_s is not None]
    seconds = [outcome.seconds for outcome in done]
    placed = shares.over_fair()
    figures = {
        "tasks": float(tally.asked),
        "done_share": len(done) / max(1, len(tally.ends) - cancelled),
        "first_piece_p50_s": percentile(first, 50),
        "first_piece_p99_s": percentile(first, 99),
        "first_piece_p999_s": percentile(first, 99.9),
        "end_p50_s": percentile(seconds, 50),
        "end_p99_s": percentile(seconds, 99),
        "end_p999_s": percentile(seconds, 99.9),
        "attempts_per_task": attempts / ended,
        "refusals_per_task": refusals / ended,
        "failovers_per_task": failovers / ended,
        "hedges_per_task": hedges / ended,
        "resumes_per_task": resumes / ended,
        "moves_per_task": moves / ended,
        "load_max_over_fair": _load(world, tally),
        "crowded_s": shares.crowded_s,
        "placed_max_over_fair": max(placed, default=0.0),
        "work_wasted_share": shares.wasted,
        "input_held": world.workers.input_held,
        "near_best": truth.near_best,
        "near_best_now": truth.near_best_now,
        "near_best_learnt": truth.near_best_learnt,
        "to_broken": truth.to_broken,
        "told_p95_s": percentile(news.told, 95),
        "left_p95_s": percentile(news.left, 95),
        "gone_p95_s": percentile(news.gone, 95),
        "gone_p99_s": percentile(news.gone, 99),
        "gone_max_s": max(news.gone, default=0.0),
        "known_share": sum(news.known) / len(news.known) if news.known else 1.0,
        "led_to_share": _led_to(world),
        "refused_links": float(sum(world.network.refused.values())),
        "twins_told": _twins_told(world),
        **_plans(tally.plans),
        "orphaned": float(orphaned),
        "unasked": float(unasked),
        **{f"{name}_held": mean for name, mean in _held(world).items()},
        "messages_per_member_s": sent / members / now,
        "bytes_per_member_s": world.network.bytes / members / now,
        "events": float(world.events),
    }
    return Report(
        world.scenario.name, world.seed, now, members,
        {name: round(figure, 4) for name, figure in figures.items()},
        dict(sorted(failed.items())),
        {kind.__name__: count for kind, count in sorted(world.network.sent.items(), key=lambda item: item[0].KIND)},
        dict(sorted(faults.items())),
    )  # fmt: skip


def _plans(ended: Sequence[PlanOutcome]) -> dict[str, float]:
    """Of those done, how long they took."""
    seconds = [outcome.seconds for outcome in ended if not outcome.failure]
    return {
        "plans": float(len(ended)),
        "plans_done_share": len(seconds) / len(ended) if ended else 1.0,
        "plan_p50_s": percentile(seconds, 50),
        "plan_p99_s": percentile(seconds, 99),
    }


def _held(world: World) -> dict[str, float]:
    """What a member holds at the end, on the average of those that run: adverts, links, contacts and standings."""
    members = [machine.process.member for machine in world.machines if machine.process is not None]
    held = {"adverts": "index", "links": "roster", "contacts": "contacts", "standings": "standings"}
    return {
        name: sum(len(getattr(member, part, ())) for member in members) / max(1, len(members))
        for name, part in held.items()
    }


def _twins_told(world: World) -> float:
    """Of the nodes that hold the identity of another one, the share that knows; 1 without any."""
    twins = [machine.process.member for machine in world.machines if machine.is_twin and machine.process is not None]
    return sum(TWIN in member.gossip.refused for member in twins) / len(twins) if twins else 1.0  # type: ignore[attr-defined]


def percentile(samples: Sequence[float], percent: float) -> float:
    """The nearest rank; 0 without samples."""
    ordered = sorted(samples)
    return ordered[max(0, int(-(-len(ordered) * percent // 100)) - 1)] if ordered else 0.0


def _load(world: World, tally: Tally) -> float:
    """How much longer the busiest worker worked than the mean of all: 1 if each got its share by speed and slots."""
    workers = [machine for machine in world.machines if machine.is_worker]
    busy = [
        tally.busy_s.get(machine.index, 0.0) / max(offered.slots for offered in machine.capabilities)
        for machine in workers
    ]
    return max(busy) * len(busy) / sum(busy) if sum(busy) else 0.0


def _led_to(world: World) -> float:
    """Share of the nodes behind closed routers that some relay leads to, at the end."""
    hidden = [machine.process for machine in world.machines if machine.hidden and machine.process is not None]
    return sum(any(map(is_relayed, process.addresses)) for process in hidden) / len(hidden) if hidden else 1.0


# --- Goals and baselines ----------------------------------------------------------------------------------------------


def missed_goals(scenario: Scenario, report: Report) -> list[str]:
    """Every goal of the scenario that the run does not reach, as a sentence."""
    missed = []
    for goal, bound in scenario.goals.items():
        name, _, side = goal.rpartition("_")
        if name not in report.figures or side not in ("min", "max"):
            known = ", ".join(report.figures)
            raise ScenarioError(
                f"{scenario.name}: goals.{goal}: a figure with _min or _max is expected; figures: {known}."
            )
        figure = report.figures[name]
        if (side == "min" and figure < bound) or (side == "max" and figure > bound):
            missed.append(f"{name} is {figure:g}; the goal is {'at least' if side == 'min' else 'at most'} {bound:g}")
    return missed


def drifted(report: Report, baseline: dict[str, float]) -> list[str]:
    """The figures that are further from the baseline than they may be."""
    return [
        name
        for name, was in baseline.items()
        if name in report.figures and not is_near(report.figures[name], was, *TOLERANCES.get(name, TOLERANCE))
    ]


def is_near(figure: float, was: float, share: float, difference: float) -> bool:
    """Whether a figure is no further from what it was than the larger of a share of that and a difference."""
    return abs(figure - was) <= max(difference, share * abs(was))


# --- Tables -----------------------------------------------------------------------------------------------------------


def table_of(report: Report, baseline: dict[str, float] | None) -> str:
    """For people: each figure, and what the baseline says of it."""
    lines = [f"{report.scenario}, seed {report.seed}: {report.members} members for {report.seconds:g} virtual seconds"]
    far = drifted(report, baseline) if baseline else []
    for name, figure in report.figures.items():
        line = f"  {name:<24}{figure:>14,.4g}" if figure < 1e6 else f"  {name:<24}{figure:>14,.0f}"
        if baseline and name in baseline:
            line += f"   baseline {baseline[name]:,.6g}" + ("   <-- drifted" if name in far else "")
        lines.append(line)
    for title, counts in (("failed", report.failed), ("faults", report.faults), ("messages", report.messages)):
        if counts:
            lines.append(f"  {title:<24}" + ", ".join(f"{name} {count:,}" for name, count in counts.items()))
    lines.append(f"  {'processor time':<24}{report.cpu_s:>12,.1f} s   {report.events_per_s:,.0f} events/s")
    if report.trace_hash:
        lines.append(f"  {'trace hash':<24}{report.trace_hash}")
    return "\n".join(lines)


def comparison(one: Report | dict[str, Any], two: Report | dict[str, Any]) -> str:
    """Two runs side by side, with the ratio of each figure."""
    left, right = (report.as_json() if isinstance(report, Report) else report for report in (one, two))
    lines = [f"  {'':<24}{left['scenario']:>16}{right['scenario']:>16}{'ratio':>10}"]
    for name, figure in left["figures"].items():
        other = right["figures"].get(name)
        if other is None:
            continue
        ratio = f"{figure / other:>10.2f}" if other else f"{'':>10}"
        lines.append(f"  {name:<24}{figure:>16,.6g}{other:>16,.6g}{ratio}")
    for key in sorted({*left["failed"], *right["failed"]}):
        lines.append(f"  {'failed: ' + key:<24}{left['failed'].get(key, 0):>16,}{right['failed'].get(key, 0):>16,}")
    return "\n".join(lines)
