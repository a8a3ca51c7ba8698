"""Slanderers: members that say of everybody, one after the other and all of them at once, that it is dead."""

from __future__ import annotations

from typing import TypeVar

from protocol import limits as lim
from protocol.identity import NODE_ID_BYTES, NodeId
from protocol.messages import Advert, AdvertPush, Message, Rumours, Signed, Suspicion
from simulations.machines import Machine
from simulations.world import EPOCH, World
from swarm.finding.suspicion import FALSE_MAX

PERIOD_S = 1.5  # Between victims.
HEARD_OUT = FALSE_MAX  # Victims of one name: then nobody listens to it any more.
FROM_S = 10.0  # The others have met by then.
AHEAD_MS = (0, lim.CLOCK_SKEW_MS_MAX // 4, lim.CLOCK_SKEW_MS_MAX - 1_000)  # Of the clock: versions that a victim has to outdo,
NEVER = 2**53 - 1  # and one that it cannot.

_M = TypeVar("_M", bound=Message)


class Slander:
    """Schedules what every slanderer of a world says to all of its neighbours, under names that it invents."""

    def __init__(self, world: World) -> None:
        self._world = world
        groups = [table.name for table in world.scenario.members if table.slanders]
        self._slanderers = [machine for machine in world.machines if machine.group in groups]
        self._victims = [machine for machine in world.machines if machine.group not in groups]
        self._said = 0
        self._dice = world.dice("slander")
        self._names: dict[int, NodeId] = {}
        if self._slanderers:
            world.agenda.call(FROM_S, self._say)

    def _say(self) -> None:
        world = self._world
        world.agenda.call(PERIOD_S, self._say)
        victim = self._victims[self._said % len(self._victims)]
        ahead = self._said % (len(AHEAD_MS) + 1)
        self._said += 1
        for machine in self._slanderers:
            if self._said % HEARD_OUT == 1:
                self._tell(machine, self._introduced(machine))
            doubt = Suspicion(victim.node, self._now_ms(machine) + AHEAD_MS[ahead] if ahead < len(AHEAD_MS) else NEVER)
            self._tell(machine, Rumours((), (self._signed(machine, doubt),)))

    def _introduced(self, machine: Machine) -> Message:
        """The advert of a new node, at a place of its own for all that anybody knows."""
        dice = self._dice
        self._names[machine.index] = NodeId(dice.randbytes(NODE_ID_BYTES))
        address = f"/ip4/5.{dice.randrange(256)}.{dice.randrange(256)}.7/tcp/4976"
        return AdvertPush((self._signed(machine, Advert("witness", (address,), (), 0, 0, 0, False)),))

    def _signed(self, machine: Machine, message: _M) -> Signed[_M]:
        return Signed(self._names[machine.index], self._now_ms(machine), lim.PRESENCE_MS, message, b"")

    def _now_ms(self, machine: Machine) -> int:
        return round((self._world.agenda.now + EPOCH + machine.skew_s) * 1000)

    def _tell(self, machine: Machine, message: Message) -> None:
        process = machine.process
        if process is not None:
            for neighbour in list(process.links):
                self._world.network.send(process, neighbour, message)
