"""Whatever a child or a server says of likelihoods, it is within the bounds of the wire."""

import math

import pytest

from node.backends.likelihoods import bounded
from protocol.limits import LOGPROB_MIN, OPTION_BYTES_MAX


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (-0.5, -0.5),
        (-3, -3.0),
        (0.7, 0.0),
        (10**400, 0.0),
        (-math.inf, LOGPROB_MIN),
        (-(10**400), LOGPROB_MIN),
        (math.nan, LOGPROB_MIN),
    ],
)
def test_numbers_out_of_bounds_are_bent_back(said: float, told: float) -> None:
    logprob = bounded(b"a", said, [(b"b", said)])
    assert (logprob.logprob, logprob.top[0].logprob) == (told, told)
    assert type(logprob.logprob) is float


def test_tokens_are_no_longer_than_may_travel() -> None:
    logprob = bounded(b"x" * 1_000, -1.0, [(b"y" * 1_000, -1.0)])
    assert (len(logprob.data), len(logprob.top[0].data)) == (OPTION_BYTES_MAX, OPTION_BYTES_MAX)
