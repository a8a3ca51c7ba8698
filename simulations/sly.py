"""Liars about their load: members that say at all times that they are free, in adverts, pulses and promises."""

from dataclasses import replace
from random import Random

from protocol.identity import NodeId
from protocol.messages import TaskAccepted
from swarm.effects import Effect, Send
from swarm.events import Event
from swarm.finding.issuing import Notary
from swarm.member import Member
from swarm.settings import Settings


class Sly(Member):
    """A member in all else."""

    def __init__(self, node: NodeId, name: str, settings: Settings, notary: Notary, dice: Random) -> None:
        super().__init__(node, name, settings, notary, dice)
        self.issuer._load = lambda: (self.serving.load()[0], 0, 0)

    def handle(self, event: Event, now: float) -> list[Effect]:
        return [_free(effect) for effect in super().handle(event, now)]


def _free(effect: Effect) -> Effect:
    if isinstance(effect, Send) and isinstance(effect.message, TaskAccepted):
        return replace(effect, message=replace(effect.message, ahead=0))
    return effect
