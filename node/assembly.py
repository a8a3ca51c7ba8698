"""Puts one node together around a transport: member, driver, models and desk, each knowing only what it needs."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from node.backends import Surroundings
from node.desk import Desk
from node.detached import Detached
from node.driver import Driver
from node.models import Models, OpenModel
from node.recording import Recorder
from node.transport import Transport
from protocol.identity import Identity
from protocol.notary import Notary
from swarm.member import Member
from swarm.settings import Settings


@dataclass(frozen=True, slots=True)
class Node:
    """The parts of one node; nothing runs yet. Run transport, driver, models and detached in one nursery, and post Started."""

    member: Member
    transport: Transport
    driver: Driver
    models: Models
    desk: Desk
    detached: Detached


def assemble(
    *,
    identity: Identity,
    swarm: bytes,
    name: str,
    settings: Settings,
    transport: Transport,
    open_model: OpenModel,
    surroundings: Surroundings,
    parallel_max: int,
    memory_bytes: int,
    pinned: tuple[str, ...] = (),
    clock: Callable[[], float],
    dice: Random,
    stop: Callable[[], None],
    recorder: Recorder,
) -> Node:
    """The parts of a node. `stop` is what `swarm down` calls; `recorder` is running already."""
    member = Member(identity.node, name, settings, Notary(identity, swarm, dice), dice)
    # The driver needs what works for it and they need its inbox, so they get a way there instead.
    models = Models(
        open_model, surroundings, parallel_max, lambda event: driver.post(event), memory_bytes=memory_bytes, pinned=pinned
    )
    desk = Desk(
        member,
        models,
        clock,
        lambda event: driver.post(event),
        lambda: transport.counts,
        stop,
        recorder,
    )
    driver = Driver(member, transport, clock, models.generate, models.stop_generating, desk.tell)
    return Node(member, transport, driver, models, desk, Detached(desk.ask, recorder))
