"""The same seed is the same run, whatever Python's hash seed; and what is added to a scenario reshuffles nothing else."""

import os
import subprocess
import sys

from simulations.faults import Faults
from simulations.news import News
from simulations.scenario import Scenario
from simulations.trace import TraceHash
from simulations.workload import Workload
from simulations.world import World
from swarm.effects import SetTimer
from swarm.events import Asked, TimerFired
from swarm.member import Member
from swarm.values import Task
from tests.simulations.small import Chatterer, Idle, Log, scenario

CRASHES = '[[faults]]\nkind = "crash"\ngroup = "worker"\nat_s = 5\nevery_s = 4\ncount = 2\nfor_s = 5\n'

PROGRAM = """
from simulations.play import play
from tests.simulations.small import scenario
from tests.simulations.test_determinism import CRASHES
print(play(scenario(rest=CRASHES), 7, hashed=True).trace_hash)
print(play(scenario(seconds=12.0, wired=True), 7, hashed=True).trace_hash)
"""


def hash_of(small: Scenario, seed: int, make_member: type = Chatterer) -> str:
    world, digest = World(small, seed, make_member), TraceHash()
    Workload(world)
    Faults(world, News(world))
    world.trace(digest)
    world.run(30.0)
    return digest.hexdigest()


def tasks_of(small: Scenario, seed: int) -> list[tuple[float, str, Task]]:
    world = World(small, seed, Idle)
    Workload(world)
    Faults(world, News(world))
    asked: list[tuple[float, str, Task]] = []

    class Asks:
        def watches(self) -> dict:
            return {Asked: lambda process, event: asked.append((world.agenda.now, process.machine.name, event.task))}

    world.watch(Asks())
    world.run(30.0)
    return asked


def test_the_same_seed_is_the_same_trace_under_any_hash_seed() -> None:
    outputs = []
    for hash_seed in ("0", "1", "random"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        ran = subprocess.run(
            [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=300
        )
        assert ran.returncode == 0, ran.stderr
        outputs.append(ran.stdout.split())
    assert len(outputs[0]) == 2
    assert outputs[0] == outputs[1] == outputs[2]


def test_another_seed_is_another_trace() -> None:
    hashes = [hash_of(scenario(), seed, Member) for seed in (1, 2, 1)]
    assert hashes[0] == hashes[2] != hashes[1]


def test_a_fault_more_changes_no_task() -> None:
    calm, troubled = tasks_of(scenario(), 3), tasks_of(scenario(rest=CRASHES), 3)
    assert len(calm) > 20
    assert calm == troubled


def test_a_machine_more_changes_no_task() -> None:
    small = scenario()
    more = scenario(
        '[[members]]\nname = "asker"\ncount = 4\n[[members]]\nname = "worker"\ncount = 30\nskills = ["chat"]\n'
        '[[workload]]\nskills = ["chat"]\nby = "asker"\nrate_per_s = 4\nfrom_s = 8\ntokens = [8, 32]\ndeadline_s = 12\n'
    )
    assert [(at, task) for at, _, task in tasks_of(small, 3)] == [(at, task) for at, _, task in tasks_of(more, 3)]


def test_entries_of_one_moment_come_in_the_order_in_which_they_were_added() -> None:
    world = World(scenario(), 1, Idle)
    log = Log(world)
    world.run(5.0)
    process = world.machines[0].process
    assert process is not None
    for number in range(50):
        world.perform(process, SetTimer(1.0, number))  # type: ignore[arg-type]
    world.run(7.0)
    assert [event.timer for event in log.of(world.machines[0], TimerFired)] == list(range(50))
