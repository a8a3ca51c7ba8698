"""What this node itself has seen of each worker, decaying. Nobody else's praise is heard."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import exp, exp2

from protocol import errors
from protocol.errors import ErrorCode
from protocol.identity import NodeId
from swarm.settings import Settings
from swarm.values import Usage

WORKERS_MAX = 4096  # Remembered at once; the longest unused are forgotten first. About 2 MB.
SAMPLES_MAX = 32  # Times to first text remembered of one worker, and of all together.
SAMPLES_MIN = 5  # A percentile of fewer says nothing.
SAMPLE_WEIGHT_MIN = 0.1  # A burst of answers still moves the average.
FAILURE_WEIGHT = 4.0  # One failure costs its user more than one success is worth.
PRIOR_SUCCESSES, PRIOR_FAILURES = 4.0, 0.2  # With 1 and 1, whoever is known beats strangers who are 1.8 times as fast.
TOKENS_MIN = 8  # Shorter answers tell little of a speed: they come in one or two pieces.
TRUST_WEIGHT = 0.3  # Of one answer, in how far a worker's claims hold.
TRUST_MIN = 0.01
PLACED_MAX = 8  # Latest requests remembered; more at once are in flight, and counted there.
AHEAD_S = 1.0  # How long a queue that a worker has told of is taken for what it was; adverts tell the rest.
STRANGER_DOUBLINGS = 4  # Of the breaker's wait, for a worker that has never kept a promise: 8 minutes instead of 30 s.
PLACE_FAILURES = 2  # Strangers at one public place that failed, and the others there are left alone as well,
PLACE_WAIT_S = 600.0  # for so long.
PLACES_MAX = 1024  # Remembered.
LUCK_WEIGHT = 0.3  # Of one stranger, in how far strangers are believed.
LUCK_MIN = 0.5  # Two in a row that fail are enough for doubt.
FAILURES_IN_ROW = 2  # Open the breaker of a worker that has answered before; one failure that of one that never has.


@dataclass(slots=True)
class Standing:
    """Of one worker: attempts under way from here, decayed counts of ends, smoothed speeds (None: never seen).

    `trust` is how far its claims of speed have held, 1 at most. `open_until` is when its breaker lets a trial through.
    """

    inflight: int = 0
    successes: float = 0.0
    failures: float = 0.0
    first_token_s: float | None = None
    tokens_per_second: float | None = None
    as_of: float = 0.0
    trust: float = 1.0
    first_pieces_s: tuple[float, ...] = ()
    answered_at: float = 0.0
    placed_at: tuple[float, ...] = ()
    ended_at: tuple[float, ...] = ()
    ahead: int = 0
    ahead_heard_at: float = float("-inf")
    failures_in_row: int = 0
    failed_at: float = float("-inf")  # When the last of them was.
    open_until: float = 0.0
    place: str = ""  # The public place that it was reached at, if it was at one.

    @property
    def success(self) -> float:
        """The mean of Beta(4 + successes, 0.2 + 4 failures): nearly everybody is honest, and whoever is not soon has failures."""
        good, bad = PRIOR_SUCCESSES + self.successes, PRIOR_FAILURES + FAILURE_WEIGHT * self.failures
        return good / (good + bad)

    @property
    def is_stranger(self) -> bool:
        """Whether it has never answered here."""
        return self.first_token_s is None

    def freshness(self, now: float, fades_s: float) -> float:
        """How much what was seen still counts, from 1 to 0: whoever was slow then may be fast by now."""
        return exp((self.answered_at - now) / fades_s) if now > self.answered_at else 1.0

    def waiting(self, told: int, then: float, now: float) -> int:
        """How many attempts are there now: as the worker told it then, and what this node has placed and seen end since."""
        since = sum(at > then for at in self.placed_at) - sum(at > then for at in self.ended_at)
        just_told = self.ahead if then < self.ahead_heard_at and now - self.ahead_heard_at <= AHEAD_S else 0
        return max(told + since, self.inflight, just_told)

    def shut_out(self, now: float) -> str:
        """Why the breaker keeps it from work now, in words; empty if it does not."""
        if not self.open_until:
            return ""
        if now < self.open_until:
            return f"failed {self.failures_in_row} times in a row; tried again in {self.open_until - now:.0f} s"
        return "is being tried again after failures" if self.inflight else ""


class Standings:
    """The standing of every worker that this node has used."""

    def __init__(self, settings: Settings, place_of: Callable[[NodeId], str] = lambda node: "") -> None:
        """`place_of`: the public place of a node that is about to be used, empty for one at home."""
        self._settings, self._place_of = settings, place_of
        self._places: dict[str, tuple[int, float]] = {}  # Place to strangers that failed there, and until when it is left alone.
        self._workers: dict[NodeId, Standing] = {}
        self._first_pieces_s: tuple[float, ...] = ()  # Of all workers.
        self._luck = 1.0  # With strangers, of late.

    def __len__(self) -> int:
        return len(self._workers)

    def __contains__(self, node: NodeId) -> bool:
        return node in self._workers

    def of(self, node: NodeId, now: float) -> Standing | None:
        """A worker's standing as it counts now: a worker that is never chosen must recover by itself, or it never will be."""
        standing = self._workers.get(node)
        if standing is None or standing.as_of >= now:
            return standing
        kept = self._kept(standing, now)
        return replace(
            standing,
            successes=standing.successes * kept,
            failures=standing.failures * kept,
            trust=1 - (1 - standing.trust) * kept,
        )

    def begun(self, node: NodeId, now: float) -> None:
        standing = self._touch(node, now)
        standing.inflight += 1
        standing.place = self._place_of(node)
        standing.placed_at = (*standing.placed_at[1 - PLACED_MAX :], now)

    def accepted(self, node: NodeId, ahead: int, now: float) -> None:
        """A worker has said how many attempts it has before this one."""
        standing = self._touch(node, now)
        standing.ahead, standing.ahead_heard_at = ahead, now

    def answered(
        self, node: NodeId, usage: Usage, first_piece_s: float, now: float, accepted_s: float = 0.0, ahead: int = 0,
        claimed_speed: float = 0.0, reading_s: float = 0.0, shared: float = 1.0,
    ) -> None:  # fmt: skip
        """An attempt ended well. `first_piece_s` and `accepted_s` are what this node measured from its own request.

        `ahead` is how many attempts the worker had before this one; `claimed_speed` what its advert said, in tokens per second,
        0 if it said nothing; `reading_s` how long its input would take to read by that advert: inputs differ, and what is
        remembered is what comes on top. `shared` is how many times slower than alone it must have been beside others: its load is
        counted apart.
        """
        first_piece_s = max(accepted_s, first_piece_s - reading_s * shared)
        standing = self._over(node, now)
        self._decay(standing, now)
        standing.successes += 1
        standing.failures_in_row, standing.open_until = 0, 0.0
        self._places.pop(standing.place, None)
        if standing.is_stranger:
            self._luck += LUCK_WEIGHT * (1 - self._luck)
        standing.first_pieces_s = (*standing.first_pieces_s[1 - SAMPLES_MAX :], first_piece_s)
        self._first_pieces_s = (*self._first_pieces_s[1 - SAMPLES_MAX :], first_piece_s)
        weight = max(SAMPLE_WEIGHT_MIN, 1 - exp(-(now - standing.answered_at) / self._settings.speed_tau_s))
        # From accept to first text: the way there may have begun with a handshake. Peak EWMA: worse is believed at once, better
        # only slowly. What was spent in a queue says nothing of the worker, and its load is counted apart.
        sample_s, old = max(0.0, first_piece_s - accepted_s) / shared, standing.first_token_s
        if old is None and ahead:
            sample_s = min(sample_s, max(0.0, usage.first_token_s / shared - reading_s))
        if old is None or (sample_s > old and not ahead):
            standing.first_token_s = sample_s
        elif sample_s < old:
            standing.first_token_s = old + weight * (sample_s - old)
        writing_s = usage.total_s - usage.first_token_s
        if usage.tokens_out >= TOKENS_MIN and writing_s > 0:
            speed = (usage.tokens_out - 1) / writing_s
            speed = max(speed, min(shared * speed, claimed_speed))  # Alone nobody is faster than he says himself.
            known = standing.tokens_per_second
            standing.tokens_per_second = speed if known is None else known + weight * (speed - known)
            if claimed_speed > 0:
                held = max(TRUST_MIN, min(1.0, speed / claimed_speed))
                standing.trust += TRUST_WEIGHT * (held - standing.trust)
        standing.as_of = standing.answered_at = now

    def first_piece_p95(self, node: NodeId, now: float) -> float | None:
        """How long this worker takes from request to first text, without reading, in all but one of twenty cases; or all do."""
        standing = self._workers.get(node)
        if standing is not None and len(standing.first_pieces_s) >= SAMPLES_MIN:
            return _p95(standing.first_pieces_s)
        return _p95(self._first_pieces_s) if len(self._first_pieces_s) >= 2 * SAMPLES_MIN else None

    def ended(self, node: NodeId, code: ErrorCode, blamed: bool, now: float, begun_at: float = float("inf")) -> None:
        """An attempt ended otherwise. Refusals and cancels are not failures; nor is what our own lateness explains."""
        standing = self._over(node, now)
        if code in (errors.BUSY, errors.OVER_QUOTA):
            # Its advert has not caught up: until it does, somebody is before us.
            standing.ahead, standing.ahead_heard_at = max(1, standing.ahead), now
        if blamed and not code.definite:
            if standing.is_stranger:
                self._luck -= LUCK_WEIGHT * self._luck
            if standing.is_stranger and standing.place:
                count, _ = self._places.pop(standing.place, (0, 0.0))
                self._places[standing.place] = (count + 1, now + PLACE_WAIT_S)
                if len(self._places) > PLACES_MAX:
                    del self._places[next(iter(self._places))]
            self._decay(standing, now)
            standing.failures += 1
            standing.as_of = now
            if begun_at <= standing.failed_at:
                return  # It was under way when another failed there: one cut link is one failure, however many went with it.
            standing.failures_in_row += 1
            standing.failed_at = now
            if standing.failures_in_row >= FAILURES_IN_ROW or standing.is_stranger:
                settings = self._settings
                times = standing.failures_in_row + (STRANGER_DOUBLINGS if standing.is_stranger else 0)
                wait_s = settings.breaker_first_s * 2.0 ** min(times - 1, 16)
                standing.open_until = now + min(settings.breaker_max_s, wait_s)

    @property
    def doubts_strangers(self) -> bool:
        """Whether those that were tried of late without knowing them mostly failed."""
        return self._luck < LUCK_MIN

    def is_shunned(self, place: str, now: float) -> bool:
        """Whether strangers at a place are left alone, because others there have only ever failed."""
        count, until = self._places.get(place, (0, 0.0))
        return count >= PLACE_FAILURES and now < until

    def _over(self, node: NodeId, now: float) -> Standing:
        """One attempt fewer is under way there."""
        standing = self._touch(node, now)
        if standing.inflight:
            standing.inflight -= 1
            standing.ended_at = (*standing.ended_at[1 - PLACED_MAX :], now)
        return standing

    def _touch(self, node: NodeId, now: float) -> Standing:
        standing = self._workers.pop(node, None) or Standing(as_of=now, answered_at=now)
        self._workers[node] = standing
        if len(self._workers) > WORKERS_MAX:
            del self._workers[next(iter(self._workers))]
        return standing

    def _decay(self, standing: Standing, now: float) -> None:
        kept = self._kept(standing, now)
        standing.successes *= kept
        standing.failures *= kept
        standing.trust = 1 - (1 - standing.trust) * kept

    def _kept(self, standing: Standing, now: float) -> float:
        return exp2((standing.as_of - now) / self._settings.success_half_life_s)


def _p95(samples: tuple[float, ...]) -> float:
    return sorted(samples)[min(len(samples) - 1, round(0.95 * len(samples)))]
