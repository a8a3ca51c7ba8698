"""Plays several scenarios at once, each in a process of its own. What happens in a run stays decided by its seed alone."""

import multiprocessing
import os
import signal
from collections.abc import Generator, Iterable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from simulations.play import play
from simulations.report import Report
from simulations.scenario import Scenario


class ProcessKilled(Exception):
    """A process ended before its scenario did."""


def play_many(runs: Iterable[tuple[Scenario, int]], jobs: int) -> Generator[Report]:
    """The reports of scenarios with their seeds, in order, `jobs` at once. Raises WorldFailure, and ProcessKilled."""
    # One process for each run gives back its memory, and spawned ones take nothing over that could make runs differ.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, signal.signal, (signal.SIGINT, signal.SIG_IGN), max_tasks_per_child=1) as pool:
        reports = [pool.submit(play, scenario, seed) for scenario, seed in runs]
        try:
            for report in reports:
                yield report.result()
        except BaseException as wrong:
            # Whoever has seen a failure, or has had enough, does not wait for the others to finish; for their ends, yes.
            for child in multiprocessing.active_children():
                child.terminate()
            pool.shutdown(cancel_futures=True)
            if isinstance(wrong, BrokenProcessPool):
                raise ProcessKilled from wrong
            raise


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
