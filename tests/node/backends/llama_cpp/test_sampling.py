"""The next token is drawn as asked."""

import numpy as np
import pytest

from node.backends.llama_cpp.sampling import BrokenLogits, draw

LOGITS = np.array([1.0, 5.0, 4.5, 4.0, -3.0], np.float32)


def drawn(temperature: float, top_p: float, seed: int, times: int = 400) -> list[int]:
    dice = np.random.default_rng(seed)
    return [draw(LOGITS, temperature, top_p, dice) for _ in range(times)]


def test_temperature_zero_takes_the_best_and_of_equals_the_first() -> None:
    assert set(drawn(0.0, 1.0, 1)) == {1}
    assert draw(np.array([2.0, 7.0, 7.0], np.float32), 0.0, 1.0, np.random.default_rng(1)) == 1


def test_the_same_seed_draws_the_same() -> None:
    assert drawn(1.0, 1.0, 7) == drawn(1.0, 1.0, 7)
    assert drawn(1.0, 1.0, 7) != drawn(1.0, 1.0, 8)


def test_unlikely_tokens_are_never_drawn_however_hot() -> None:
    assert set(drawn(2.0, 1.0, 3)) == {1, 2, 3}


@pytest.mark.parametrize(("top_p", "tokens"), [(0.0, {1}), (0.5, {1}), (0.6, {1, 2}), (1.0, {1, 2, 3})])
def test_top_p_keeps_the_fewest_that_reach_it(top_p: float, tokens: set[int]) -> None:
    # Shares at temperature 1: 0.51, 0.31, 0.19.
    assert set(drawn(1.0, top_p, 5)) == tokens


def test_heat_evens_out() -> None:
    cold, hot = drawn(0.3, 1.0, 9), drawn(2.0, 1.0, 9)
    assert cold.count(1) > hot.count(1) > hot.count(3) > cold.count(3)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_none_are_noticed(bad: float) -> None:
    logits = LOGITS.copy()
    logits[2] = bad
    with pytest.raises(BrokenLogits):
        draw(logits, 0.0, 1.0, np.random.default_rng(1))
