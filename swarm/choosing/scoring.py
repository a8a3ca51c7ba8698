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
BYTES_PER_TOKEN = 4  # Of an input, as most tokenizers cut most texts.
STRANGER_COST = 1.25  # Of a worker never seen to answer, beside some that were: a claim is worth less than a proof.
UNSEEN = Standing()


@dataclass(frozen=True, slots=True)
class Best:
    """The best that this node has really seen of any worker: no stranger's claim is believed beyond it.

    Reading is not seen by itself: `tokens_in_per_second` is the best claim of a worker that has answered.
    """

    first_token_s: float = 0.0
    tokens_per_second: float = float("inf")
    tokens_in_per_second: float = float("inf")


NOTHING_SEEN = Best()


def promised_s(capability: Capability, tokens: int) -> float:
    """How long an answer of so many tokens takes by a worker's own word; who gives none may be as fast as anybody."""
    speed = capability.tokens_per_second or float("inf")
    return capability.first_token_ms / 1000 + tokens / speed


def score(
    task: Task, advert: Advert, capability: Capability, node: bytes, rtt_s: float | None, standing: Standing | None,
    tokens_expected: int, *, heard_at: float = 0.0, now: float = 0.0, best: Best = NOTHING_SEEN, held: float = 0.0,
    told: float = 0.0, bytes_in: int = 0, fades_s: float = float("inf"),
) -> Candidate:  # fmt: skip
    """The candidate with its cost: `(rtt + first token + reading + tokens / speed) * (1 + load) / success`.

    Speeds are what this node has seen, fading with `fades_s` into what the worker claims; of claims only as much is believed as
    they held before (trust), and never more than the `best` that was seen of anybody. Load is the larger of what the worker has
    told, brought up to date with what this node has placed and seen end since, and of what this node has under way there, by how
    many times faster all slots are than one. Peak EWMA times pending, as in Finagle and Linkerd.

    Of the `bytes_in` of input the worker holds a share, `held` as this node knows and `told` as it says. How fast it reads the rest
    is its claim as well: what it takes longer than that is remembered as its time to a first token, so that no lie lasts.
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
    if not capability.tokens_in_per_second:
        first_s *= 1 - PREFIX_SAVES * held  # The time to read is a part of it, and nobody knows which.
    speed = claimed_speed
    if seen.tokens_per_second is not None:
        # Blended as times for one token, because that is what a user waits for.
        speed = 1 / (1 / claimed_speed + fresh * (1 / seen.tokens_per_second - 1 / claimed_speed))
    if seen.is_stranger and best is not NOTHING_SEEN:
        told = 0.0
    held = max(held, told)
    reading_speed = min(capability.tokens_in_per_second, best.tokens_in_per_second)
    reading_s = bytes_in / BYTES_PER_TOKEN / reading_speed * (1 - PREFIX_SAVES * held) if reading_speed else 0.0
    tokens = min(task.tokens_max, tokens_expected)
    waiting = seen.waiting(advert.busy + advert.queued, heard_at, now)
    slots = max(1, capability.slots)
    terms = Terms(
        distance_s, first_s, seen.first_token_s is not None, speed, waiting, slots, seen.success, trust, held, reading_s,
        capability.parallel,
    )  # fmt: skip
    cost_s = (distance_s + first_s + reading_s + tokens / speed) * terms.delay(waiting) / seen.success
    if seen.is_stranger and best is not NOTHING_SEEN:
        cost_s *= STRANGER_COST
    return Candidate(node, advert.name, capability.model, cost_s, terms, capability)  # type: ignore[arg-type]
