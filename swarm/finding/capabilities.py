"""Who can do what: the newest advert and the newest sign of life of each known node, by skill, aged and bounded."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import inf

from protocol import limits as lim
from protocol.identity import NodeId
from protocol.messages import Advert, Message, Pulse, Signed
from protocol.parts import Capability
from swarm.finding.places import Crowd, place_of
from swarm.settings import Settings

FORGOTTEN_MAX = 1024  # Tombstones. Older ones fall out; by then their adverts have expired everywhere.
EARLY_MAX = 256  # Pulses of nodes whose advert has not come yet.
SOUGHT_MAX = 64  # Skills that this node's users have asked for; the oldest fall out.
TELLER_SHARES = 4  # Who has brought a quarter of all, or two or three, is the first whose go.
SPARE = 1 / 16  # Share of the room that is made at once, so that not every newcomer costs a look at everybody.
PRESENCE_S = lim.PRESENCE_MS / 1000


@dataclass(slots=True)
class Known:
    """What is known of one node. `advert` has the load of its newest sign of life; `signed` is as it was issued.

    `heard_at` is when that load came; the node is believed until `expires_at`.
    """

    signed: Signed[Advert]
    advert: Advert
    heard_at: float
    stated_until: float  # The advert's own lifetime.
    present_until: float  # The node's presence, which pulses prolong.
    pulse: Signed[Pulse] | None = None
    place: str = ""  # Where its first address is.
    teller: NodeId | None = None  # Who told of it first.

    @property
    def node(self) -> NodeId:
        return self.signed.issuer

    @property
    def version(self) -> int:
        """Of its newest sign of life."""
        return self.signed.issued_at_ms if self.pulse is None else self.pulse.issued_at_ms

    @property
    def expires_at(self) -> float:
        return min(self.stated_until, self.present_until)


class CapabilityIndex:
    """Adverts by node and capabilities by skill. Walks are in the order of learning, newest last.

    This node's own advert is among them; it neither expires nor makes room for others.
    """

    def __init__(
        self, self_node: NodeId, settings: Settings, keeps: Callable[[NodeId], bool] = lambda node: False
    ) -> None:
        """`keeps`: nodes that are worth more than a stranger, as long as there are strangers to drop."""
        self._self, self._settings, self._keeps = self_node, settings, keeps
        self._known: dict[NodeId, Known] = {}
        self._by_skill: dict[str, dict[NodeId, Known]] = {}
        self._early: dict[NodeId, tuple[Signed[Pulse], float]] = {}  # And until when its node is present.
        self._crowd = Crowd()
        self._sought: dict[str, None] = {}
        self._expiry: float = inf  # Nothing expires before; a sweep until then has nothing to do.
        self._forgotten: dict[NodeId, int] = {}  # Node to the newest version that must not come back.
        self._silent: dict[NodeId, None] = {}  # Of these, of whom nothing was heard any more, which in a large swarm means little.

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[Known]:
        return iter(self._known.values())

    def __contains__(self, node: NodeId) -> bool:
        return node in self._known

    def get(self, node: NodeId) -> Known | None:
        return self._known.get(node)

    @property
    def room(self) -> int:
        """How many more nodes fit without dropping one."""
        return max(0, self._settings.adverts_max - len(self._known))

    def version(self, node: NodeId) -> int:
        """Of the newest sign of life that was seen of a node, dead or alive; 0 for a stranger."""
        known = self._known.get(node)
        return known.version if known is not None else self._forgotten.get(node, 0)

    def is_gone(self, node: NodeId, since: float) -> bool:
        """Whether a node was last alive after this time and was then said, or seen, to go."""
        return self._forgotten.get(node, 0) > since * 1000 and node not in self._silent

    def is_news(self, signed: Signed[Advert]) -> bool:
        """Whether this advert says more than what is known. Cheap: asked before the signature is checked."""
        known = self._known.get(signed.issuer)
        if known is not None:
            return signed.issued_at_ms > known.signed.issued_at_ms
        if self._crowd.is_full(signed.body.addresses) and not self._keeps(signed.issuer):
            return False
        return signed.issued_at_ms > self._forgotten.get(signed.issuer, -1)

    def is_newer(self, pulse: Signed[Pulse]) -> bool:
        """Whether this is the newest sign of life of its issuer."""
        known, early = self._known.get(pulse.issuer), self._early.get(pulse.issuer)
        if known is not None:
            return pulse.issued_at_ms > known.version
        seen = self._forgotten.get(pulse.issuer, -1) if early is None else early[0].issued_at_ms
        return pulse.issued_at_ms > seen

    def learn(self, signed: Signed[Advert], now: float, first_hand: bool, teller: NodeId | None = None) -> None:
        """Take in an advert that is news and holds. `first_hand`: its issuer itself has just said so."""
        node = signed.issuer
        before = self._drop(node)
        stated_until = _until(signed, signed.lifetime_ms / 1000, now, first_hand)
        present_until = _until(signed, min(PRESENCE_S, signed.lifetime_ms / 1000), now, first_hand)
        known = self._known[node] = Known(signed, signed.body, now, stated_until, present_until)
        known.place, known.teller = place_of(signed.body.addresses), teller if before is None else before.teller
        early, until = self._early.pop(node, (None, 0.0))
        if early is None and before is not None:
            early, until = before.pulse, before.present_until
        if early is not None and early.issued_at_ms > signed.issued_at_ms:
            _beat(known, early, now, until)
        self._crowd.add(signed.body.addresses)
        self._expiry = min(self._expiry, known.expires_at)
        for capability in signed.body.capabilities:
            nodes = self._by_skill.get(capability.skill)
            if nodes is None:
                nodes = self._by_skill[capability.skill] = {}
            nodes[node] = known
        self.revive(node)
        if len(self._known) > self._settings.adverts_max:
            self._make_room()

    def beat(self, pulse: Signed[Pulse], now: float, first_hand: bool) -> bool:
        """Take in a pulse that is the newest and holds. False: the advert that it speaks of has not come yet."""
        node = pulse.issuer
        until = _until(pulse, min(PRESENCE_S, pulse.lifetime_ms / 1000), now, first_hand)
        self.revive(node)
        known = self._known.get(node)
        if known is None:
            self._early[node] = (pulse, until)
            if len(self._early) > EARLY_MAX:
                del self._early[next(iter(self._early))]
            return False
        _beat(known, pulse, now, until)
        if first_hand:
            known.stated_until = max(known.stated_until, until)
        return pulse.body.card <= known.signed.issued_at_ms

    def revive(self, node: NodeId) -> None:
        """The node itself has spoken: what was forgotten of it may be learned again."""
        self._forgotten.pop(node, None)
        self._silent.pop(node, None)

    def forget(self, node: NodeId, version: int = 0) -> None:
        """Drop a node for good reason: only a sign of life newer than what is known, and than `version`, brings it back."""
        known = self._drop(node)
        self._early.pop(node, None)
        self._silent.pop(node, None)
        version = max(version, known.version if known is not None else 0, self._forgotten.pop(node, 0))
        if version == 0:
            return
        self._forgotten[node] = version
        if len(self._forgotten) > FORGOTTEN_MAX:
            oldest = next(iter(self._forgotten))
            del self._forgotten[oldest]
            self._silent.pop(oldest, None)

    def sweep(self, now: float) -> list[NodeId]:
        """Drops what has expired, and says who."""
        if now < self._expiry:
            return []
        expired = [node for node, known in self._known.items() if known.expires_at <= now and node != self._self]
        for node in expired:
            self.forget(node)
            self._silent[node] = None
        self._expiry = min((known.expires_at for node, known in self._known.items() if node != self._self), default=inf)
        return expired

    def seek(self, skill: str) -> None:
        """A user of this node has asked for a skill: from now on those who have it are worth more than others, if they are few."""
        self._sought.pop(skill, None)
        self._sought[skill] = None
        if len(self._sought) > SOUGHT_MAX:
            del self._sought[next(iter(self._sought))]

    def able(self, skill: str) -> list[tuple[Known, tuple[Capability, ...]]]:
        """Every known node that offers the skill, with the capabilities that do."""
        return [
            (known, tuple(offered for offered in known.advert.capabilities if offered.skill == skill))
            for known in self._by_skill.get(skill, {}).values()
        ]

    def skills(self) -> list[str]:
        return sorted(self._by_skill)

    def freshest(self, skill: str, count: int) -> list[Known]:
        """Those learned last, of those that offer the skill; the empty skill means any."""
        nodes = self._by_skill.get(skill, {}) if skill else self._known
        return [self._known[node] for node in list(nodes)[-count:]] if count else []

    def _drop(self, node: NodeId) -> Known | None:
        known = self._known.pop(node, None)
        if known is None:
            return None
        self._crowd.remove(known.advert.addresses)
        for capability in known.advert.capabilities:
            nodes = self._by_skill.get(capability.skill)
            if nodes is not None and nodes.pop(node, None) is not None and not nodes:
                del self._by_skill[capability.skill]
        return known

    def _make_room(self) -> None:
        """Drop some of those of whom there are most: a skill that is sought and that few have stays, and neither one teller nor
        one place crowds out the others.

        What nobody here has sought may be rare because it was made up: it counts for less than who has brought it. Who is worth
        keeping goes last. Among equals the one learned first goes.
        """
        places: dict[str, int] = {}
        tellers: dict[NodeId | None, int] = {}
        for known in self._known.values():
            places[known.place] = places.get(known.place, 0) + 1
            tellers[known.teller] = tellers.get(known.teller, 0) + 1
        count, keeps = len(self._known), self._keeps
        have = {skill: len(nodes) for skill, nodes in self._by_skill.items()}
        sought = {skill: nodes for skill, nodes in have.items() if skill in self._sought}

        def dispensable(known: Known) -> tuple[bool, int, int, int, int]:
            skills = [capability.skill for capability in known.advert.capabilities]
            wanted = min([sought.get(skill, count) for skill in skills], default=count)
            rarest = min([have[skill] for skill in skills], default=count)
            brought = TELLER_SHARES * tellers[known.teller] // count
            return not keeps(known.signed.issuer), wanted, brought, rarest, places[known.place]

        others = [known for known in self._known.values() if known.node != self._self]
        surplus = len(self._known) - self._settings.adverts_max + int(SPARE * self._settings.adverts_max)
        for known in sorted(others, key=dispensable, reverse=True)[:surplus]:
            self._drop(known.node)


def _until(signed: Signed[Message], lifetime_s: float, now: float, first_hand: bool) -> float:
    """Until when to believe it. A rumour is believed for its lifetime from when it was issued, but never longer than from now on.

    Whoever speaks for itself is here now: its clock may be wrong by more than a lifetime.
    """
    age_s = 0.0 if first_hand else min(max(0.0, now - signed.issued_at_ms / 1000), lifetime_s)
    return now + lifetime_s - age_s


def _beat(known: Known, pulse: Signed[Pulse], now: float, until: float) -> None:
    told, before = pulse.body, known.advert
    if (told.busy, told.queued, told.draining) != (before.busy, before.queued, before.draining):
        known.advert = replace(before, busy=told.busy, queued=told.queued, draining=told.draining)
    known.pulse, known.heard_at, known.present_until = pulse, now, until
