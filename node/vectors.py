"""Numbers as they travel in the answers of `embed` and `rerank`."""

from typing import SupportsFloat

DIGITS = 8  # Of each number: what 32 bits hold.
NUMBERS_MAX = 16_384  # Of one vector; the longest in use have 8,192.


def rounded(number: SupportsFloat) -> float:
    """No more of it than is known."""
    return float(f"{float(number):.{DIGITS}g}")
