"""How adverts, pulses and suspicions travel: news goes to a few random neighbours at once, and digests find what was missed.

News waits a moment, so that what comes together travels together. Which neighbours hear of it, and what may be told in a second,
is the backlog's business; anti-entropy heals what the rumours missed (Demers et al., 1987).
"""

from collections.abc import Iterable, Sequence
from random import Random

from protocol import limits as lim
from protocol.identity import NODE_ID_BYTES, NodeId
from protocol.messages import (
    Advert,
    AdvertDigest,
    AdvertPull,
    AdvertPush,
    AdvertWant,
    Digest,
    Message,
    Pulse,
    Rumours,
    Signed,
    Suspicion,
)
from swarm.effects import BurialDue, DigestDue, Effect, GossipDue, Send, SetTimer
from swarm.finding.backlog import Backlog, Key, Worth
from swarm.finding.capabilities import CapabilityIndex, Known
from swarm.finding.issuing import JITTER, Issuer, Notary
from swarm.finding.suspicion import TIMER_S, Suspicions
from swarm.settings import Settings

CHANGED_S = 10.0  # An advert that changes again so soon is worth no more than that of a stranger.
LAST_WORDS_MAX = 64  # About what goes wrong in a minute.
HEARD_PER_S = 64.0  # News from one neighbour, each costing a check of its seal: far more than one tells.
HEARD_BURST = 512.0  # What answers a digest comes at once.
ANSWERED_PER_S = 16.0  # Adverts and pulses told to one neighbour that asks, for ten bytes ask for 64 of each: more than comparing
ANSWERED_BURST = 1024.0  # brings in the busiest swarm. At once: all that a newcomer lacks, twice.
FIRST, LAST = NodeId(bytes(NODE_ID_BYTES)), NodeId(b"\xff" * NODE_ID_BYTES)
CROWDED, TWIN = "crowded", "own identity"


class Gossip:
    """The rumours that this node still has to tell, and what it has heard."""

    def __init__(
        self, node: NodeId, settings: Settings, notary: Notary, dice: Random, index: CapabilityIndex, issuer: Issuer,
        suspicions: Suspicions,
    ) -> None:  # fmt: skip
        self._node, self._settings, self._notary, self._dice = node, settings, notary, dice
        self._index, self._issuer, self._suspicions = index, issuer, suspicions
        self._backlog = Backlog(settings, dice)
        self._round_at = float("inf")
        self._heard: dict[NodeId, tuple[float, float]] = {}  # Neighbour to what it may still tell, and as of when.
        self._answered: dict[NodeId, tuple[float, float]] = {}  # The same of what it may be told when it asks.
        self._last_words: dict[NodeId, Signed[Message]] = {}  # Why a node was forgotten, for those who missed it.
        self.refused: dict[str, int] = {}
        self.twin = ""
        """Where another node with this identity was seen, in words; empty if none was."""

    # --- Hearing ------------------------------------------------------------------------------------------------------

    def hear(self, sender: NodeId, push: AdvertPush, now: float) -> list[Signed[Advert]]:
        """The adverts of a push that were news; they are learned, and will be passed on."""
        news = []
        for signed in push.adverts:
            first_hand = signed.issuer == sender
            if first_hand:
                self._index.revive(sender)
            if signed.issuer == self._node:
                self._hear_of_self(signed, now, f"at {', '.join(signed.body.addresses[:2])}" if signed.body.addresses else "")
                continue
            if not self._index.is_news(signed):
                self._backlog.knows(sender, Key(signed.issuer, None, Advert), signed)
                continue
            if not self._believes(sender, signed, now):
                continue
            worth = self._worth(signed)
            self._index.learn(signed, now, first_hand, sender)
            self._backlog.add(Key(signed.issuer, None, Advert), signed, sender, worth)
            news.append(signed)
        return news

    def hear_rumours(self, sender: NodeId, rumours: Rumours, now: float) -> tuple[list[Effect], list[NodeId]]:
        """What to say to pulses and suspicions, and who is gone because of them."""
        wanted: list[NodeId] = []
        gone: list[NodeId] = []
        effects: list[Effect] = []
        for pulse in rumours.pulses:
            if pulse.issuer == self._node:
                self._hear_of_self(pulse, now, "")
            elif self._index.is_newer(pulse) and self._believes(sender, pulse, now):
                is_refutation = self._suspicions.alive(pulse, now)
                if pulse.body.leaving:
                    gone.append(pulse.issuer)
                    self._bury(pulse.issuer, pulse)
                    self._index.forget(pulse.issuer, pulse.issued_at_ms)
                    self._backlog.add(Key(pulse.issuer, None, Pulse), pulse, sender, Worth.GONE)
                    continue
                known = self._index.get(pulse.issuer)
                is_renewal = known is not None and _load(known.advert) == _load(pulse.body) and not is_refutation
                is_stranger = self._index.version(pulse.issuer) == 0
                has_room = known is not None or self._index.room > len(wanted)
                if not self._index.beat(pulse, now, pulse.issuer == sender) and has_room:
                    wanted.append(pulse.issuer)
                worth = Worth.STRANGER if is_stranger else Worth.RENEWAL if is_renewal else Worth.LOAD
                self._backlog.add(Key(pulse.issuer, None, Pulse), pulse, sender, worth)
            else:
                self._backlog.knows(sender, Key(pulse.issuer, None, Pulse), pulse)
                effects += self.remind(sender, pulse.issued_at_ms) if pulse.issuer == sender else []
        for suspicion in rumours.suspicions:
            node = suspicion.body.node
            if node == self._node:
                # As long as somebody may believe it, say that it is not so; what was said before a start is about its past.
                is_now = self._issuer.advert is not None and suspicion.body.seen >= self._issuer.version
                if is_now and self._believes(sender, suspicion, now):
                    if suspicion.body.seen > self._issuer.version:
                        # A lie, for it has never said that. From now on it says more than others would believe of a liar.
                        self._issuer.overtaken(round(now * 1000) + lim.CLOCK_SKEW_MS_MAX, now)
                    effects += self._issuer.speak(now)
            elif self._suspicions.is_news(suspicion, now) and self._believes(sender, suspicion, now):
                refute_s = self._suspicions.hear(suspicion, now)
                if self._suspicions.is_near(node, now):
                    # First-hand knowledge beats rumours. The others can hear it from the node itself alone, which may not know.
                    effects.append(Send(node, Rumours((), (suspicion,))))
                    continue
                effects.append(SetTimer(refute_s, BurialDue()))
                self._backlog.add(Key(node, suspicion.issuer, Suspicion), suspicion, sender, Worth.GONE)
            else:
                self._backlog.knows(sender, Key(node, suspicion.issuer, Suspicion), suspicion)
        if wanted:
            effects.append(Send(sender, AdvertWant(tuple(wanted[: lim.DIGESTS_MAX]))))
        return effects, gone

    def remind(self, sender: NodeId, said_ms: int) -> list[Effect]:
        """To a node that speaks for itself: what it has said later than this. Only a twin of it, or its clock, makes that so."""
        known = self._index.get(sender)
        if known is None or known.version <= said_ms:
            return []
        return _sends(sender, [known.signed] if known.pulse is None else [known.signed, known.pulse])

    def spread(self, suspicion: Signed[Suspicion], neighbours: list[NodeId]) -> list[Effect]:
        """Tell all neighbours of a suspicion of this node's own."""
        return [Send(node, Rumours((), (suspicion,))) for node in neighbours]

    def bury_overdue(self, now: float) -> list[NodeId]:
        """Forget those that did not refute a suspicion in time, and say who."""
        overdue = self._suspicions.overdue(now)
        for node, why in overdue:
            self._bury(node, why)
        return [node for node, _ in overdue]

    def _bury(self, node: NodeId, why: Signed[Message]) -> None:
        self._index.forget(node)
        self._last_words.pop(node, None)
        self._last_words[node] = why
        if len(self._last_words) > LAST_WORDS_MAX:
            del self._last_words[next(iter(self._last_words))]

    def unlinked(self, node: NodeId) -> None:
        self._heard.pop(node, None)
        self._answered.pop(node, None)

    def _hear_of_self(self, signed: Signed[Message], now: float, where: str) -> None:
        """Only a second node with this identity, or this one's own past under another clock, says more than this node has said."""
        if signed.issued_at_ms > self._issuer.version and not self._notary.fault(signed, now):
            self.meet_twin(where)
            self._issuer.overtaken(signed.issued_at_ms, now)

    def meet_twin(self, where: str) -> None:
        """Another node runs with this node's identity; `where`: what is known of that, in words."""
        self._refuse(TWIN)
        self.twin = where or self.twin or "somewhere"

    def _believes(self, sender: NodeId, signed: Signed[Message], now: float) -> bool:
        if sender != signed.issuer and signed.issued_at_ms + signed.lifetime_ms <= now * 1000:
            return False  # The ghost of a node that has stopped renewing it. Its seal still holds, for clocks that differ.
        left, since = self._heard.get(sender, (HEARD_BURST, now))
        left = min(HEARD_BURST, left + max(0.0, now - since) * HEARD_PER_S)
        self._heard[sender] = (max(0.0, left - 1), now)
        fault = CROWDED if left < 1 else self._notary.fault(signed, now)
        if fault:
            self._refuse(fault)
        return not fault

    def _refuse(self, why: str) -> None:
        self.refused[why] = self.refused.get(why, 0) + 1

    # --- Telling ------------------------------------------------------------------------------------------------------

    def stir(self, now: float) -> list[Effect]:
        """A round soon if there is news to tell, and in a while if there are only renewals, unless one is due by then."""
        if not self._backlog:
            return []
        settings = self._settings
        period_s = settings.gossip_period_s if self._backlog.is_urgent else settings.gossip_renewal_period_s
        if self._round_at <= now + period_s * JITTER[1]:
            return []
        wait_s = period_s * self._dice.uniform(*JITTER)
        self._round_at = now + wait_s
        return [SetTimer(wait_s, GossipDue())]

    def due(self, neighbours: list[NodeId], now: float) -> list[Effect]:
        """A timer of `stir` has fired. One that a sooner one has overtaken finds nothing."""
        return [] if now < self._round_at - TIMER_S else self.round(neighbours, now)

    def round(self, neighbours: list[NodeId], now: float) -> list[Effect]:
        """One round: what is waiting, to a few random neighbours, within what may be told in a second."""
        self._round_at = float("inf")
        told = self._backlog.take(neighbours, now, self._index.__contains__)
        sends = [effect for node, signed in told.items() for effect in _sends(node, signed)]
        return [*sends, *self.stir(now)]

    def _worth(self, signed: Signed[Advert]) -> Worth:
        """Of an advert that is news."""
        known = self._index.get(signed.issuer)
        if known is not None and known.signed.body == signed.body:
            return Worth.RENEWAL
        before_ms = self._index.version(signed.issuer) if known is None else known.signed.issued_at_ms
        return Worth.CHANGE if 0 < before_ms <= signed.issued_at_ms - CHANGED_S * 1000 else Worth.STRANGER

    # --- Greetings, digests and questions -----------------------------------------------------------------------------

    def greet(self, node: NodeId, dialled: bool, now: float) -> list[Effect]:
        """To a new neighbour: who we are, and who is said to be dead, which it may have missed while it was away.

        Whoever has dialled also compares what both know, so that it is done once.
        """
        own: list[Signed[Message]] = [signed for signed in (self._issuer.advert, self._issuer.pulse) if signed is not None]
        own += self._suspicions.latest(now, LAST_WORDS_MAX)
        return [*_sends(node, own), *([self._digest_to(node)] if dialled else [])]

    def digest_due(self, neighbours: list[NodeId]) -> list[Effect]:
        """Now and then, compare with one neighbour."""
        again = SetTimer(self._settings.digest_period_s * self._dice.uniform(*JITTER), DigestDue())
        return [again, *([self._digest_to(self._dice.choice(neighbours))] if neighbours else [])]

    def _digest_to(self, node: NodeId) -> Effect:
        """All that is known, or as much as fits from a random node on."""
        nodes = sorted(known.node for known in self._index)
        first, last = FIRST, LAST
        if len(nodes) > lim.DIGESTS_MAX:
            # Those at the ends are as likely to be among them as all others.
            at = self._dice.randrange(1 - lim.DIGESTS_MAX, len(nodes))
            nodes, ends = nodes[max(0, at) : at + lim.DIGESTS_MAX], (at <= 0, at + lim.DIGESTS_MAX >= len(nodes))
            first, last = FIRST if ends[0] else nodes[0], LAST if ends[1] else nodes[-1]
        known = [self._index.get(each) for each in nodes]
        return Send(node, AdvertDigest(first, last, tuple(_digest(each) for each in known if each is not None)))

    def compare(self, sender: NodeId, digest: AdvertDigest, now: float) -> list[Effect]:
        """What the sender of a digest lacks, and a question for what this node lacks, as far as there is room."""
        if self._left_for(sender, now) < 1:
            return []
        theirs = {each.node: each for each in digest.known}
        told: list[Signed[Message]] = []
        adverts = 0
        for known in self._index:
            there = theirs.get(known.node)
            if (known.node == sender and there is None) or not digest.first <= known.node <= digest.last:
                continue
            if there is None or there.card < known.signed.issued_at_ms:
                if adverts >= self._settings.pull_adverts:
                    continue
                adverts += 1
                told.append(known.signed)
            if known.pulse is not None and (there is None or there.pulse < known.pulse.issued_at_ms):
                told.append(known.pulse)
        for each in digest.known:
            # Whoever compares has perhaps just come back, and has missed what was said of a node meanwhile.
            why = self._suspicions.why(each.node, now) if each.node in self._index else self._last_words.get(each.node)
            if why is not None and max(each.card, each.pulse) <= self._index.version(each.node):
                told.append(why)
        lacking = [each.node for each in digest.known if self._lacks(each)]
        strangers = [node for node in lacking if node not in self._index]
        # No more than there is room for: in a swarm too large for anybody's view, everybody lacks most of the others.
        left_out = dict.fromkeys(strangers[self._index.room :])
        wanted = tuple(node for node in lacking if node not in left_out)
        return [*self._answer(sender, told, now), *([Send(sender, AdvertWant(wanted))] if wanted else [])]

    def _lacks(self, there: Digest) -> bool:
        if there.node == self._node:
            return max(there.card, there.pulse) > self._issuer.version  # More than it has said itself: see `_hear_of_self`.
        known = self._index.get(there.node)
        if known is None:
            return self._index.room > 0 and max(there.card, there.pulse) > self._index.version(there.node)
        return there.card > known.signed.issued_at_ms or there.pulse > known.version

    def give(self, sender: NodeId, want: AdvertWant, now: float) -> list[Effect]:
        found = [known for node in want.nodes if (known := self._index.get(node)) is not None]
        return self._answer(sender, _all_of(found), now)

    def answer(self, node: NodeId, pull: AdvertPull, now: float) -> list[Effect]:
        count = min(pull.adverts_max, self._settings.pull_adverts)
        found = [known for known in self._index.freshest(pull.skill, count) if known.node != node]
        return self._answer(node, _all_of(found), now)

    def _answer(self, node: NodeId, told: list[Signed[Message]], now: float) -> list[Effect]:
        """As much of an answer as this neighbour may be told now; to look for nothing costs as much as one."""
        left = self._left_for(node, now)
        told = told[: int(left)]
        self._answered[node] = (max(0.0, left - max(1, len(told))), now)
        return _sends(node, told)

    def _left_for(self, node: NodeId, now: float) -> float:
        left, since = self._answered.get(node, (ANSWERED_BURST, now))
        return min(ANSWERED_BURST, left + max(0.0, now - since) * ANSWERED_PER_S)


def _digest(known: Known) -> Digest:
    return Digest(known.node, known.signed.issued_at_ms, 0 if known.pulse is None else known.pulse.issued_at_ms)


def _load(told: Advert | Pulse) -> tuple[int, int, bool]:
    return told.busy, told.queued, told.draining


def _all_of(found: Iterable[Known]) -> list[Signed[Message]]:
    """The advert and the pulse of each."""
    signed: list[Signed[Message]] = []
    for known in found:
        signed += [known.signed] if known.pulse is None else [known.pulse, known.signed]
    return signed


def _sends(node: NodeId, signed: Sequence[Signed[Message]]) -> list[Effect]:
    """In as many messages as it takes, pulses first: an advert that is older than a minute counts for nothing without one."""
    adverts: list[Signed[Advert]] = [each for each in signed if isinstance(each.body, Advert)]  # type: ignore[misc]
    pulses: list[Signed[Pulse]] = [each for each in signed if isinstance(each.body, Pulse)]  # type: ignore[misc]
    doubts: list[Signed[Suspicion]] = [each for each in signed if isinstance(each.body, Suspicion)]  # type: ignore[misc]
    sends: list[Effect] = []
    for at in range(0, max(len(pulses), len(doubts)), lim.RUMOURS_MAX):
        until = at + lim.RUMOURS_MAX
        sends.append(Send(node, Rumours(tuple(pulses[at:until]), tuple(doubts[at:until]))))
    for at in range(0, len(adverts), lim.ADVERTS_PER_PUSH_MAX):
        sends.append(Send(node, AdvertPush(tuple(adverts[at : at + lim.ADVERTS_PER_PUSH_MAX]))))
    return sends
