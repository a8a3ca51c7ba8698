"""How good a choice was is told by what could be known of it: not by what happened while the news was on its way."""

import pytest

from simulations.play import play
from simulations.truth import CHANGES_MAX, Loads
from tests.simulations.small import askers, scenario

SPREAD = """
[[members]]
name = "worker"
count = 6
skills = ["chat"]
tokens_per_second = [5, 60]
""" + askers(rate_per_s=2, count=2)


def test_a_load_is_remembered_for_as_long_as_news_travels() -> None:
    loads = Loads()
    for at, load in ((1.0, 0), (2.0, 1), (3.0, 2)):
        loads.until(at, load)
    assert [loads.at(then, 3) for then in (0.5, 1.5, 2.5, 3.0, 3.5)] == [0, 1, 2, 3, 3]


def test_what_is_remembered_is_bounded() -> None:
    loads = Loads()
    for number in range(5 * CHANGES_MAX):
        loads.until(float(number), number)
    assert len(loads._until) == len(loads._loads) <= CHANGES_MAX
    assert loads.at(5 * CHANGES_MAX - 2.5, 7) == 5 * CHANGES_MAX - 2


def test_who_takes_the_best_is_near_it_and_who_takes_anybody_is_not() -> None:
    best, anybody = (
        play(scenario(SPREAD, f"[swarm]\n{settings}\n", seconds=60.0), 1).figures
        for settings in ("choosing_draws = 0", "choosing_draws = 1\nchoosing_focus = 0")
    )
    assert best["near_best"] > 0.85 > 0.6 > anybody["near_best"]
    assert best["near_best_now"] <= best["near_best"]


@pytest.mark.parametrize("failing", [0.0, 1.0])
def test_a_broken_worker_is_near_nothing(failing: float) -> None:
    figures = play(scenario(SPREAD.replace("count = 6", f"count = 6\nfailing = {failing}"), seconds=40.0), 1).figures
    assert (figures["near_best"] > 0.0) is (failing == 0.0)
