"""What each worker had beside its fair share: a crowd is more than twice of it, and how long that lasts is what counts."""

import msgspec
import pytest

from simulations.machines import Machine
from simulations.play import play
from simulations.scenario import WorkloadTable
from simulations.shares import Shares
from simulations.workload import Workload, capacity, offered_load
from simulations.world import World
from tests.simulations.small import Pair, scenario

EVEN = """
[[members]]
name = "worker"
count = 10
skills = ["chat"]
tokens_per_second = [20, 20]
first_token_ms = [100, 100]
[[members]]
name = "asker"
count = 4
[[workload]]
skills = ["chat"]
by = "asker"
load = 0.5
from_s = 5
tokens = [9, 9]
"""


def test_a_load_is_a_share_of_what_all_can_do() -> None:
    world = World(scenario(EVEN), 1)
    table = world.scenario.workload[0]
    assert capacity(world.machines, table) == pytest.approx(10 / (0.1 + 5 / 20)), "answers are half as long as they may be"
    assert offered_load([table], world.machines) == 0.5
    rated = WorkloadTable(skills=["chat"], rate_per_s=10 / 0.35, tokens=(9, 9))
    assert offered_load([rated], world.machines) == pytest.approx(1.0)


def test_as_much_is_asked_as_the_load_says() -> None:
    report = play(scenario(EVEN, seconds=65.0), 1)
    assert report.figures["tasks"] == pytest.approx(0.5 * 10 / 0.35 * 60, rel=0.15)


def test_workers_that_are_all_alike_get_about_their_share() -> None:
    figures = play(scenario(EVEN, seconds=65.0), 1).figures
    assert figures["crowded_s"] < 5.0
    assert 1.0 < figures["placed_max_over_fair"] < 2.5


MODEST = EVEN.replace("count = 10", "count = 1").replace(
    '[[members]]\nname = "asker"',
    '[[members]]\nname = "modest"\ncount = 9\nskills = ["chat"]\ntokens_per_second = [20, 20]\n'
    'first_token_ms = [100, 100]\nclaims = 0.01\n[[members]]\nname = "asker"',
)  # Nine of ten say that they are slow, and are not.
GREEDY = "[swarm]\nchoosing_draws = 0\nexploration_share = 0\n"


def test_one_that_everybody_asks_is_crowded() -> None:
    figures = play(scenario(MODEST, GREEDY, seconds=65.0), 1).figures
    assert figures["crowded_s"] > 10.0
    assert figures["placed_max_over_fair"] > 2.0


def test_one_that_stands_still_is_not_crowded_by_what_it_was_asked_before() -> None:
    world = World(scenario(EVEN, seconds=60.0), 1)
    Workload(world)
    shares = Shares(world)
    waiting: list[Machine] = []
    while not waiting:
        world.run(world.agenda.now + 0.1)
        waiting = [machine for machine in world.machines if machine.process and machine.process.member.serving.load()[2]]
    world.freeze(waiting[0])
    world.run(world.agenda.now + 20.0)
    assert shares.crowded_s < 5.0


def test_a_world_without_members_of_our_own_has_no_crowds() -> None:
    pair = Pair()
    shares = Shares(pair.world)
    pair.wait(5.0)
    assert (shares.crowded_s, shares.over_fair(), shares.wasted) == (0.0, [], 0.0)


def test_work_of_those_who_were_overtaken_is_wasted() -> None:
    slow = scenario(
        EVEN.replace("load = 0.5", "load = 0.2").replace("tokens = [9, 9]", "tokens = [40, 40]")
        .replace("first_token_ms = [100, 100]", "first_token_ms = [100, 100]\nstraggling = 0.1\nstraggle_factor = 20"),
        seconds=65.0,
    )  # fmt: skip
    hedged, alone = (
        play(msgspec.structs.replace(slow, swarm={"hedge_share": share, "hedge_burst": max(1.0, share)}), 1).figures
        for share in (0.2, 1e-9)
    )
    assert hedged["work_wasted_share"] > 0.0
    assert alone["work_wasted_share"] <= hedged["work_wasted_share"]
