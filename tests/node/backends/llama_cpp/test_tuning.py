"""As few threads as are nearly as fast as any; keys and values as they are exact, or quickest."""

from contextlib import closing
from pathlib import Path

import pytest

from node.backends.llama_cpp import tuning
from node.backends.llama_cpp.batch import Row
from node.backends.llama_cpp.context import EXACT_BLOCK, QUICK_BLOCK, AbortFlag, Context
from node.backends.llama_cpp.model import Model
from node.backends.llama_cpp.pipe import Ready
from node.backends.llama_cpp.room import CONVERSATIONS_MAX, SHARE
from node.backends.llama_cpp.scheduler import Scheduler, Text
from node.backends.llama_cpp.tuning import best_threads, fitting, fitting_again
from tests.node.backends.llama_cpp.gguf_files import small_model
from tests.node.backends.llama_cpp.mamba_files import tiny_mamba
from tests.node.backends.llama_cpp.steps import step


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


TOKENS = 64
TEXT_BYTES = TOKENS * 600.0  # About what one layer takes.
PLENTY = 2**62


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model(small_model(tmp_path_factory.mktemp("model") / "small.gguf", None))


@pytest.mark.parametrize(
    ("exact", "alike", "block", "is_exact"),
    [("auto", True, 1, True), ("auto", False, 1, False), ("always", True, 1, True), ("always", False, EXACT_BLOCK, True)],
)
def test_blocks_are_filled_only_for_exactness_that_is_wanted_and_not_there(
    monkeypatch: pytest.MonkeyPatch, model: Model, exact: str, alike: bool, block: int, is_exact: bool
) -> None:
    monkeypatch.setattr(tuning, "computes_alike", lambda context, text: alike or context.block > 1)
    monkeypatch.setattr(tuning, "_is_quicker_filled", lambda context, token: False)
    context, found = fitting(model, TOKENS, exact, 1, PLENTY, AbortFlag())
    with closing(context):
        assert (context.block, found, context.sequences) == (block, is_exact, CONVERSATIONS_MAX)


def test_as_many_conversations_as_the_memory_is_for(model: Model) -> None:
    context, _ = fitting(model, TOKENS, "auto", 1, round(8.5 * TEXT_BYTES / SHARE), AbortFlag())
    with closing(context):
        assert context.sequences == 8


@pytest.mark.parametrize("exact", ["auto", "always"])
def test_a_model_that_cannot_take_tokens_back_is_never_given_any_to_fill_up(
    exact: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Model(tiny_mamba(tmp_path / "mamba.gguf"))
    monkeypatch.setattr(tuning, "_is_quicker_filled", lambda context, token: True)
    context, _ = fitting(model, TOKENS, exact, 1, PLENTY, AbortFlag())
    with closing(context):
        assert context.text_bytes == pytest.approx(tuning._bytes_of(context, [0] * 9, 2 * TOKENS), rel=0.05), "it does not grow"
        scheduler, text = Scheduler(context), Text(list(range(1, 10)), lambda logits: int(logits.argmax()))
        scheduler.add(text)
        assert sum(len(step(scheduler)) for _ in range(9)) >= 8


@pytest.mark.parametrize("exact", ["auto", "always"])
def test_every_wish_makes_a_context_that_computes(exact: str, model: Model) -> None:
    context, is_exact = fitting(model, TOKENS, exact, 2, PLENTY, AbortFlag())
    with closing(context):
        assert not is_exact or tuning.computes_alike(context, [model.first_token] * 9)


@pytest.mark.parametrize(("room", "sequences"), [(5, 5), (20, 8)])
def test_what_was_found_out_before_holds_as_far_as_there_is_memory(model: Model, room: int, sequences: int) -> None:
    before = Ready(TOKENS, 8, 2, ["chat"], [], [], "", b"bits", 1.5, EXACT_BLOCK, TEXT_BYTES)
    context = fitting_again(model, before, round(room * TEXT_BYTES / SHARE), AbortFlag())
    with closing(context):
        assert (context.sequences, context.tokens, context.threads, context.block) == (sequences, TOKENS, 2, EXACT_BLOCK)


@pytest.mark.parametrize(("exact", "block"), [("auto", QUICK_BLOCK), ("always", EXACT_BLOCK)])
def test_batches_are_filled_up_where_that_is_quicker(
    monkeypatch: pytest.MonkeyPatch, model: Model, exact: str, block: int
) -> None:
    monkeypatch.setattr(tuning, "computes_alike", lambda context, text: context.block == EXACT_BLOCK)
    monkeypatch.setattr(tuning, "_is_quicker_filled", lambda context, token: True)
    context, _ = fitting(model, TOKENS, exact, 1, PLENTY, AbortFlag())
    with closing(context):
        assert context.block == block
        numbers = [number for number in range(5) for _ in range(2)]
        context.decode([Row(number, at % 2, model.first_token, True) for at, number in enumerate(numbers)])
        alike = [context.logits(2 * number + 1).copy() for number in range(5)]
    assert all((one == alike[0]).all() for one in alike[1:]), "what fills up is not taken for what was asked"


def test_filling_up_for_speed_changes_no_numerics(model: Model) -> None:
    with closing(Context(model, 8, TOKENS, 1, AbortFlag())) as context:
        plain = context.numerics
        context.block = QUICK_BLOCK
        assert context.numerics == plain
        context.block = EXACT_BLOCK
        assert context.numerics != plain


def test_texts_side_by_side_are_faster_than_one_after_the_other_and_share_the_processor(model: Model) -> None:
    with closing(Context(model, 8, TOKENS, 1, AbortFlag())) as context:
        assert 0.5 < tuning.speedup_of(context, model.first_token) < 8.0
    with closing(Context(model, 1, TOKENS, 1, AbortFlag())) as context:
        assert 0.3 < tuning.speedup_of(context, model.first_token) < 3.0, "nothing but noise"
