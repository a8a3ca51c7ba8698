"""Faults happen when the scenario says, to as many machines as it says, and end."""

from collections.abc import Callable

import pytest

from simulations.faults import Faults
from simulations.machines import Machine
from simulations.news import News
from simulations.world import World
from swarm.events import LoopLate, Started, Stopping
from tests.simulations.small import Idle, Log, scenario

MEMBERS = '[[members]]\nname = "worker"\ncount = 10\n[[members]]\nname = "asker"\ncount = 10\n'


def world_with(fault: str) -> World:
    world = World(scenario(MEMBERS, f"[[faults]]\n{fault}", seconds=60.0), 1, Idle)
    world.faults = Faults(world, News(world))  # type: ignore[attr-defined]
    return world


def hit(world: World, is_hit: Callable[[Machine], bool]) -> list[str]:
    return [machine.group for machine in world.machines if is_hit(machine)]


@pytest.mark.parametrize(
    ("kind", "is_hit"),
    [
        ("crash", lambda machine: machine.process is None and machine.has_power),
        ("vanish", lambda machine: machine.process is None and not machine.has_power),
        ("leave", lambda machine: machine.process is None),
        ("freeze", lambda machine: machine.process.frozen_at is not None),
        ("blackhole", lambda machine: machine.island != 0),
        ("partition", lambda machine: machine.island != 0),
        ("slow", lambda machine: machine.pace == 4.0),
    ],
)
def test_a_fault_hits_as_many_as_it_should_and_ends(kind: str, is_hit: Callable[[Machine], bool]) -> None:
    world = world_with(f'kind = "{kind}"\ngroup = "worker"\nat_s = 10\nfor_s = 10\ncount = 3\nfactor = 4\n')
    world.run(9.9)
    assert not hit(world, is_hit)
    world.run(11.0)
    assert hit(world, is_hit) == ["worker"] * 3
    world.run(21.0)
    assert not hit(world, is_hit)
    assert all(machine.process is not None and machine.process.frozen_at is None for machine in world.machines)


def test_a_share_of_everyone_is_parted_from_the_others_on_one_island() -> None:
    world = world_with('kind = "partition"\nat_s = 10\nshare = 0.5\n')
    world.run(59.0)
    islands = [machine.island for machine in world.machines]
    assert (islands.count(0), islands.count(1)) == (10, 10)


def test_machines_in_black_holes_do_not_hear_each_other() -> None:
    world = world_with('kind = "blackhole"\nat_s = 10\ncount = 5\n')
    world.run(11.0)
    islands = [machine.island for machine in world.machines if machine.island]
    assert len(islands) == len(dict.fromkeys(islands)) == 5


def test_a_fault_repeats_until_it_is_told_to_end() -> None:
    world = world_with('kind = "crash"\nat_s = 10\nevery_s = 5\nuntil_s = 31\ncount = 2\nfor_s = 1\n')
    log = Log(world)
    world.run(60.0)
    assert world.faults.struck == {"crash": 10}  # type: ignore[attr-defined]
    assert sum(len(log.of(machine, Started)) for machine in world.machines) == 20 + 10


def test_a_leaving_node_is_told_and_a_thawing_one_knows_how_long_it_stood() -> None:
    told: list[object] = []
    world = world_with(
        'kind = "leave"\ngroup = "worker"\nat_s = 10\ncount = 1\n'
        '[[faults]]\nkind = "freeze"\ngroup = "asker"\nat_s = 20\nfor_s = 4\ncount = 1\n'
    )

    class Watch:
        def watches(self) -> dict:
            return {Stopping: lambda _, event: told.append(event), LoopLate: lambda _, event: told.append(event.late_s)}

    world.watch(Watch())
    world.run(30.0)
    assert told == [Stopping(), pytest.approx(4.0)]


def test_faults_that_overlap_leave_nothing_behind() -> None:
    world = world_with(
        'kind = "slow"\nat_s = 10\nfor_s = 10\nshare = 1.0\nfactor = 3\n'
        '[[faults]]\nkind = "slow"\nat_s = 15\nfor_s = 10\nshare = 1.0\nfactor = 5\n'
    )
    world.run(16.0)
    assert {machine.pace for machine in world.machines} == {15.0}
    world.run(30.0)
    assert all(machine.pace == pytest.approx(1.0) for machine in world.machines)
