"""How adverts travel: what is news goes to a few random neighbours at once, and a new neighbour is told and asked at once.

Rumour mongering with a counter (Demers et al., 1987): a version of an advert is passed on to `gossip_copies` neighbours by
everybody who hears it. Renewals heal what a rumour missed. News waits a moment, so that what comes together travels together, and
what may be told in a second is bounded: the cost per node does not grow with the swarm.
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
GOSSIP_BURST_S = 2.0  # What was not told in a calm time may be told at once, this many seconds of it.
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
        self._hot: dict[NodeId, tuple[NodeId, int]] = {}  # Issuer to whom its news came from and copies to pass on, oldest first.
        self._round_set = False
        self._told_at = float("-inf")
        self._allowance = 0.0
        self._addresses: tuple[str, ...] = ()
        self._capabilities: tuple[Capability, ...] = ()
        self._draining = False
        self._own: SignedAdvert | None = None
        self._issues = 0
        self._hurried = 0  # The issue after which the next one was brought forward.
        self._told_load = (0, 0)
        self.forged = 0

    @property
    def own(self) -> SignedAdvert | None:
        """This node's newest advert."""
        return self._own

    def start(self, addresses: tuple[str, ...], neighbours: list[NodeId], now: float) -> list[Effect]:
        self._addresses = addresses[: lim.ADDRESSES_MAX]
        self._capabilities = self._fitting(self._capabilities)
        return self.issue(neighbours, now)

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
        self._told_load = (busy, queued)
        due_s = self._settings.advert_period_s * self._dice.uniform(*JITTER)
        told = AdvertPush((self._own,))
        return [SetTimer(due_s, AdvertDue(self._issues)), *[Send(node, told) for node in neighbours]]

    def due(self, timer: AdvertDue, neighbours: list[NodeId], now: float) -> list[Effect]:
        return self.issue(neighbours, now) if timer.version == self._issues else []

    def load_changed(self, neighbours: list[NodeId], now: float) -> list[Effect]:
        """Tell when this node fills up or has room again, and when its queue has doubled or halved; not more often than the gap."""
        if self._own is None:
            return []
        slots, busy, queued = self._load()
        if not _differs(slots, self._told_load, (busy, queued)):
            return []
        gap_s = now - self._own.issued_at_ms / 1000
        if gap_s >= self._settings.advert_gap_s:
            return self.issue(neighbours, now)
        if self._hurried == self._issues:
            return []
        self._hurried = self._issues  # Soon enough, and with what is true then.
        return [SetTimer(self._settings.advert_gap_s - gap_s, AdvertDue(self._issues))]

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
            known = self._index.get(signed.issuer)
            is_renewal = known is not None and known.signed.advert == signed.advert
            self._index.learn(signed, now, first_hand)
            self._hot.pop(signed.issuer, None)
            settings = self._settings
            self._hot[signed.issuer] = (sender, settings.gossip_renewals if is_renewal else settings.gossip_copies)
            news.append(signed)
        if len(self._hot) > self._settings.adverts_max:
            for issuer in list(self._hot)[: len(self._hot) - self._settings.adverts_max]:
                del self._hot[issuer]
        return news

    def stir(self) -> list[Effect]:
        """A round soon, if there is news to tell and none is due yet."""
        if self._round_set or not self._hot:
            return []
        self._round_set = True
        return [SetTimer(self._settings.gossip_period_s * self._dice.uniform(*JITTER), GossipDue())]

    def round(self, neighbours: list[NodeId], now: float) -> list[Effect]:
        """One round: the oldest news, each to a few random neighbours, within what may be told in a second."""
        self._round_set = False
        settings = self._settings
        earned = (now - self._told_at) * settings.gossip_adverts
        self._allowance = min(GOSSIP_BURST_S * settings.gossip_adverts, self._allowance + max(0.0, earned))
        self._told_at = now
        told: dict[NodeId, list[SignedAdvert]] = {}
        for issuer in list(self._hot):
            if self._allowance < 1:
                break
            (source, copies), known = self._hot.pop(issuer), self._index.get(issuer)
            others = [node for node in neighbours if node not in (issuer, source)]
            for node in self._dice.sample(others, min(len(others), copies)):
                if known is not None:
                    told.setdefault(node, []).append(known.signed)
                    self._allowance -= 1
        step = lim.ADVERTS_PER_PUSH_MAX
        sends: list[Effect] = [
            Send(node, AdvertPush(tuple(adverts[at : at + step])))
            for node, adverts in told.items()
            for at in range(0, len(adverts), step)
        ]
        return [*sends, *self.stir()]

    def _fitting(self, capabilities: tuple[Capability, ...]) -> tuple[Capability, ...]:
        """The capabilities as they fit into one advert: if they are too long, the last ones lose their texts first."""
        fitted = list(capabilities)
        for at in reversed(range(len(fitted))):
            advert = Advert(self._name, self._addresses, tuple(fitted), 0, 0, 0, False)
            if len(codec.encode(advert)) <= lim.ADVERT_BYTES_MAX - SEAL_BYTES:
                break
            fitted[at] = replace(fitted[at], description="", labels=())
        return tuple(fitted)


def _differs(slots: int, told: tuple[int, int], now: tuple[int, int]) -> bool:
    """Whether a load is worth telling: the last slot was taken or given back, or the queue is another."""
    if (told[0] >= slots) != (now[0] >= slots):
        return True
    return not told[1] / 2 <= now[1] <= 2 * told[1]
