"""Which worker gets an attempt: everyone eligible is scored, a few are drawn, the likelier the cheaper, the best of them is taken.

Taking the best of all makes many requesters herd on one worker; drawing two among all of them (Mitzenmacher 2001) finds two slow
ones where speeds differ widely. Draws weighted by cost do neither: what they are worth is measured in herd.toml.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache
from random import Random

from protocol.identity import NodeId
from protocol.parts import Capability
from protocol.prefixes import prefix_of
from swarm.choosing.affinity import Affinity
from swarm.choosing.scoring import NOTHING_SEEN, STRANGER_COST, Best, promised_s, score
from swarm.choosing.standing import Standing, Standings
from swarm.finding.capabilities import CapabilityIndex, Known
from swarm.finding.places import place_of, public_place
from swarm.finding.roster import Roster
from swarm.settings import Settings
from swarm.values import Candidate, Excluded, Privacy, Routing, Task

SEEN_MIN = 5  # Workers; the best of fewer may be slow, and would make everybody look as slow.
WORTH_TRYING = 1.25  # A stranger that claims to take so many times as long as the best that was seen may be that good itself.
STRANGERS_DRAWN = 4  # When one is tried on purpose; the best of them by their claims is taken.
PER_PLACE_MAX = 2  # Of these from one /24: a thousand identities in one place are one stranger.
WEIGHT_MIN = 1e-3  # Whoever is that unlikely is not drawn at all.
BYTES_PER_TOKEN_MAX = (
    6  # Text that needs more tokens than this suggests is for the worker to refuse: it counts exactly.
)


@dataclass(frozen=True, slots=True)
class Needs:
    """What a task needs of a capability, worked out once for all workers: texts are long, and workers many."""

    demanded: frozenset[str]  # Features.
    bytes_in: int

    @classmethod
    def of(cls, task: Task) -> "Needs":
        return cls(task.demands.features, task.bytes_in)

    @property
    def tokens(self) -> int:
        """At least, for its input."""
        return self.bytes_in // BYTES_PER_TOKEN_MAX


@dataclass(frozen=True, slots=True)
class Unfit:
    """Why a node may not be asked, in words. Else as in `Excluded`."""

    reason: str
    context_tokens: int = 0
    passes: bool = False


def eligible(
    task: Task,
    needs: Needs,
    node: NodeId,
    known: Known,
    capabilities: tuple[Capability, ...],
    self_node: NodeId,
    tried: Iterable[NodeId],
) -> Capability | Unfit:
    """The capability that would serve the task, or why this node may not be asked."""
    if node in tried:
        return Unfit("already tried")
    if task.worker is not None and node != task.worker:
        return Unfit("another worker was asked for")
    if task.privacy is Privacy.LOCAL and node != self_node:
        return Unfit("the task may not leave this node")
    if known.advert.draining and node != self_node:
        return Unfit("takes no more work", passes=True)
    fitting = [capability for capability in capabilities if task.model in ("", capability.model)]
    if not fitting:
        return Unfit(f"offers {capabilities[0].model}, not {task.model}")
    honouring = [capability for capability in fitting if needs.demanded.issubset(capability.features)]
    if not honouring:
        return Unfit(f"cannot do {', '.join(sorted(needs.demanded.difference(fitting[0].features)))}")
    fitting = honouring
    if task.begun_by is not None:
        fitting = [found for found in fitting if can_go_on(found, task.begun_by)]
        if not fitting:
            return Unfit("does not have the model that began this answer")
    roomy = [found for found in fitting if needs.tokens <= found.context_tokens]
    if not roomy:
        return Unfit(f"context of {fitting[0].context_tokens} tokens is too short", max(found.context_tokens for found in fitting))
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
        self,
        node: NodeId,
        settings: Settings,
        dice: Random,
        index: CapabilityIndex,
        roster: Roster,
        standings: Standings,
    ) -> None:
        self._node, self._settings, self._dice = node, settings, dice
        self._index, self._roster, self._standings = index, roster, standings
        self._affinity = Affinity()

    def route(self, task: Task, tried: Iterable[NodeId], now: float) -> Routing:
        """The decision for the next attempt of a task, with all reasons."""
        routing = self.consider(task, tried, now)
        if not routing.candidates:
            return routing
        explored = self._strangers(task, routing.candidates)
        drawn = explored or self._drawn(routing.candidates)
        nodes = tuple(found.node for found in drawn)
        return replace(routing, drawn=nodes, chosen=nodes[0], explored=bool(explored))

    def remember(self, task: Task, answer: str, worker: NodeId, now: float) -> None:
        """A worker has answered a turn of a conversation: the next turn is cheaper there."""
        self._affinity.remember(task, answer, worker, now)

    def consider(self, task: Task, tried: Iterable[NodeId], now: float) -> Routing:
        """Who could do it, best first, and who not; nobody is drawn, so that looking changes no decision to come."""
        eligible_now: list[tuple[Known, Capability, Standing | None]] = []
        missed: list[tuple[Known, Capability, Standing | None, str]] = []
        excluded: list[Excluded] = []
        unmet: dict[str, int] = {}
        tried = list(tried)
        needs = Needs.of(task)
        for known, capabilities in self._index.able(task.skill):
            node, advert = known.node, known.advert
            found = eligible(task, needs, node, known, capabilities, self._node, tried)
            standing = self._standings.of(node, now)
            shut_out = standing.shut_out(now) if standing is not None and task.worker is None else ""
            if shut_out and not isinstance(found, Unfit) and node != self._node:
                found = Unfit(shut_out, passes=True)
            if not isinstance(found, Unfit) and task.worker is None and self._is_unmet(node, standing):
                place = public_place(advert.addresses)
                unmet[place] = unmet.get(place, 0) + 1
                if place and self._standings.is_shunned(place, now):
                    found = Unfit("others at its place have only failed", passes=True)
                elif place and unmet[place] > PER_PLACE_MAX:
                    found = Unfit("others at its place come first", passes=True)
            if isinstance(found, Unfit):
                excluded.append(Excluded(node, advert.name, found.reason, found.context_tokens, found.passes))
            elif task.worker is None and (shut_out or self._roster.is_missed(node)):
                missed.append((known, found, standing, shut_out or "gives no sign of life"))
            else:
                eligible_now.append((known, found, standing))
        if eligible_now:
            excluded += [Excluded(known.node, known.advert.name, why, passes=True) for known, _, _, why in missed]
        else:
            # They may only be slow; and this node's own models are asked rather than nobody.
            eligible_now = [(known, found, standing) for known, found, standing, _ in missed]
        if task.begun_by is not None:
            # Who computes the same bits goes on exactly; others only if nobody does.
            alike = [one for one in eligible_now if one[1].numerics == task.begun_by.numerics]
            eligible_now = alike or eligible_now
            # And one with less room than it was begun with may have to cut it short.
            roomy = [one for one in eligible_now if one[1].context_tokens >= task.begun_by.context_tokens]
            eligible_now = roomy or eligible_now
        best = _best((capability, standing) for _, capability, standing in eligible_now)
        held, told = self._affinity.held(task, now), _told(task, needs)
        candidates = [
            score(
                task, known.advert, capability, known.node, self._rtt_s(known.node), standing,
                self._settings.tokens_expected, heard_at=known.heard_at, now=now, best=best,
                held=held.get(known.node, 0.0), told=told(known, capability.model), bytes_in=needs.bytes_in,
                fades_s=self._settings.speed_tau_s,
            )
            for known, capability, standing in eligible_now
        ]  # fmt: skip
        candidates = self._doubted(candidates, now)
        candidates.sort(key=lambda candidate: (candidate.cost_s, candidate.node))
        return Routing(tuple(candidates), (), None, tuple(excluded))

    def _doubted(self, candidates: list[Candidate], now: float) -> list[Candidate]:
        """Where strangers fail, nobody who was never met looks better than the best of the others: adverts are free.

        If all are strangers, they look alike: whoever invents workers invents the best of all.
        """
        if not candidates or not self._standings.doubts_strangers:
            return candidates
        met: list[Candidate] = []
        unmet: list[Candidate] = []
        for found in candidates:
            (unmet if self._is_unmet(found.node, self._standings.of(found.node, now)) else met).append(found)
        costs_s = [found.cost_s for found in met or unmet]
        floor_s = STRANGER_COST * min(costs_s) if met else max(costs_s)
        return [*met, *(found if found.cost_s >= floor_s else replace(found, cost_s=floor_s) for found in unmet)]

    def _is_unmet(self, node: NodeId, standing: Standing | None) -> bool:
        """Whether all that is known of a node is what it, or somebody, says."""
        return node != self._node and node not in self._roster and (standing is None or standing.is_stranger)

    def _rtt_s(self, node: NodeId) -> float | None:
        if node == self._node:
            return 0.0
        neighbour = self._roster.get(node)
        return neighbour.rtt_s if neighbour else None

    def _drawn(self, candidates: tuple[Candidate, ...]) -> list[Candidate]:
        """So many at random, the likelier the cheaper, best first (Efraimidis and Spirakis 2006)."""
        draws = self._settings.choosing_draws
        if draws == 0:
            return list(candidates)
        best_s, focus, random = candidates[0].cost_s, self._settings.choosing_focus, self._dice.random
        keyed: list[tuple[float, int]] = []
        for rank, candidate in enumerate(candidates):
            weight = (best_s / candidate.cost_s) ** focus
            if weight < WEIGHT_MIN:
                break
            keyed.append((random() ** (1 / weight), rank))
        ranks = sorted(rank for _, rank in sorted(keyed, reverse=True)[:draws])
        return [candidates[rank] for rank in ranks]

    def _strangers(self, task: Task, candidates: tuple[Candidate, ...]) -> list[Candidate]:
        """Now and then a few workers of which nothing was seen, best first; else nobody.

        Only those that could be as good as the best that was seen, if their own word holds: the others could not be of use, and
        in spread.toml they cost one task in thirty. So the budget is spent less the fewer of them are left.
        """
        if task.worker is not None or self._dice.random() >= self._settings.exploration_share:
            return []
        tokens = min(task.tokens_max, self._settings.tokens_expected)
        seen = [found.terms for found in candidates if found.terms is not None and found.terms.seen]
        if not seen:
            return []  # Where all are strangers, any choice explores.
        limit_s = WORTH_TRYING * min(terms.first_token_s + tokens / terms.tokens_per_second for terms in seen)
        strangers = [
            found
            for found in candidates
            if found.terms is not None and not found.terms.seen and found.capability is not None
            and promised_s(found.capability, tokens) <= limit_s
        ]  # fmt: skip
        drawn: list[Candidate] = []
        places: dict[str, int] = {}
        for found in self._dice.sample(strangers, len(strangers)):
            known = self._index.get(found.node)
            place = place_of(known.advert.addresses) if known else ""
            places[place] = places.get(place, 0) + 1
            if places[place] <= PER_PLACE_MAX:
                drawn.append(found)
            if len(drawn) == STRANGERS_DRAWN:
                break
        return sorted(drawn, key=lambda found: found.cost_s)


def _best(workers: Iterable[tuple[Capability, Standing | None]]) -> Best:
    """The best that was seen of any of these workers, once there are some to compare with."""
    seen = [(offered, standing) for offered, standing in workers if standing is not None and standing.first_token_s is not None]
    if len(seen) < SEEN_MIN:
        return NOTHING_SEEN
    speeds = [standing.tokens_per_second for _, standing in seen if standing.tokens_per_second is not None]
    reading = max(offered.tokens_in_per_second for offered, _ in seen)
    return Best(
        min(standing.first_token_s for _, standing in seen if standing.first_token_s is not None),
        max(speeds, default=float("inf")),
        reading or float("inf"),
    )


def _told(task: Task, needs: Needs) -> Callable[[Known, str], float]:
    """Which share of the input a worker's model holds, as it says of itself."""

    @cache
    def prefix(model: str) -> tuple[bytes, int]:
        return prefix_of(model, task.turns, task.demands.tools)

    def share(known: Known, model: str) -> float:
        if not known.advert.prefixes:
            return 0.0
        digest, size = prefix(model)
        return size / needs.bytes_in if digest in known.advert.prefixes else 0.0

    return share
