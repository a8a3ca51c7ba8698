"""Which prefixes this node's models have read and still hold: told to others only if several of them have sent the same."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from protocol.identity import NodeId
from protocol.messages import TaskRequest
from protocol.prefixes import prefix_of

REQUESTERS_MIN = 2  # What fewer have sent is theirs, and nobody's business: a digest lets others check a guess.


@dataclass(slots=True)
class _Held:
    """One model's memory. It has a place for each answer that it can write at a time, and the longest unused is taken first."""

    latest: list[bytes] = field(default_factory=list)  # Digests of what was read into the places; empty for all that has none.
    requesters: dict[bytes, set[NodeId]] = field(default_factory=dict)


class Prefixes:
    """What was begun here of late, model by model."""

    def __init__(self, node: NodeId) -> None:
        self._node = node
        self._models: dict[str, _Held] = {}

    def begun(self, requester: NodeId, request: TaskRequest, model: str, slots: int) -> None:
        """A model takes up a task. This node's own user counts for nobody: what he asks at home stays there."""
        held = self._models.setdefault(model, _Held())
        digest, _ = prefix_of(model, request.turns, request.demands.tools)
        if digest and digest in held.latest:
            held.latest.remove(digest)
        held.latest = [*held.latest, digest][-max(1, slots) :]
        if digest and requester != self._node:
            requesters = held.requesters.setdefault(digest, set())
            if len(requesters) < REQUESTERS_MIN:
                requesters.add(requester)
        held.requesters = {digest: nodes for digest, nodes in held.requesters.items() if digest in held.latest}

    def keep(self, models: Iterable[str]) -> None:
        """The other models are gone, or have left memory."""
        self._models = {model: held for model, held in self._models.items() if model in models}

    def shared(self) -> tuple[bytes, ...]:
        """What may be told, the latest of each model last."""
        return tuple(
            digest
            for held in self._models.values()
            for digest in held.latest
            if len(held.requesters.get(digest, ())) >= REQUESTERS_MIN
        )
