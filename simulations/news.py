"""How fast the swarm hears of what has happened: new adverts, nodes that leave, nodes that are gone without a word."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from simulations.machines import Machine, Process
from simulations.world import World
from swarm.finding.capabilities import CapabilityIndex

STEP_S = 0.05  # Between looks while somebody has not heard yet.
PATIENCE_S = 60.0  # Then it is counted as it stands: an advert is forgotten by then.
OBSERVERS_MAX = 200  # Of one piece of news; in larger worlds these are drawn.


@dataclass(slots=True, eq=False)
class _Item:
    """One thing that others should hear of, and who has not heard yet."""

    machine: Machine
    at: float
    version: int  # Of the advert to know; 0: the node is gone, and is to be forgotten.
    delays: list[float]
    starts: int
    waiting: dict[int, Machine] = field(default_factory=dict)


class News:
    """Watches what every member knows, and notes how long each piece of news took to reach each."""

    def __init__(self, world: World) -> None:
        self._world, self._dice = world, world.dice("news")
        self._items: list[_Item] = []
        self._is_looking = False
        self.told: list[float] = []
        self.gone: list[float] = []
        self.left: list[float] = []
        self.known: list[float] = []

    def watches(self) -> dict[type, Callable[[Process, Any], None]]:
        return {}

    def changed(self, machine: Machine) -> None:
        """A machine's member has just told something new of itself."""
        index = _index(machine)
        known = index.get(machine.node) if index else None
        if known is not None:
            self._add(machine, known.signed.issued_at_ms, self.told)

    def struck(self, kind: str, machine: Machine) -> None:
        """A machine is gone, or its node is leaving."""
        self._add(machine, 0, self.left if kind == "leave" else self.gone)

    def look(self) -> None:
        """Note what share of the others each member knows."""
        world = self._world
        alive = [machine for machine in world.machines if _is_well(machine)]
        most = min(len(alive) - 1, world.settings.adverts_max - 1)
        if most <= 0:
            return
        nodes = {machine.node for machine in alive}
        sample = alive if len(alive) <= OBSERVERS_MAX else self._dice.sample(alive, OBSERVERS_MAX)
        for machine in sample:
            index = _index(machine)
            found = sum(known.node in nodes for known in index) - 1 if index else 0
            self.known.append(max(0.0, min(1.0, found / most)))

    def _add(self, machine: Machine, version: int, delays: list[float]) -> None:
        others = [other for other in self._world.machines if other is not machine and _is_well(other)]
        if version == 0:
            others = [other for other in others if (index := _index(other)) is not None and index.get(machine.node)]
        if len(others) > OBSERVERS_MAX:
            others = self._dice.sample(others, OBSERVERS_MAX)
        item = _Item(machine, self._world.agenda.now, version, delays, machine.starts)
        item.waiting = {other.index: other for other in others}
        self._items.append(item)
        if not self._is_looking:
            self._is_looking = True
            self._world.agenda.call(STEP_S, self._step)

    def _step(self) -> None:
        now = self._world.agenda.now
        kept = []
        for item in self._items:
            late_s = now - item.at
            is_back = item.version == 0 and (item.machine.starts != item.starts or (_is_well(item.machine) and late_s > 1.0))
            for index, other in list(item.waiting.items()):
                found = _index(other)
                if found is None or not _is_well(other):
                    del item.waiting[index]
                elif _has_heard(item, found) or late_s >= PATIENCE_S:
                    item.delays.append(late_s)
                    del item.waiting[index]
            if item.waiting and not is_back:
                kept.append(item)
        self._items = kept
        self._is_looking = bool(kept)
        if kept:
            self._world.agenda.call(STEP_S, self._step)


def _has_heard(item: _Item, index: CapabilityIndex) -> bool:
    known = index.get(item.machine.node)
    if item.version == 0:
        return known is None
    return known is not None and known.signed.issued_at_ms >= item.version


def _is_well(machine: Machine) -> bool:
    """Whether it runs, and can be heard by most."""
    return machine.process is not None and machine.process.frozen_at is None and not machine.island


def _index(machine: Machine) -> CapabilityIndex | None:
    index: CapabilityIndex | None = getattr(machine.process.member, "index", None) if machine.process else None
    return index
