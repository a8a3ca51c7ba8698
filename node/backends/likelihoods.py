"""How likely tokens are, as it may travel: a hostile child or server must not bend it out of bounds."""

from collections.abc import Iterable

from protocol.limits import LOGPROB_MIN, OPTION_BYTES_MAX
from protocol.parts import Alternative, Logprob


def bounded(data: bytes, logprob: float, top: Iterable[tuple[bytes, float]]) -> Logprob:
    """What was told of one token and its alternatives; what is no number is as unlikely as can be."""
    alternatives = tuple(Alternative(other[:OPTION_BYTES_MAX], _bounded(share)) for other, share in top)
    return Logprob(data[:OPTION_BYTES_MAX], _bounded(logprob), alternatives)


def _bounded(logprob: float) -> float:
    return float(min(max(logprob, LOGPROB_MIN), 0.0)) if logprob == logprob else LOGPROB_MIN
