"""Who is said to be dead: a node is dropped when it does not refute in time that others have lost their links with it.

After SWIM (Das et al., 2002) and Lifeguard (Dadgar et al., 2018): whoever was late itself, or has just lost most of its links, says
nothing; the suspect may refute; and who often suspects the living is not listened to for a while.
"""

from collections import deque
from collections.abc import Callable

from protocol import limits as lim
from protocol.identity import NodeId
from protocol.messages import Pulse, Signed, Suspicion
from swarm.finding.capabilities import PRESENCE_S, CapabilityIndex
from swarm.finding.issuing import Notary
from swarm.finding.places import is_public, public_place
from swarm.finding.roster import Roster

REFUTE_S = 3.0  # For the suspect to speak: a single accuser has perhaps only lost its own way there.
REFUTE_MANY_S = 1.0  # If several say so. A refutation takes about that long through the whole swarm; identities cost nothing.
ACCUSERS_MAX = 3  # Enough to tell others of; the rest say the same.
AHEAD_MS_MAX = lim.CLOCK_SKEW_MS_MAX // 4  # Of the clock: half of what a suspect can go ahead of its own, since clocks differ.
SUSPECTS_MAX = 256  # Remembered at once; the oldest fall out.
TIMER_S = 0.001  # Times are sums of floats.
REFUTED_S = 5.0  # A node that speaks so soon after it was suspected had never been away.
FALSE_MAX = 3  # So often a node may suspect the living,
FALSE_WINDOW_S = 600.0  # within this time, before it is not listened to.
LOSSES_S = 10.0  # A node that has lost most of its links within this time has lost its own connection.
LOSSES_MIN = 3  # Of fewer links "most" means nothing.
LOSSES_MAX = 64  # Remembered.


class _Suspect:
    """One node under suspicion: the newest version that its accusers had seen, and who they are, by place."""

    __slots__ = ("accusers", "at", "seen", "why")

    def __init__(self, why: Signed[Suspicion], at: float) -> None:
        self.why, self.seen, self.at = why, why.body.seen, at
        self.accusers: dict[str | NodeId, NodeId] = {}

    @property
    def refute_s(self) -> float:
        return REFUTE_S if len(self.accusers) == 1 else REFUTE_MANY_S


class Suspicions:
    """What this node and others suspect."""

    def __init__(
        self, node: NodeId, notary: Notary, index: CapabilityIndex, roster: Roster, heard_limit_s: Callable[[], float]
    ) -> None:
        """`heard_limit_s()`: a neighbour heard of within this time is alive, whatever others say."""
        self._node, self._notary, self._index, self._roster = node, notary, index, roster
        self._heard_limit_s = heard_limit_s
        self._suspects: dict[NodeId, _Suspect] = {}
        self._false: dict[NodeId, deque[float]] = {}
        self._losses: deque[float] = deque(maxlen=LOSSES_MAX)

    def lost(self, now: float) -> None:
        """A link has ended without a word."""
        self._losses.append(now)

    def suspect(self, node: NodeId, seen: int, now: float) -> Signed[Suspicion] | None:
        """This node's own word on a neighbour that it lost, if its word is worth anything now and the node has not come back."""
        if node in self._roster or self._index.version(node) > seen or seen == 0 or self._roster.excused(now):
            return None
        recent = sum(now - at <= LOSSES_S for at in self._losses)
        if recent >= LOSSES_MIN and recent > len(self._roster):
            return None
        signed = self._notary.sign(Suspicion(node, seen), PRESENCE_S, now)
        self._count(signed, now)
        return signed

    def is_news(self, signed: Signed[Suspicion], now: float) -> bool:
        """Whether to look at it at all: of a node that has not spoken since, by one that is known and has not cried wolf.

        Also of one that this node has dropped already, as others may not have.
        """
        node, accuser = signed.body.node, signed.issuer
        version = self._index.version(node)
        if not 0 < version <= signed.body.seen or accuser in (node, self._node):
            return False
        if signed.body.seen > max(version, self._clock_ms(node, now) + AHEAD_MS_MAX):
            return False  # The node could not say more than that.
        suspect = self._suspects.get(node)
        told = suspect.accusers if suspect is not None and suspect.seen >= version else {}
        if accuser in told.values() or len(told) >= ACCUSERS_MAX:
            return False
        return self._index.get(accuser) is not None and not self._cries_wolf(accuser, now)

    def _clock_ms(self, node: NodeId, now: float) -> float:
        """What a node's clock says now, as far as it can be told: that of what it said last has gone on since."""
        known = self._index.get(node)
        ahead_ms = known.version - known.heard_at * 1000 if known is not None else 0.0
        return now * 1000 + max(0.0, ahead_ms)

    def hear(self, signed: Signed[Suspicion], now: float) -> float:
        """Another node's word. Returns how long the suspect has now to refute it, in seconds."""
        suspect = self._count(signed, now)
        return max(0.0, suspect.at + suspect.refute_s - now)

    def overdue(self, now: float) -> list[tuple[NodeId, Signed[Suspicion]]]:
        """The nodes that did not refute in time what others have said of them, and what that was."""
        return [
            (node, suspect.why)
            for node, suspect in self._suspects.items()
            if now - suspect.at >= suspect.refute_s - TIMER_S
            and self._index.get(node) is not None
            and not self._is_alive(node, suspect, now)
        ]

    def why(self, node: NodeId, now: float) -> Signed[Suspicion] | None:
        """What others have said of a node that has not refuted it yet, as far as this node knows."""
        suspect = self._suspects.get(node)
        return None if suspect is None or self._is_alive(node, suspect, now) else suspect.why

    def latest(self, now: float, count: int) -> list[Signed[Suspicion]]:
        """The same of the nodes that were suspected last, and of some that are dropped by now."""
        whys = (self.why(node, now) for node in reversed(list(self._suspects)[-count:]))
        return [why for why in whys if why is not None and why.issued_at_ms + why.lifetime_ms > now * 1000]

    def is_near(self, node: NodeId, now: float) -> bool:
        """Whether this node has just heard from it over a link of its own."""
        silent_s = self._roster.silent_s(node, now)
        return silent_s is not None and silent_s <= self._heard_limit_s()

    def _is_alive(self, node: NodeId, suspect: _Suspect, now: float) -> bool:
        return self._index.version(node) > suspect.seen or self.is_near(node, now)

    def alive(self, pulse: Signed[Pulse], now: float) -> bool:
        """A sign of life: whether it refutes a suspicion, which others should know as well.

        Who has suspected in vain is remembered, unless the node was away and has begun anew.
        """
        suspect = self._suspects.get(pulse.issuer)
        if suspect is None or pulse.issued_at_ms <= suspect.seen:
            return False
        del self._suspects[pulse.issuer]
        if now - suspect.at > REFUTED_S or pulse.body.card > suspect.seen or pulse.body.leaving:
            return True
        for accuser in suspect.accusers.values():
            self._false.setdefault(accuser, deque(maxlen=FALSE_MAX)).append(now)
            if len(self._false) > SUSPECTS_MAX:
                del self._false[next(iter(self._false))]
        return True

    def _count(self, signed: Signed[Suspicion], now: float) -> _Suspect:
        node = signed.body.node
        suspect = self._suspects.get(node)
        if suspect is None or signed.body.seen > suspect.seen:
            self._suspects.pop(node, None)
            suspect = self._suspects[node] = _Suspect(signed, now)
            if len(self._suspects) > SUSPECTS_MAX:
                del self._suspects[next(iter(self._suspects))]
        suspect.accusers.setdefault(self._witness(signed.issuer), signed.issuer)
        return suspect

    def _witness(self, accuser: NodeId) -> str | NodeId:
        """A thousand identities on one network are one witness, and so are all that do not say where they are.

        At home everybody is on one network.
        """
        known, own = self._index.get(accuser), self._index.get(self._node)
        place = public_place(known.advert.addresses) if known is not None else ""
        return place or ("" if own is not None and is_public(own.advert.addresses) else accuser)

    def _cries_wolf(self, accuser: NodeId, now: float) -> bool:
        times = self._false.get(accuser)
        return times is not None and len(times) == FALSE_MAX and now - times[0] <= FALSE_WINDOW_S
