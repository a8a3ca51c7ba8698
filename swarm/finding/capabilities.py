"""Who can do what: the newest advert of each known node, indexed by skill, aged and bounded."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf

from protocol.identity import NodeId
from protocol.messages import Capability, SignedAdvert
from swarm.settings import Settings

FORGOTTEN_MAX = 1024  # Tombstones. Older ones fall out; by then their adverts have expired everywhere.


@dataclass(slots=True)
class Known:
    """What is known of one node: its newest advert, and until when to believe it."""

    signed: SignedAdvert
    heard_at: float
    expires_at: float


class CapabilityIndex:
    """Adverts by node and capabilities by skill. Walks are in the order of learning, newest last.

    This node's own advert is among them; it neither expires nor makes room for others.
    """

    def __init__(self, self_node: NodeId, settings: Settings) -> None:
        self._self, self._settings = self_node, settings
        self._known: dict[NodeId, Known] = {}
        self._by_skill: dict[str, dict[NodeId, Known]] = {}
        self._expiry: float = inf  # Nothing expires before; a sweep until then has nothing to do.
        self._forgotten: dict[NodeId, int] = {}  # Node to the newest version that must not come back.

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[Known]:
        return iter(self._known.values())

    def get(self, node: NodeId) -> Known | None:
        return self._known.get(node)

    def is_news(self, signed: SignedAdvert) -> bool:
        """Whether this advert says more than what is known. Cheap: asked before the signature is checked."""
        known = self._known.get(signed.issuer)
        if known is not None:
            return signed.issued_at_ms > known.signed.issued_at_ms
        return signed.issued_at_ms > self._forgotten.get(signed.issuer, -1)

    def learn(self, signed: SignedAdvert, now: float, first_hand: bool) -> None:
        """Take in an advert that is news and holds. `first_hand`: its issuer itself has just said so."""
        node = signed.issuer
        self._drop(node)
        # A rumour is believed for its lifetime from when it was issued, but never longer than from now on. Whoever speaks for
        # itself is here now: its clock may be wrong by more than a lifetime.
        lifetime_s = signed.lifetime_ms / 1000
        age_s = 0.0 if first_hand else min(max(0.0, now - signed.issued_at_ms / 1000), lifetime_s)
        known = self._known[node] = Known(signed, now, now + lifetime_s - age_s)
        self._expiry = min(self._expiry, known.expires_at)
        for capability in signed.advert.capabilities:
            nodes = self._by_skill.get(capability.skill)
            if nodes is None:
                nodes = self._by_skill[capability.skill] = {}
            nodes[node] = known
        self._forgotten.pop(node, None)
        if len(self._known) > self._settings.adverts_max:
            self._drop(next(other for other in self._known if other != self._self))

    def revive(self, node: NodeId) -> None:
        """The node itself has spoken: what was forgotten of it may be learned again."""
        self._forgotten.pop(node, None)

    def forget(self, node: NodeId) -> None:
        """Drop a node for good reason: only an advert newer than what is known brings it back."""
        known = self._known.get(node)
        if known is None:
            return
        self._drop(node)
        self._forgotten.pop(node, None)
        self._forgotten[node] = known.signed.issued_at_ms
        if len(self._forgotten) > FORGOTTEN_MAX:
            del self._forgotten[next(iter(self._forgotten))]

    def sweep(self, now: float) -> list[NodeId]:
        """Drops what has expired, and says who."""
        if now < self._expiry:
            return []
        expired = [node for node, known in self._known.items() if known.expires_at <= now and node != self._self]
        for node in expired:
            self.forget(node)
        self._expiry = min((known.expires_at for node, known in self._known.items() if node != self._self), default=inf)
        return expired

    def able(self, skill: str) -> list[tuple[Known, tuple[Capability, ...]]]:
        """Every known node that offers the skill, with the capabilities that do."""
        return [
            (known, tuple(offered for offered in known.signed.advert.capabilities if offered.skill == skill))
            for known in self._by_skill.get(skill, {}).values()
        ]

    def skills(self) -> list[str]:
        return sorted(self._by_skill)

    def freshest(self, skill: str, count: int) -> list[SignedAdvert]:
        """The adverts learned last, of those that offer the skill; the empty skill means any."""
        nodes = self._by_skill.get(skill, {}) if skill else self._known
        return [self._known[node].signed for node in list(nodes)[-count:]] if count else []

    def _drop(self, node: NodeId) -> None:
        known = self._known.pop(node, None)
        if known is None:
            return
        for capability in known.signed.advert.capabilities:
            nodes = self._by_skill.get(capability.skill)
            if nodes is not None and nodes.pop(node, None) is not None and not nodes:
                del self._by_skill[capability.skill]
