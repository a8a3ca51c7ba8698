"""The next token is drawn as asked, and its probability is told."""

import numpy as np
import pytest

from node.backends.llama_cpp import pipe, sampling
from node.backends.llama_cpp.sampling import BrokenLogits, Draw, draw, likeliest, logprobs_of

LOGITS = np.array([1.0, 5.0, 4.5, 4.0, -3.0], np.float32)


def drawn(temperature: float, top_p: float, seed: int, times: int = 400) -> list[int]:
    dice = np.random.default_rng(seed)
    return [draw(LOGITS, temperature, top_p, 40, 0.05, dice) for _ in range(times)]


def test_temperature_zero_takes_the_best_and_of_equals_the_first() -> None:
    assert set(drawn(0.0, 1.0, 1)) == {1}
    assert draw(np.array([2.0, 7.0, 7.0], np.float32), 0.0, 1.0, 40, 0.05, np.random.default_rng(1)) == 1


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
        draw(logits, 0.0, 1.0, 40, 0.05, np.random.default_rng(1))


@pytest.mark.parametrize(("top_k", "tokens"), [(1, {1}), (2, {1, 2}), (0, {0, 1, 2, 3, 4}), (9, {0, 1, 2, 3, 4})])
def test_top_k_keeps_so_many_and_0_all(top_k: int, tokens: set[int]) -> None:
    dice = np.random.default_rng(2)
    assert {draw(LOGITS, 2.0, 1.0, top_k, 0.0, dice) for _ in range(3_000)} == tokens


def test_min_p_is_a_share_of_the_best_before_the_heat() -> None:
    dice = np.random.default_rng(2)
    assert {draw(LOGITS, 2.0, 1.0, 0, 0.5, dice) for _ in range(400)} == {1, 2}


def test_a_wide_field_is_drawn_from_as_if_it_were_sorted() -> None:
    wide = np.linspace(-1, 1, 5_000, dtype=np.float32)
    drawn = {draw(wide, 2.0, 1.0, 10, 0.0, np.random.default_rng(seed)) for seed in range(200)}
    assert drawn == set(range(4_990, 5_000))


@pytest.mark.parametrize(("top_k", "top_p", "min_p"), [(0, 1.0, 0.0), (0, 0.5, 0.0), (300, 0.9, 0.0), (0, 0.9, 0.1), (9, 1, 0.05)])
def test_few_are_drawn_from_as_many_are(top_k: int, top_p: float, min_p: float, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = np.random.default_rng(3).normal(0, 1, 1_000).astype(np.float32)
    wide[7] = wide[9]
    drawn = []
    for few in (0, len(wide)):
        monkeypatch.setattr(sampling, "FEW_MAX", few)
        drawn.append([draw(wide, 1.5, top_p, top_k, min_p, np.random.default_rng(seed)) for seed in range(200)])
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) > 5


def drawing(tokens: list[int], begun: int = 0, **wishes: object) -> Draw:
    request = pipe.Generate(1, "complete", [["user", "?"]], 9, **wishes)  # type: ignore[arg-type]
    return Draw(tokens, begun, request, 1, None, None)


def test_a_repeat_penalty_looks_at_the_prompt_and_only_so_far_back() -> None:
    tokens = [1, *[4] * 10]
    assert drawing(tokens, repeat_penalty=2.0)(LOGITS) == 2
    assert drawing([1, *[4] * 64], repeat_penalty=2.0)(LOGITS) == 1
    negative = np.array([-1.0, -1.5], np.float32)
    assert drawing([0], repeat_penalty=2.0)(negative) == 1, "what is unlikely becomes less likely too"


def test_the_other_penalties_look_at_the_answer_alone() -> None:
    for wishes in ({"presence_penalty": 0.6}, {"frequency_penalty": 0.3}):
        assert drawing([1, 1], 0, **wishes)(LOGITS) == 1
        assert drawing([1, 1], 2, **wishes)(LOGITS) == 2
    assert drawing([1], 1, frequency_penalty=0.4)(LOGITS) == 1, "said once it counts once"
    assert drawing([1, 1, 1], 3, presence_penalty=0.4)(LOGITS) == 1, "said thrice it counts once"


def test_probabilities_add_up_to_one_and_the_likeliest_come_first() -> None:
    logprobs = logprobs_of(LOGITS, range(5))
    assert np.exp(logprobs).sum() == pytest.approx(1)
    assert likeliest(LOGITS, 3) == [1, 2, 3]
    assert likeliest(LOGITS, 99) == [1, 2, 3, 0, 4]
    assert likeliest(LOGITS, 0) == []
    assert likeliest(np.array([1.0, 2.0, 2.0], np.float32), 2) == [1, 2], "of equals the first"


def test_the_logits_themselves_are_never_changed() -> None:
    before = LOGITS.copy()
    drawing([1, 1], 2, repeat_penalty=1.5, presence_penalty=1.0)(LOGITS)
    assert np.array_equal(LOGITS, before)
