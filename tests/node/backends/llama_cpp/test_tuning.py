"""As few threads as are nearly as fast as any."""

import pytest

from node.backends.llama_cpp import tuning
from node.backends.llama_cpp.tuning import best_threads


@pytest.mark.parametrize(
    ("most", "seconds", "best"),
    [
        (1, {1: 1.0}, 1),
        (2, {1: 1.0, 2: 0.6}, 2),
        (2, {1: 1.0, 2: 0.97}, 1),
        (2, {1: 1.0, 2: 1.4}, 1),
        (8, {8: 0.30, 4: 0.29, 2: 0.5, 1: 1.0}, 4),
        (8, {8: 0.15, 4: 0.25, 2: 0.5, 1: 1.0}, 8),
        (6, {6: 0.2, 3: 0.19, 1: 0.5}, 3),
    ],
)
def test_the_fewest_that_are_nearly_as_fast(most: int, seconds: dict[int, float], best: int) -> None:
    tried: list[int] = []

    def take(count: int) -> float:
        tried.append(count)
        return seconds[count]

    assert best_threads(most, take) == best
    assert tried == sorted(seconds, reverse=True)


def test_a_slow_model_is_not_tried_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "TRY_S_MAX", -1.0)
    assert best_threads(8, lambda count: 10.0) == 8
