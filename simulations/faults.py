"""What goes wrong, when, and to whom: the faults of a scenario as entries of the agenda."""

from functools import partial
from random import Random

from simulations.machines import Machine
from simulations.news import News
from simulations.scenario import FaultTable
from simulations.world import World

GONE = ("crash", "vanish", "freeze", "blackhole", "sleep", "leave")  # After which the others should forget a node.


class Faults:
    """Schedules every fault of a world. Each table has dice of its own, so one fault more hits nobody else differently."""

    def __init__(self, world: World, news: News) -> None:
        self._world, self._news, self._islands = world, news, 0
        self.struck: dict[str, int] = {}
        for number, table in enumerate(world.scenario.faults):
            world.agenda.call(table.at_s, partial(self._strike, table, world.dice(f"fault {number}")))

    def _strike(self, table: FaultTable, dice: Random) -> None:
        world = self._world
        until = table.until_s or world.scenario.seconds
        if table.every_s and world.agenda.now + table.every_s < until:
            world.agenda.call(table.every_s, partial(self._strike, table, dice))
        able = [machine for machine in world.machines if table.group in ("", machine.group)]
        count = table.count or round(table.share * len(able))
        # Drawn among all of the group, hit or not: who is down now must not decide whom the next draw finds.
        hit = dice.sample(able, min(count, len(able)))
        self.struck[table.kind] = self.struck.get(table.kind, 0) + len(hit)
        self._begin(table, hit)
        if table.for_s:
            world.agenda.call(table.for_s, partial(self._end, table, hit))

    def _begin(self, table: FaultTable, hit: list[Machine]) -> None:
        world = self._world
        if table.kind == "partition":
            self._islands += 1
        for machine in hit:
            was_there = machine.process is not None and machine.process.frozen_at is None and not machine.island
            match table.kind:
                case "change":
                    world.change(machine)
                    self._news.changed(machine)
                case "crash":
                    world.crash(machine)
                case "vanish":
                    world.crash(machine, silently=True)
                case "leave":
                    world.leave(machine)
                case "reserve":
                    world.reserve(machine, True)
                case "freeze":
                    world.freeze(machine)
                case "slow":
                    machine.pace *= table.factor
                case "partition":
                    machine.island = self._islands
                case "blackhole" | "sleep":
                    self._islands += 1
                    machine.island = self._islands
                    if table.kind == "sleep":
                        world.freeze(machine)
            if was_there and table.kind in GONE:
                self._news.struck(table.kind, machine)
        world.network.mended()  # Somebody may have changed from one island to another where the way is free.

    def _end(self, table: FaultTable, hit: list[Machine]) -> None:
        world = self._world
        for machine in hit:
            match table.kind:
                case "crash" | "vanish" | "leave":
                    world.start(machine)
                case "freeze":
                    world.thaw(machine)
                case "slow":
                    machine.pace /= table.factor
                case "reserve":
                    world.reserve(machine, False)
                case "partition" | "blackhole" | "sleep":
                    machine.island = 0
                    if table.kind == "sleep":
                        world.thaw(machine)
        world.network.mended()
