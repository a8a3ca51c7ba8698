"""Ada, who hears adverts, pulses and suspicions with true seals, and what she tells of them."""

from collections.abc import Iterable
from random import Random

from protocol.genesis import swarm_id
from protocol.identity import Identity, NodeId
from protocol.messages import Advert, AdvertPush, AdvertWant, Message, Pulse, Rumours, Signed, Suspicion
from protocol.notary import Notary
from protocol.parts import Capability
from swarm.effects import Effect, Send
from swarm.finding.backlog import BURST_S, GENEROUS
from swarm.finding.capabilities import CapabilityIndex
from swarm.finding.gossip import Gossip
from swarm.finding.issuing import Issuer
from swarm.finding.roster import Roster
from swarm.finding.suspicion import Suspicions
from swarm.settings import Settings
from tests.swarm.samples import NOW, advert, capability

SWARM = swarm_id("attic")
CHAT, CODE = capability("chat"), capability("code", "coder")
KEYS = {name: Identity(name.encode().ljust(32)) for name in ("ada", "bob", "cyd", "dan", "eve")}
ADA, BOB, CYD, DAN, EVE = (key.node for key in KEYS.values())
NOW_MS = round(NOW * 1000)


def notary(node: NodeId) -> Notary:
    return Notary(next(key for key in KEYS.values() if key.node == node), SWARM, Random(1))


def of(node: NodeId, *capabilities: Capability, at: float = NOW, name: str = "") -> Signed[Advert]:
    """An advert with a true seal."""
    return notary(node).sign(advert(*(capabilities or (CHAT,)), name=name), 60.0, at)


def pulse(node: NodeId, at: float = NOW + 1, card: float = NOW, busy: int = 0, leaving: bool = False) -> Signed[Pulse]:
    return notary(node).sign(Pulse(round(card * 1000), busy, 0, leaving, leaving), 60.0, at)


def doubt(accuser: NodeId, node: NodeId, seen: float = NOW, at: float = NOW + 1) -> Signed[Suspicion]:
    return notary(accuser).sign(Suspicion(node, round(seen * 1000)), 60.0, at)


class Ada:
    """Ada's gossip, with her index and her links."""

    def __init__(self, **settings: float) -> None:
        self.settings = Settings(**settings)
        self.index = CapabilityIndex(ADA, self.settings)
        self.roster = Roster(self.settings)
        dice = Random(1)
        self.issuer = Issuer(
            ADA, "ada", self.settings, notary(ADA), dice, self.index, lambda: (0, 0, 0), lambda: (), self.roster.nodes
        )
        self.suspicions = Suspicions(ADA, notary(ADA), self.index, self.roster, lambda: self.settings.ping_after_s)
        self.gossip = Gossip(ADA, self.settings, notary(ADA), dice, self.index, self.issuer, self.suspicions)

    def hears(self, *adverts: Signed[Advert], sender: NodeId = EVE, at: float = NOW) -> list[Signed[Advert]]:
        return self.gossip.hear(sender, AdvertPush(adverts), at)

    def feels(self, *pulses: Signed[Pulse], sender: NodeId = EVE, at: float = NOW + 1) -> list[Effect]:
        return self.gossip.hear_rumours(sender, Rumours(pulses, ()), at)[0]

    def doubts(self, *doubts: Signed[Suspicion], sender: NodeId = EVE, at: float = NOW + 1) -> list[NodeId]:
        """Who is gone because of this."""
        return self.gossip.hear_rumours(sender, Rumours((), doubts), at)[1]

    def has_told_much(self, at: float = NOW) -> None:
        """So much that she must be sparing, but not silent."""
        backlog = self.gossip._backlog
        backlog._told_at, backlog._allowance = at, (GENEROUS / 2) * BURST_S * self.settings.gossip_budget

    def round(self, *neighbours: NodeId, at: float = NOW) -> list[tuple[NodeId, list[NodeId]]]:
        """Whom a round tells about whom."""
        return told(self.gossip.round(list(neighbours), at))


def told(effects: Iterable[Effect]) -> list[tuple[NodeId, list[NodeId]]]:
    return [
        (effect.to, [signed.issuer for signed in effect.message.adverts])
        for effect in effects
        if isinstance(effect, Send) and isinstance(effect.message, AdvertPush)
    ]


def rumoured(effects: Iterable[Effect]) -> list[tuple[NodeId, list[Message]]]:
    return [
        (effect.to, [signed.body for signed in (*effect.message.pulses, *effect.message.suspicions)])
        for effect in effects
        if isinstance(effect, Send) and isinstance(effect.message, Rumours)
    ]


def asked(effects: Iterable[Effect]) -> list[tuple[NodeId, tuple[NodeId, ...]]]:
    return [
        (effect.to, effect.message.nodes)
        for effect in effects
        if isinstance(effect, Send) and isinstance(effect.message, AdvertWant)
    ]


