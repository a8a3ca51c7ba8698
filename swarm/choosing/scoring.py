"""What a worker would cost a task, in seconds of waiting, with named parts. Pure functions over values."""

from dataclasses import dataclass

from protocol.messages import Advert
from protocol.parts import Capability
from swarm.choosing.standing import Standing
from swarm.values import Candidate, Task, Terms

RTT_UNKNOWN_S = 0.05  # A peer that was never pinged: a typical internet round trip.
SPEED_UNKNOWN = 10.0  # Tokens per second of a worker that claims none, such as a classifier.
PREFIX_SAVES = (
    0.9  # Of the time to the first token, where the whole input is held: the last token is computed in any case.
)
STRANGER_COST = 1.25  # Of a worker never seen to answer, beside some that were: a claim is worth less than a proof.
UNSEEN = Standing()


@dataclass(frozen=True, slots=True)
class Best:
    """The best that this node has really seen of any worker: no stranger's claim is believed beyond it."""

    first_token_s: float = 0.0
    tokens_per_second: float = float("inf")


NOTHING_SEEN = Best()


def promised_s(capability: Capability, tokens: int) -> float:
    """How long an answer of so many tokens takes by a worker's own word; who gives none may be as fast as anybody."""
    speed = capability.tokens_per_second or float("inf")
    return capability.first_token_ms / 1000 + tokens / speed


def score(
    task: Task, advert: Advert, capability: Capability, node: bytes, rtt_s: float | None, standing: Standing | None,
    tokens_expected: int, *, heard_at: float = 0.0, now: float = 0.0, best: Best = NOTHING_SEEN, held: float = 0.0,
    fades_s: float = float("inf"),
) -> Candidate:  # fmt: skip
    """The candidate with its cost: `(rtt + first token + tokens / speed) * (1 + load) / success`.

    Speeds are what this node has seen, fading with `fades_s` into what the worker claims; of claims only as much is believed as
    they held before (trust), and never more than the `best` that was seen of anybody. Load is the larger of what the worker has
    told, brought up to date with what this node has placed and seen end since, and of what this node has under way there, per
    slot. `held` is the share of the input that the worker holds already. Peak EWMA times pending, as in Finagle and Linkerd.
    """
    seen = standing or UNSEEN
    distance_s = RTT_UNKNOWN_S if rtt_s is None else rtt_s
    trust = seen.trust
    claimed_first_s = max(capability.first_token_ms / 1000, best.first_token_s)
    claimed_speed = min((capability.tokens_per_second or SPEED_UNKNOWN) * trust, best.tokens_per_second)
    fresh = seen.freshness(now, fades_s)
    first_s = claimed_first_s
    if seen.first_token_s is not None:
        first_s += fresh * (seen.first_token_s - first_s)
    speed = claimed_speed
    if seen.tokens_per_second is not None:
        # Blended as times for one token, because that is what a user waits for.
        speed = 1 / (1 / claimed_speed + fresh * (1 / seen.tokens_per_second - 1 / claimed_speed))
    first_s *= 1 - PREFIX_SAVES * held
    tokens = min(task.tokens_max, tokens_expected)
    waiting = seen.waiting(advert.busy + advert.queued, heard_at, now)
    slots = max(1, capability.slots)
    terms = Terms(distance_s, first_s, seen.first_token_s is not None, speed, waiting, slots, seen.success, trust, held)
    cost_s = (distance_s + first_s + tokens / speed) * terms.delay(waiting) / seen.success
    if seen.is_stranger and best is not NOTHING_SEEN:
        cost_s *= STRANGER_COST
    return Candidate(node, advert.name, capability.model, cost_s, terms, capability)  # type: ignore[arg-type]
