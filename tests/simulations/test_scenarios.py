"""Every scenario, smaller and shorter: the invariants hold, with more than one seed where the world is rough."""

import msgspec
import pytest

from simulations.play import play
from simulations.scenario import Scenario, load


def quick(name: str, share: float, seconds: float) -> Scenario:
    """A share of the members and of the tasks, for a shorter time."""
    scenario = load(name)
    return msgspec.structs.replace(
        scenario,
        seconds=seconds,
        bootstraps=3,
        members=[
            msgspec.structs.replace(table, count=max(2, round(table.count * share))) for table in scenario.members
        ],
        workload=[msgspec.structs.replace(table, rate_per_s=table.rate_per_s * share) for table in scenario.workload],
    )


@pytest.mark.parametrize(
    ("name", "share", "seconds", "seed"),
    [
        ("calm", 0.2, 40.0, 1),
        ("churn", 0.3, 60.0, 1),
        ("churn", 0.2, 60.0, 2),
        ("partition", 0.2, 90.0, 1),
        ("herd", 0.5, 40.0, 1),
        ("herd:greedy", 0.5, 40.0, 1),
        ("wire", 0.2, 40.0, 1),
        ("scale", 0.02, 50.0, 1),
        ("rare", 0.3, 60.0, 1),
        ("flapping", 0.3, 50.0, 1),
        ("observer", 0.3, 50.0, 1),
        ("liars", 0.3, 50.0, 1),
        ("slander", 0.3, 50.0, 1),
        ("plans", 0.3, 60.0, 1),
        *(("storm", 1.0, 40.0, seed) for seed in range(6)),
    ],
)
def test_the_invariants_hold(name: str, share: float, seconds: float, seed: int) -> None:
    report = play(quick(name, share, seconds), seed)
    assert report.figures["tasks"] > 10
    assert report.figures["done_share"] > 0.5


def test_a_message_costs_the_same_however_large_the_swarm_is() -> None:
    """Flooding would send twice as much from each of twice as many."""
    small, large = (play(quick("scale", share, 60.0), 1).figures["messages_per_member_s"] for share in (0.015, 0.06))
    assert large < 1.5 * small


@pytest.mark.slow
def test_a_member_costs_the_same_in_a_swarm_of_500_and_of_10000() -> None:
    """Messages, bytes and what is remembered, within a fifth."""
    small, large = (play(load(name), 1).figures for name in ("scale:500", "scale:10000"))
    for name in ("messages_per_member_s", "bytes_per_member_s", "adverts_held", "links_held", "contacts_held", "standings_held"):
        assert large[name] == pytest.approx(small[name], rel=0.2), name
    assert large["done_share"] >= 0.99
