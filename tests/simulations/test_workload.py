"""Tasks come at the rate and in the rhythm that the scenario asks for, from those who shall ask."""

import pytest

from simulations.workload import Workload
from simulations.world import World
from swarm.events import AskCancelled, Asked
from tests.simulations.small import Idle, scenario

MEMBERS = '[[members]]\nname = "asker"\ncount = 5\n[[members]]\nname = "other"\ncount = 5\n'


class Asks:
    """Every task asked, with its time and group, and the cancels."""

    def __init__(self, work: str) -> None:
        self.world = World(scenario(f"{MEMBERS}[[workload]]\n{work}", seconds=110.0), 1, Idle)
        self.all: list[tuple[float, str, Asked]] = []
        self.cancels = 0
        self.world.watch(self)
        self.workload = Workload(self.world)

    def watches(self) -> dict:
        return {Asked: self._asked, AskCancelled: self._cancelled}

    def _asked(self, process, event: Asked) -> None:  # type: ignore[no-untyped-def]
        self.all.append((self.world.agenda.now, process.machine.name, event))

    def _cancelled(self, process, event: AskCancelled) -> None:  # type: ignore[no-untyped-def]
        self.cancels += 1

    def times(self) -> list[float]:
        return [at for at, _, _ in self.all]


@pytest.mark.parametrize("arrival", ["poisson", "even", "bursts"])
def test_tasks_come_at_the_rate_asked_for_between_beginning_and_end(arrival: str) -> None:
    asks = Asks(f'skills = ["a", "b"]\nrate_per_s = 10\narrival = "{arrival}"\nburst = 5\nfrom_s = 10\nuntil_s = 100\n')
    asks.world.run(150.0)
    assert len(asks.all) == pytest.approx(900, rel=0.15)
    assert min(asks.times()) >= 10.0 and max(asks.times()) <= 100.0
    assert {event.task.skill for _, _, event in asks.all} == {"a", "b"}
    assert len({event.task.id for _, _, event in asks.all}) == len(asks.all)


def test_bursts_come_at_once_and_even_tasks_one_by_one() -> None:
    for arrival, together in (("bursts", 5), ("even", 1)):
        asks = Asks(f'skills = ["a"]\nrate_per_s = 2\narrival = "{arrival}"\nburst = 5\n')
        asks.world.run(60.0)
        assert {asks.times().count(at) for at in asks.times()} == {together}


def test_only_those_ask_who_shall() -> None:
    asks = Asks('skills = ["a"]\nrate_per_s = 10\nby = "asker"\nrequesters = 2\n')
    asks.world.run(60.0)
    assert {name for _, name, _ in asks.all} == {"asker-0", "asker-1"}


def test_some_users_lose_patience() -> None:
    asks = Asks('skills = ["a"]\nrate_per_s = 10\ncancelled = 0.3\n')
    asks.world.run(100.0)
    assert asks.cancels == pytest.approx(0.3 * len(asks.all), rel=0.25)


def test_nobody_asks_a_node_that_is_down() -> None:
    asks = Asks('skills = ["a"]\nrate_per_s = 10\n')
    asks.world.run(9.0)
    asks.world.crash(asks.world.machines[0])
    asks.world.freeze(asks.world.machines[1])
    asks.world.run(60.0)
    assert not {"asker-0", "asker-1"} & {name for _, name, _ in asks.all}
    assert asks.workload.unasked == pytest.approx(0.2 * (len(asks.all) + asks.workload.unasked), rel=0.25)
