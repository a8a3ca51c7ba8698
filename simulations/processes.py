"""Plays several scenarios at once, each in a process of its own. What happens in a run stays decided by its seed alone.

By hand, because the library's pool of processes that play one run each stood still now and then when all was played (Python 3.11).
"""

import multiprocessing
import os
import signal
from collections.abc import Generator, Iterable
from multiprocessing.connection import Connection, wait

from simulations.play import play
from simulations.report import Report
from simulations.scenario import Scenario
from simulations.world import WorldFailure


class ProcessEnded(Exception):
    """A process ended before the scenario that it played."""


def play_many(runs: Iterable[tuple[Scenario, int]], jobs: int) -> Generator[Report]:
    """The reports of scenarios with their seeds, in order, `jobs` at once. Raises WorldFailure, and ProcessEnded."""
    waiting = list(enumerate(runs))[::-1]
    in_order = range(len(waiting))
    playing: dict[object, _Playing] = {}
    played: dict[int, Report | Exception] = {}
    try:
        for number in in_order:
            while number not in played:
                while waiting and len(playing) < jobs:
                    begun = _Playing(*waiting.pop())
                    playing[begun.connection] = begun
                for connection in wait([each.connection for each in playing.values()]):
                    ended = playing.pop(connection)
                    played[ended.number] = ended.outcome()
            outcome = played.pop(number)
            if isinstance(outcome, Exception):
                raise outcome
            yield outcome
    finally:  # Whoever has seen a failure, or has had enough, does not wait for the others.
        for each in playing.values():
            each.stop()


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Playing:
    """A process for one run: so its memory is given back. Spawned ones take nothing over that could make runs differ."""

    def __init__(self, number: int, run: tuple[Scenario, int]) -> None:
        self.number, self._run = number, run
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe(duplex=False)
        self._process = context.Process(target=_play, args=(theirs, *run), daemon=True)
        self._process.start()
        theirs.close()  # Or the end of the process would not be the end of what it says.

    def outcome(self) -> Report | Exception:
        try:
            told: Report | Exception = self.connection.recv()
        except (EOFError, OSError):
            scenario, seed = self._run
            told = ProcessEnded(f"the process that played {scenario.name}, seed {seed}, ended too soon")
        self.stop()
        return told

    def stop(self) -> None:
        self._process.kill()
        self._process.join()
        self.connection.close()


def _play(connection: Connection, scenario: Scenario, seed: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Whoever started it ends it.
    try:
        outcome: Report | Exception = play(scenario, seed)
    except WorldFailure as failure:
        outcome = failure
    connection.send(outcome)
