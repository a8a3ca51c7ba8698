"""What this node itself has seen of each worker, decaying. Nobody else's praise is heard."""

from dataclasses import dataclass, replace
from math import exp, exp2

from protocol.errors import ErrorCode
from protocol.identity import NodeId
from swarm.settings import Settings
from swarm.values import Usage

WORKERS_MAX = 4096  # Remembered at once; the longest unused are forgotten first. About 1 MB.
SAMPLES_MAX = 32  # Times to first text remembered of one worker, and of all together.
SAMPLES_MIN = 5  # A percentile of fewer says nothing.
SAMPLE_WEIGHT_MIN = 0.1  # A burst of answers still moves the average.


@dataclass(slots=True)
class Standing:
    """Of one worker: attempts under way from here, decayed counts of ends, smoothed speeds (None: never seen)."""

    inflight: int = 0
    successes: float = 0.0
    failures: float = 0.0
    first_token_s: float | None = None
    tokens_per_second: float | None = None
    as_of: float = 0.0
    first_pieces_s: tuple[float, ...] = ()

    @property
    def success(self) -> float:
        """The mean of Beta(1 + successes, 1 + failures)."""
        return (1 + self.successes) / (2 + self.successes + self.failures)


class Standings:
    """The standing of every worker that this node has used."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._workers: dict[NodeId, Standing] = {}
        self._first_pieces_s: tuple[float, ...] = ()  # Of all workers.

    def of(self, node: NodeId, now: float) -> Standing | None:
        """A worker's standing as it counts now: a worker that is never chosen must recover by itself, or it never will be."""
        standing = self._workers.get(node)
        if standing is None:
            return None
        kept = self._kept(standing, now)
        return replace(standing, successes=standing.successes * kept, failures=standing.failures * kept)

    def begun(self, node: NodeId, now: float) -> None:
        self._touch(node, now).inflight += 1

    def answered(self, node: NodeId, usage: Usage, first_piece_s: float, now: float) -> None:
        """An attempt ended well; `first_piece_s` is what this node measured from its own request."""
        standing = self._touch(node, now)
        standing.inflight = max(0, standing.inflight - 1)
        self._decay(standing, now)
        standing.successes += 1
        weight = max(SAMPLE_WEIGHT_MIN, 1 - exp(-(now - standing.as_of) / self._settings.speed_tau_s))
        standing.first_pieces_s = (*standing.first_pieces_s[1 - SAMPLES_MAX :], first_piece_s)
        self._first_pieces_s = (*self._first_pieces_s[1 - SAMPLES_MAX :], first_piece_s)
        old = standing.first_token_s
        # Peak EWMA: worse is believed at once, better only slowly.
        standing.first_token_s = (
            first_piece_s if old is None or first_piece_s > old else old + weight * (first_piece_s - old)
        )
        writing_s = usage.total_s - usage.first_token_s
        if usage.tokens_out > 1 and writing_s > 0:
            speed = (usage.tokens_out - 1) / writing_s
            known = standing.tokens_per_second
            standing.tokens_per_second = speed if known is None else known + weight * (speed - known)
        standing.as_of = now

    def first_piece_p95(self, node: NodeId, now: float) -> float | None:
        """How long this worker takes from request to first text in all but one of twenty cases, or all workers do."""
        standing = self._workers.get(node)
        if standing is not None and len(standing.first_pieces_s) >= SAMPLES_MIN:
            return _p95(standing.first_pieces_s)
        return _p95(self._first_pieces_s) if len(self._first_pieces_s) >= 2 * SAMPLES_MIN else None

    def ended(self, node: NodeId, code: ErrorCode, blamed: bool, now: float) -> None:
        """An attempt ended otherwise. Refusals and cancels are not failures; nor is what our own lateness explains."""
        standing = self._touch(node, now)
        standing.inflight = max(0, standing.inflight - 1)
        if blamed and not code.definite:
            self._decay(standing, now)
            standing.failures += 1
            standing.as_of = now

    def _touch(self, node: NodeId, now: float) -> Standing:
        standing = self._workers.pop(node, None) or Standing(as_of=now)
        self._workers[node] = standing
        if len(self._workers) > WORKERS_MAX:
            del self._workers[next(iter(self._workers))]
        return standing

    def _decay(self, standing: Standing, now: float) -> None:
        kept = self._kept(standing, now)
        standing.successes *= kept
        standing.failures *= kept

    def _kept(self, standing: Standing, now: float) -> float:
        return exp2((standing.as_of - now) / self._settings.success_half_life_s)


def _p95(samples: tuple[float, ...]) -> float:
    return sorted(samples)[min(len(samples) - 1, round(0.95 * len(samples)))]
