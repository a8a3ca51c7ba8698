"""Plays scenarios, each with one seed, from the start to the report."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from time import process_time
from typing import TextIO

from simulations.faults import Faults
from simulations.invariants import LOOK_S, EveryTaskEndsOnce, Invariant, QueuesAreBounded, WorkersKeepTheirSlots
from simulations.news import News
from simulations.plans import EveryPlanEndsRight
from simulations.report import Report, Tally, report_of
from simulations.scenario import Scenario
from simulations.shares import Shares
from simulations.slander import Slander
from simulations.spam import Spam
from simulations.trace import TraceHash
from simulations.truth import Truth
from simulations.workload import Workload
from simulations.world import MakeMember, Violation, World
from swarm.member import Member

SETTLE_S = 5.0  # After the last deadline: stopped models, last words.


def play(
    scenario: Scenario,
    seed: int,
    *,
    make_member: MakeMember = Member,
    hashed: bool = False,
    trace: TextIO | None = None,
) -> Report:
    """The report of a run in which every invariant held. Raises WorldFailure, which says how to see it again."""
    with _without_collections():
        return _played(scenario, seed, make_member, hashed, trace)


def _played(scenario: Scenario, seed: int, make_member: MakeMember, hashed: bool, trace: TextIO | None) -> Report:
    began = process_time()
    world = World(scenario, seed, make_member)
    news = News(world)
    workload, faults, tally = Workload(world), Faults(world, news), Tally()
    Spam(world)
    Slander(world)
    ends, truth, shares = EveryTaskEndsOnce(world), Truth(world), Shares(world)
    invariants: list[Invariant] = [ends, WorkersKeepTheirSlots(), QueuesAreBounded(), EveryPlanEndsRight(world)]
    world.watch(tally)
    world.watch(truth)
    world.watch(shares)
    for watcher in invariants:
        world.watch(watcher)
    digest = TraceHash()
    if hashed or trace is not None:
        world.trace(_both(digest, trace))
    end_s = scenario.seconds + scenario.longest_deadline_s + SETTLE_S
    while world.agenda.now < end_s:
        world.run(min(end_s, world.agenda.now + LOOK_S))
        try:
            if world.agenda.now < scenario.seconds:
                news.look()
            for invariant in invariants:
                invariant.look(world)
                if world.agenda.now >= end_s:
                    invariant.finish(world)
        except Violation as wrong:
            raise world.failure(wrong) from wrong
    report = report_of(world, tally, truth, shares, news, ends.orphaned, workload.unasked, faults.struck)
    traced = digest.hexdigest() if hashed or trace is not None else ""
    return replace(report, cpu_s=round(process_time() - began, 3), trace_hash=traced)


@contextmanager
def _without_collections() -> Iterator[None]:
    """A world makes millions of objects and hardly any cycles: looking for those takes a third of the time otherwise."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _both(digest: TraceHash, trace: TextIO | None) -> Callable[[str], None]:
    if trace is None:
        return digest

    def write(line: str) -> None:
        digest(line)
        trace.write(line + "\n")

    return write
