"""Several scenarios at once: a process that is killed does not leave the others, or whoever waits, hanging."""

import multiprocessing
import os

import pytest

from simulations.processes import ProcessEnded, play_many
from tests.simulations.small import scenario


class Deadly:
    """A scenario whose process ends while it reads it."""

    name = "deadly"

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return os._exit, (9,)


def test_a_process_that_is_killed_is_told_of() -> None:
    runs = [(Deadly(), 1), (scenario(seconds=30.0), 1)]
    with pytest.raises(ProcessEnded, match="deadly, seed 1, ended too soon"):
        list(play_many(runs, 2))
    assert multiprocessing.active_children() == []


def test_whoever_has_had_enough_does_not_wait_for_the_others() -> None:
    reports = play_many([(scenario(seconds=14.0), 1), (scenario(seconds=100_000.0), 1)], 2)
    assert next(reports).seed == 1
    reports.close()
    assert multiprocessing.active_children() == []
