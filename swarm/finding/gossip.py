"""How adverts travel: each round a few that are news go to one random neighbour, and a new neighbour is told and asked at once.

Rumour mongering with a counter (Demers et al., 1987): a version of an advert is passed on `gossip_copies` times by everybody
who hears it. Renewals heal what a rumour missed. The cost per node and round is bounded whatever the size of the swarm, where
flooding costs each node as many messages as there are nodes.
"""

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Protocol

from protocol import codec
from protocol import limits as lim
from protocol.identity import NodeId
from protocol.messages import Advert, AdvertPull, AdvertPush, Capability, SignedAdvert
from swarm.effects import AdvertDue, Effect, GossipDue, Provide, Send, SetTimer
from swarm.finding.capabilities import CapabilityIndex
from swarm.settings import Settings

JITTER = (0.8, 1.2)
SEAL_BYTES = lim.HEADER_BYTES_MAX + 128  # What an envelope puts around an advert, and room for its load to grow.


class Notary(Protocol):
    """Signs and proves adverts; `protocol.notary.Notary` is the real one."""

    def sign(self, advert: Advert, lifetime_s: float, now: float) -> SignedAdvert: ...

    def holds(self, signed: SignedAdvert, now: float) -> bool: ...


class Gossip:
    """This node's own advert, and the rumours that it still has to tell."""

    def __init__(
        self,
        node: NodeId,
        name: str,
        settings: Settings,
        notary: Notary,
        dice: Random,
        index: CapabilityIndex,
        load: Callable[[], tuple[int, int, int]],
    ) -> None:
        """`load()` gives this node's slots, busy slots and queue length now."""
        self._node, self._name, self._settings, self._notary, self._dice = node, name, settings, notary, dice
        self._index, self._load = index, load
        self._hot: dict[NodeId, int] = {}  # Issuer to copies still to be passed on, oldest news first.
        self._addresses: tuple[str, ...] = ()
        self._capabilities: tuple[Capability, ...] = ()
        self._draining = False
        self._own: SignedAdvert | None = None
        self._issues = 0
        self._told_full = False
        self.forged = 0

    @property
    def own(self) -> SignedAdvert | None:
        """This node's newest advert."""
        return self._own

    def start(self, addresses: tuple[str, ...], neighbours: list[NodeId], now: float) -> list[Effect]:
        self._addresses = addresses[: lim.ADDRESSES_MAX]
        self._capabilities = self._fitting(self._capabilities)
        round_due = SetTimer(self._settings.gossip_period_s * self._dice.uniform(*JITTER), GossipDue())
        return [round_due, *self.issue(neighbours, now)]

    def offer(self, capabilities: tuple[Capability, ...], neighbours: list[NodeId], now: float) -> list[Effect]:
        """What this node's models can do has changed: everybody near hears it at once."""
        self._capabilities = self._fitting(capabilities[: lim.CAPABILITIES_MAX])
        skills = tuple(sorted(dict.fromkeys(capability.skill for capability in self._capabilities)))
        return [Provide(skills), *self.issue(neighbours, now)]

    def drain(self, neighbours: list[NodeId], now: float) -> list[Effect]:
        self._draining = True
        return self.issue(neighbours, now)

    def issue(self, neighbours: list[NodeId], now: float) -> list[Effect]:
        """A new version of this node's advert, told to all neighbours."""
        slots, busy, queued = (min(count, lim.SLOTS_MAX) for count in self._load())
        advert = Advert(self._name, self._addresses, self._capabilities, slots, busy, queued, self._draining)
        if self._own is not None and round(now * 1000) <= self._own.issued_at_ms:
            now = (self._own.issued_at_ms + 1) / 1000  # Versions grow even when two are issued within a millisecond.
        self._own = self._notary.sign(advert, self._settings.advert_lifetime_s, now)
        self._index.learn(self._own, now, True)
        self._issues += 1
        self._told_full = _is_full(advert)
        due_s = self._settings.advert_period_s * self._dice.uniform(*JITTER)
        told = AdvertPush((self._own,))
        return [SetTimer(due_s, AdvertDue(self._issues)), *[Send(node, told) for node in neighbours]]

    def due(self, timer: AdvertDue, neighbours: list[NodeId], now: float) -> list[Effect]:
        return self.issue(neighbours, now) if timer.version == self._issues else []

    def load_changed(self, neighbours: list[NodeId], now: float) -> list[Effect]:
        """Tell when this node fills up or has room again; in between, renewals and refusals are soon enough."""
        if self._own is None:
            return []
        full = _is_full_load(*self._load())
        gap_s = now - self._own.issued_at_ms / 1000
        return self.issue(neighbours, now) if full != self._told_full and gap_s >= self._settings.advert_gap_s else []

    def greet(self, node: NodeId) -> list[Effect]:
        """To a new neighbour: who we are, and a question for what it knows, as long as there is room for more."""
        effects: list[Effect] = [] if self._own is None else [Send(node, AdvertPush((self._own,)))]
        wanted = min(self._settings.pull_adverts, self._settings.adverts_max - len(self._index))
        return [*effects, Send(node, AdvertPull("", wanted))] if wanted > 0 else effects

    def answer(self, node: NodeId, pull: AdvertPull) -> list[Effect]:
        count = min(pull.adverts_max, self._settings.pull_adverts)
        adverts = [signed for signed in self._index.freshest(pull.skill, count) if signed.issuer != node]
        step = lim.ADVERTS_PER_PUSH_MAX
        return [Send(node, AdvertPush(tuple(adverts[at : at + step]))) for at in range(0, len(adverts), step)]

    def hear(self, sender: NodeId, push: AdvertPush, now: float) -> list[SignedAdvert]:
        """The adverts of a push that were news; they are learned, and will be passed on."""
        news = []
        for signed in push.adverts:
            first_hand = signed.issuer == sender
            if first_hand:
                self._index.revive(sender)
            if signed.issuer == self._node or not self._index.is_news(signed):
                continue
            if not first_hand and signed.issued_at_ms + signed.lifetime_ms <= now * 1000:
                continue  # The ghost of a node that has stopped renewing it. Its seal still holds, for clocks that differ.
            if not self._notary.holds(signed, now):
                self.forged += 1
                continue
            self._index.learn(signed, now, first_hand)
            self._hot.pop(signed.issuer, None)
            self._hot[signed.issuer] = self._settings.gossip_copies
            news.append(signed)
        if len(self._hot) > self._settings.adverts_max:
            for issuer in list(self._hot)[: len(self._hot) - self._settings.adverts_max]:
                del self._hot[issuer]
        return news

    def round(self, neighbours: list[NodeId]) -> list[Effect]:
        """One round: the oldest news to one random neighbour."""
        again = SetTimer(self._settings.gossip_period_s * self._dice.uniform(*JITTER), GossipDue())
        if not self._hot or not neighbours:
            return [again]
        to = neighbours[self._dice.randrange(len(neighbours))]
        adverts: list[SignedAdvert] = []
        for issuer in list(self._hot):
            known = self._index.get(issuer)
            copies = self._hot.pop(issuer)
            if known is None:
                continue
            if issuer != to:
                adverts.append(known.signed)
                copies -= 1
            if copies:
                self._hot[issuer] = copies  # Back in line, behind what has not been told as often.
            if len(adverts) >= self._settings.gossip_adverts:
                break
        return [Send(to, AdvertPush(tuple(adverts))), again] if adverts else [again]

    def _fitting(self, capabilities: tuple[Capability, ...]) -> tuple[Capability, ...]:
        """The capabilities as they fit into one advert: if they are too long, the last ones lose their texts first."""
        fitted = list(capabilities)
        for at in reversed(range(len(fitted))):
            advert = Advert(self._name, self._addresses, tuple(fitted), 0, 0, 0, False)
            if len(codec.encode(advert)) <= lim.ADVERT_BYTES_MAX - SEAL_BYTES:
                break
            fitted[at] = replace(fitted[at], description="", labels=())
        return tuple(fitted)


def _is_full(advert: Advert) -> bool:
    return _is_full_load(advert.slots, advert.busy, advert.queued)


def _is_full_load(slots: int, busy: int, queued: int) -> bool:
    return slots > 0 and busy >= slots
