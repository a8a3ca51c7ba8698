"""Plans in a virtual world come to what is right, in time and once; whoever does otherwise is caught."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from simulations.play import play
from simulations.world import WorldFailure
from swarm.effects import Assigned, Effect, PlanConcluded
from swarm.events import Event
from swarm.member import Member
from tests.simulations.small import scenario
from tests.simulations.tampering import mutant, twice, without

PLANS = """
[[members]]
name = "reader"
count = 4
skills = ["classify"]
tokens_per_second = [20, 60]
slots = 2
[[members]]
name = "writer"
count = 4
skills = ["chat"]
tokens_per_second = [20, 60]
slots = 2
[[members]]
name = "asker"
count = 2
[[workload]]
skills = ["classify", "chat"]
by = "asker"
rate_per_s = 0.5
items = [0, 12]
tokens = [1, 16]
from_s = 5
deadline_s = DEADLINE
cancelled = 0.3
patience_s = [0.05, 0.2]
[[faults]]
kind = "freeze"
group = "asker"
at_s = 15
count = 1
for_s = 4
"""


def small(deadline_s: float = 20.0) -> str:
    return PLANS.replace("DEADLINE", str(deadline_s))


def test_plans_are_carried_out_right_and_counted() -> None:
    figures = play(scenario(small(), seconds=60.0), 1).figures
    assert figures["plans"] > 15
    assert 0.6 < figures["plans_done_share"] < 1  # The others were given up by whoever asked.
    assert 0 < figures["plan_p50_s"] <= figures["plan_p99_s"] < 20
    assert figures["tasks"] > 100


def test_plans_without_time_end_in_time() -> None:
    figures = play(scenario(small(0.4), seconds=60.0), 1).figures
    assert figures["plans_done_share"] < 0.8


def test_where_none_are_asked_for_none_are_counted() -> None:
    figures = play(scenario(seconds=20.0), 1).figures
    assert [figures[name] for name in ("plans", "plans_done_share", "plan_p50_s")] == [0.0, 1.0, 0.0]


def changed_value(event: Event, effects: list[Effect]) -> list[Effect]:
    """The last answer of every plan is lost."""
    return [
        replace(effect, outcome=replace(effect.outcome, value=effect.outcome.value[:-1]))
        if isinstance(effect, PlanConcluded) and isinstance(effect.outcome.value, list) and effect.outcome.value
        else effect
        for effect in effects
    ]


class Doubling(Member):
    """Gives out every task again as soon as it is answered."""

    def handle(self, event: Event, now: float) -> list[Effect]:
        effects = super().handle(event, now)
        again = [effect for effect in effects if isinstance(effect, Assigned) and effect.index % 3 == 0]
        return [*effects, *again]


@pytest.mark.parametrize(
    ("planted", "complaint"),
    [
        (mutant(without(PlanConcluded)), "a plan without an end"),
        (mutant(twice(PlanConcluded)), "a second end of a plan"),
        (mutant(changed_value), "a plan came to"),
        (Doubling, "asked for the same twice"),
    ],
)
def test_a_planted_fault_is_caught(planted: Callable[..., Member], complaint: str) -> None:
    with pytest.raises(WorldFailure, match=complaint):
        play(scenario(small(), seconds=60.0), 1, make_member=planted)
