"""Which worker gets an attempt: everyone eligible is scored, a few are drawn at random, the best of them is taken.

Taking the best of all makes many requesters herd on one worker; the best of two drawn spreads them (Mitzenmacher 2001). What the
number of draws does where speeds differ widely is measured in herd.toml.
"""

from collections.abc import Iterable
from dataclasses import replace
from random import Random

from protocol.identity import NodeId
from protocol.messages import Capability
from swarm.choosing.scoring import score
from swarm.choosing.standing import Standings
from swarm.finding.capabilities import CapabilityIndex, Known
from swarm.finding.roster import Roster
from swarm.settings import Settings
from swarm.values import Candidate, Excluded, Privacy, Routing, Task

BYTES_PER_TOKEN_MAX = 6  # Text that needs more tokens than this suggests is for the worker to refuse: it counts exactly.


def eligible(
    task: Task, node: NodeId, known: Known, capabilities: tuple[Capability, ...], self_node: NodeId, tried: Iterable[NodeId]
) -> Capability | str:
    """The capability that would serve the task, or why this node may not be asked, in words."""
    if node in tried:
        return "already tried"
    if task.worker is not None and node != task.worker:
        return "another worker was asked for"
    if task.privacy is Privacy.LOCAL and node != self_node:
        return "the task may not leave this node"
    if known.signed.advert.draining:
        return "is about to stop"
    fitting = [capability for capability in capabilities if task.model in ("", capability.model)]
    if not fitting:
        return f"offers {capabilities[0].model}, not {task.model}"
    if task.begun_by is not None:
        fitting = [found for found in fitting if can_go_on(found, task.begun_by)]
        if not fitting:
            return "does not have the model that began this answer"
    bytes_in = sum(len(turn.text) for turn in task.turns)
    roomy = [found for found in fitting if bytes_in // BYTES_PER_TOKEN_MAX <= found.context_tokens]
    if not roomy:
        return f"context of {fitting[0].context_tokens} tokens is too short"
    return max(roomy, key=lambda found: found.tokens_per_second)


def can_go_on(capability: Capability, begun_by: Capability) -> bool:
    """Whether this model can go on with an answer that the other has begun: the same file, or the same by name and numerics."""
    if not capability.numerics:
        return False
    if begun_by.digest:
        return capability.digest == begun_by.digest
    return (capability.model, capability.numerics) == (begun_by.model, begun_by.numerics)


class Router:
    """Draws workers out of what the index, the roster and this node's own experience know."""

    def __init__(
        self, node: NodeId, settings: Settings, dice: Random, index: CapabilityIndex, roster: Roster, standings: Standings
    ) -> None:
        self._node, self._settings, self._dice = node, settings, dice
        self._index, self._roster, self._standings = index, roster, standings

    def route(self, task: Task, tried: Iterable[NodeId], now: float) -> Routing:
        """The decision for the next attempt of a task, with all reasons. Costs one draw of the dice."""
        routing = self.consider(task, tried, now)
        draws = self._settings.choosing_draws
        # Drawn by rank, so that the walk over the index does not matter.
        ranks = range(len(routing.candidates))
        drawn = sorted(self._dice.sample(ranks, draws)) if 0 < draws < len(ranks) else list(ranks)
        nodes = tuple(routing.candidates[rank].node for rank in drawn)
        return replace(routing, drawn=nodes, chosen=nodes[0] if nodes else None)

    def consider(self, task: Task, tried: Iterable[NodeId], now: float) -> Routing:
        """Who could do it, best first, and who not; nobody is drawn, so that looking changes no decision to come."""
        candidates: list[Candidate] = []
        excluded: list[Excluded] = []
        tried = list(tried)
        for known, capabilities in self._index.able(task.skill):
            node, advert = known.signed.issuer, known.signed.advert
            found = eligible(task, node, known, capabilities, self._node, tried)
            if isinstance(found, str):
                excluded.append(Excluded(node, advert.name, found))
                continue
            if node == self._node:
                rtt_s: float | None = 0.0
            else:
                neighbour = self._roster.get(node)
                rtt_s = neighbour.rtt_s if neighbour else None
            standing = self._standings.of(node, now)
            candidates.append(score(task, advert, found, node, rtt_s, standing, self._settings.tokens_expected))
        if task.begun_by is not None:
            # Who computes the same bits goes on exactly; others only if nobody does.
            alike = [found for found in candidates if found.capability.numerics == task.begun_by.numerics]  # type: ignore[union-attr]
            candidates = alike or candidates
        candidates.sort(key=lambda candidate: (candidate.cost_s, candidate.node))
        return Routing(tuple(candidates), (), None, tuple(excluded))
