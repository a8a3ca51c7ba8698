"""What a worker would cost a task, in seconds of waiting, with named parts. Pure functions over values."""

from protocol.messages import Advert, Capability
from swarm.choosing.standing import Standing
from swarm.values import Candidate, Task

RTT_UNKNOWN_S = 0.05  # A peer that was never pinged: a typical internet round trip.
SPEED_UNKNOWN = 10.0  # Tokens per second of a worker that claims none, such as a classifier.


def score(
    task: Task, advert: Advert, capability: Capability, node: bytes, rtt_s: float | None, standing: Standing | None,
    tokens_expected: int,
) -> Candidate:  # fmt: skip
    """The candidate with its cost: `(rtt + first token + tokens / speed) * (1 + load) / success`.

    Speeds are what this node has seen, or what the worker claims as long as it has seen none. Load is the larger of what the
    worker reports and what this node has under way there, per slot. Peak EWMA times pending, as in Finagle and Linkerd.
    """
    seen = standing or Standing()
    distance_s = RTT_UNKNOWN_S if rtt_s is None else rtt_s
    first_s = capability.first_token_ms / 1000 if seen.first_token_s is None else seen.first_token_s
    speed = seen.tokens_per_second or capability.tokens_per_second or SPEED_UNKNOWN
    tokens = min(task.tokens_max, tokens_expected)
    waiting = max(advert.busy + advert.queued, seen.inflight)
    slots = max(1, capability.slots)
    cost_s = (distance_s + first_s + tokens / speed) * (1 + waiting / slots) / seen.success
    source = "claimed" if standing is None or standing.first_token_s is None else "seen"
    parts = (
        ("distance", f"{distance_s * 1000:.0f} ms"),
        ("first token", f"{first_s * 1000:.0f} ms {source}"),
        ("speed", f"{speed:.0f} tok/s"),
        ("load", f"{waiting}/{slots}"),
        ("success", f"{seen.success:.2f}"),
    )
    return Candidate(node, advert.name, capability.model, cost_s, parts, capability)  # type: ignore[arg-type]
