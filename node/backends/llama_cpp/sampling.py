"""Draws the next token from a row of logits.

Not by llama.cpp's own sampler chain, which costs 4 to 7 % of a step where this costs about 1 (vocabularies of 49k and 262k tokens).
First min-p, which leaves few tokens of many; then top-k and top-p on those few.
"""

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from node.backends.llama_cpp.formats import Format, FormatRefused
from node.backends.llama_cpp.pipe import Generate

REPEATED_LAST = 64  # Tokens back, prompt included, that a repeat penalty looks; llama.cpp's default.
FEW_MAX = 128  # Candidates up to which plain Python is quicker than calls of numpy whose code is no longer in the caches.

Logits = npt.NDArray[np.float32]


class BrokenLogits(Exception):
    """No token can follow: the weights are damaged, or there is NoWayOn. The message is for people."""


class NoWayOn(BrokenLogits):
    """The answer's format takes none of the tokens: it never ends, or is too intricate."""


@dataclass(frozen=True, slots=True)
class Told:
    """How likely a token was, and the likeliest at its place, best first."""

    token: int
    logprob: float
    top: list[tuple[int, float]]


class Draw:
    """The tokens of one answer, one after the other: drawn, or as they are forced to be.

    The dice take one step for each token, whatever becomes of it, so that another worker can go on with the same ones.
    """

    def __init__(
        self, tokens: list[int], begun: int, request: Generate, seed: int, form: Format | None, forced: Iterator[int] | None
    ) -> None:
        """`tokens` is the text that grows; the last `begun` of them are the beginning of the answer."""
        self._tokens, self._answer, self._request, self._form = tokens, len(tokens) - begun, request, form
        self._forced = forced
        self._dice = np.random.Generator(np.random.PCG64(seed).advance(begun))
        self._penalized = (request.repeat_penalty, request.presence_penalty, request.frequency_penalty) != (1.0, 0.0, 0.0)
        self.is_forced = forced is not None
        self.told: list[Told] = []
        """Of each token, if the request demands it."""

    def __call__(self, logits: Logits) -> int:
        """The next token. Raises BrokenLogits."""
        token = self._drawn(logits) if self._forced is None else next(self._forced)
        if self._request.logprobs:
            best = likeliest(logits, self._request.logprobs - 1)
            logprob, *others = logprobs_of(logits, [token, *best])
            self.told.append(Told(token, logprob, list(zip(best, others, strict=True))))
        return token

    def _drawn(self, logits: Logits) -> int:
        request, form = self._request, self._form
        if self._penalized:
            logits = self._with_penalties(logits)
        if form is not None:
            try:
                logits = np.where(form.allowed(), logits, -np.inf)
            except FormatRefused as error:
                raise NoWayOn(str(error)) from None
        token = draw(logits, request.temperature, request.top_p, request.top_k, request.min_p, self._dice)
        if form is not None:
            form.take(token)
        return token

    def _with_penalties(self, logits: Logits) -> Logits:
        logits, request = logits.copy(), self._request
        if request.repeat_penalty != 1.0:
            recent = np.unique(self._tokens[-REPEATED_LAST:])
            values = logits[recent]
            logits[recent] = np.where(values > 0, values / request.repeat_penalty, values * request.repeat_penalty)
        said, counts = np.unique(np.asarray(self._tokens[self._answer :], np.int64), return_counts=True)
        logits[said] -= (request.presence_penalty + request.frequency_penalty * counts).astype(np.float32)
        return logits


def draw(logits: Logits, temperature: float, top_p: float, top_k: int, min_p: float, dice: np.random.Generator) -> int:
    """The next token. Temperature 0 takes the best, and of equals the first. Raises BrokenLogits."""
    best = int(logits.argmax())
    top = float(logits[best])
    if not math.isfinite(top):
        raise BrokenLogits("the model computes numbers that are none; its file is damaged")
    if temperature <= 0.0:
        return best
    # min-p acts before the temperature does, as in llama.cpp: heat evens out what is left, it lets no nonsense in.
    few = (logits >= top + math.log(min_p)).nonzero()[0] if min_p > 0.0 else np.isfinite(logits).nonzero()[0]
    top_k = top_k or len(few)
    if len(few) > FEW_MAX and top_k < len(few):
        least = np.partition(logits[few], len(few) - top_k)[len(few) - top_k]
        few = few[logits[few] >= least]
    tokens: Sequence[int] | npt.NDArray[np.int64]
    sums: Sequence[float] | npt.NDArray[np.float64]
    if len(few) <= FEW_MAX:
        pairs = sorted(zip((-logits[few]).tolist(), few.tolist(), strict=True))[:top_k]
        tokens = [token for _, token in pairs]
        sums = list(accumulate(math.exp((-negative - top) / temperature) for negative, _ in pairs))
    else:
        tokens = few[np.argsort(-logits[few], kind="stable")][:top_k]
        sums = np.exp((logits[tokens].astype(np.float64) - top) / temperature).cumsum()
    within = min(bisect_right(sums, top_p * sums[-1]) + 1, len(sums))
    return int(tokens[bisect_right(sums, dice.random() * sums[within - 1], hi=within - 1)])


def logprobs_of(logits: Logits, tokens: Sequence[int]) -> list[float]:
    """Natural logarithms of the probabilities that the model gives to these tokens. Raises BrokenLogits."""
    top = float(logits.max())
    if not math.isfinite(top):
        raise BrokenLogits("the model computes numbers that are none; its file is damaged")
    whole = top + float(np.log(np.exp(logits - np.float32(top)).sum(dtype=np.float64)))
    return [float(logits[token]) - whole for token in tokens]


def likeliest(logits: Logits, count: int) -> list[int]:
    """So many tokens, the likeliest first."""
    if count == 0:
        return []
    few = np.argpartition(-logits, count - 1)[:count] if count < len(logits) else np.arange(len(logits))
    return [int(token) for token in few[np.lexsort((few, -logits[few]))]]
