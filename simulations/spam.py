"""Adversaries: members that tell of workers which do not exist, in adverts and in the DHT, as many as they like."""

from __future__ import annotations

from functools import partial
from random import Random

from protocol.identity import NODE_ID_BYTES, NodeId
from protocol.messages import Advert, AdvertPush, Signed
from protocol.parts import Capability
from simulations.machines import Machine
from simulations.scenario import MembersTable
from simulations.world import World
from swarm.values import MEMBERSHIP, Contact, Subject

PERIOD_S = 0.5  # Between pushes of one adversary.
LIFETIME_MS = 600_000
SPEED = 1_000.0  # Tokens per second that its inventions claim.
SLOTS = 64
RECORDS = 500  # Provider records of each adversary under membership and each skill.


class Spam:
    """Schedules what every adversary of a world does. Its inventions are all at one place, where nothing answers."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.invented: dict[NodeId, None] = {}
        for number, table in enumerate(world.scenario.members):
            for machine in world.machines if table.spam_per_s or table.poisons else ():
                if machine.group == table.name:
                    dice = world.dice(f"spam {number} {machine.index}")
                    if table.spam_per_s:
                        world.agenda.call(dice.uniform(0.0, PERIOD_S), partial(self._tell, table, machine, dice))
                    self._poison(table, machine, dice)

    def _tell(self, table: MembersTable, machine: Machine, dice: Random) -> None:
        world, process = self._world, machine.process
        world.agenda.call(PERIOD_S, partial(self._tell, table, machine, dice))
        if process is None:
            return
        count = min(16, max(1, round(table.spam_per_s * PERIOD_S)))
        for neighbour in list(process.links):
            adverts = tuple(self._advert(machine, dice) for _ in range(count))
            world.network.send(process, neighbour, AdvertPush(adverts))

    def _advert(self, machine: Machine, dice: Random) -> Signed[Advert]:
        contact = self._invent(machine, dice)
        assert contact.node is not None
        skills = self._world.scenario.workload[0].skills
        offered = tuple(Capability(skill, "micro", b"", 8192, SPEED, 1, SLOTS, (), "", b"virtual") for skill in skills)
        advert = Advert("wonder", contact.addresses, offered, SLOTS, 0, 0, False)
        now_ms = round((self._world.agenda.now + machine.process.epoch) * 1000) if machine.process else 0
        return Signed(contact.node, now_ms, LIFETIME_MS, advert, b"")

    def _invent(self, machine: Machine, dice: Random) -> Contact:
        node = NodeId(dice.randbytes(NODE_ID_BYTES))
        self.invented[node] = None
        return Contact(node, (f"/ip4/5.5.{machine.index % 256}.{dice.randrange(256)}/tcp/{dice.randrange(1024, 65536)}",))

    def _poison(self, table: MembersTable, machine: Machine, dice: Random) -> None:
        """The same inventions in each of the regions, so that these bear each other out."""
        for subject in (MEMBERSHIP, *map(Subject, self._world.scenario.workload[0].skills)):
            for _ in range(RECORDS if table.poisons else 0):
                contact = self._invent(machine, dice)
                for region in range(table.poisons):
                    self._world.registry.pretend(subject, contact, region)
