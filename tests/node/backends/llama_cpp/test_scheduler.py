"""Texts that grow side by side: the same bits as alone, beginnings computed once, nobody left out. With a real model."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from random import Random

import numpy as np
import pytest

from node.backends.llama_cpp.batch import Row
from node.backends.llama_cpp.context import QUICK_BLOCK, Aborted, AbortFlag, Context, Logits
from node.backends.llama_cpp.model import Model
from node.backends.llama_cpp.sampling import BrokenLogits
from node.backends.llama_cpp.scheduler import BEGUN_MAX, GAP_STEPS, SAVED_MIN, WANTED_MAX, Scheduler, Text
from tests.node.backends.llama_cpp.mamba_files import tiny_mamba
from tests.node.backends.llama_cpp.steps import read_steadily, step

PLACES = 16
TOKENS = 1024
GROWTH = 8
LAST = 3  # No token that a model continues with.
STORY = "The starlings gather over the reed bed, turn and fold like smoke, and settle all at once. "


class CountingContext(Context):
    """A context that remembers how many rows each batch had."""

    batches: list[int]

    def decode(self, rows: list[Row]) -> None:  # type: ignore[override]
        super().decode(rows)
        self.batches.append(len(rows))


class Best:
    """Takes the best token, and keeps all logits."""

    def __init__(self) -> None:
        self.seen: list[Logits] = []

    def __call__(self, logits: Logits) -> int:
        self.seen.append(logits.copy())
        return int(logits.argmax())


@pytest.fixture(scope="module")
def model(smollm2: Path) -> Model:
    return Model(smollm2)


@pytest.fixture(scope="module")
def whole(model: Model) -> Iterator[CountingContext]:
    with closing(CountingContext(model, PLACES, TOKENS, 1, AbortFlag())) as context:
        yield context


@pytest.fixture
def context(whole: CountingContext) -> CountingContext:
    """The same memory for every test, empty."""
    for place in range(PLACES):
        whole.forget(place, 0)
    whole.batches = []
    return whole


def texts(model: Model, count: int, beginning: str = "") -> list[Text]:
    """Texts of several lengths."""
    return [Text(model.tokenize(f"{beginning}{number}. {STORY * (number % 3)}Once upon a time"), Best()) for number in range(count)]


def grow(scheduler: Scheduler, wanted: list[Text], growth: int = GROWTH) -> dict[Text, list[int]]:
    """So many tokens more of each; who has them is out."""
    grown: dict[Text, list[int]] = {text: [] for text in wanted}
    for _ in range(2_000):
        for each in step(scheduler):
            grown[each.text].append(each.token)
            if len(grown[each.text]) == growth:
                scheduler.remove(each.text)
        if all(len(tokens) == growth for tokens in grown.values()):
            return grown
    raise AssertionError("somebody waits for ever")


def alone(context: Context, text: Text) -> tuple[list[int], np.ndarray]:
    """What a text grows to by itself, token by token, where nothing is held: tokens and logits."""
    context.forget(0, 0)
    best, tokens = Best(), list(text.tokens)
    for at in range(len(tokens) + GROWTH - 1):
        context.decode([Row(0, at, tokens[at], True)])
        if at >= len(text.tokens) - 1:
            tokens.append(best(context.logits(0)))
    return tokens[len(text.tokens) :], np.array(best.seen)


@pytest.mark.parametrize(("count", "block"), [(5, 1), (18, 1), (7, QUICK_BLOCK)])
def test_texts_grow_side_by_side_as_they_grow_alone_to_the_last_bit(model: Model, count: int, block: int) -> None:
    wanted = texts(model, count)
    with closing(Context(model, PLACES, TOKENS, 1, AbortFlag())) as context:
        expected = [alone(context, text) for text in wanted]
        context.forget(0, 0)
        context.block = block
        scheduler = Scheduler(context)
        for text in wanted:
            scheduler.add(text)
        grown = grow(scheduler, wanted)
    for text, (tokens, logits) in zip(wanted, expected, strict=True):
        assert grown[text] == tokens
        assert np.array_equal(np.array(text.choose.seen), logits)  # type: ignore[attr-defined]
    assert scheduler.plan() == []


def test_neither_cancels_nor_held_beginnings_change_a_bit(model: Model, context: CountingContext) -> None:
    dice = Random(4)
    samples = texts(model, 8)
    expected = {tuple(text.tokens): alone(context, text)[0] for text in samples}
    context.forget(0, 0)
    scheduler = Scheduler(context)
    begun: dict[Text, tuple[int, ...]] = {}
    inside: list[Text] = []
    ended = 0
    for _ in range(150):
        if len(inside) < 20 and dice.random() < 0.5:
            tokens = dice.choice(samples).tokens
            text = Text(list(tokens), Best())
            begun[text] = tuple(tokens)
            inside.append(text)
            scheduler.add(text)
        if inside and dice.random() < 0.15:
            scheduler.remove(inside.pop(dice.randrange(len(inside))))
        for each in step(scheduler):
            tokens = each.text.tokens[len(begun[each.text]) :]
            assert tokens == expected[begun[each.text]][: len(tokens)]
            if len(tokens) == GROWTH:
                ended += 1
                inside.remove(each.text)
                scheduler.remove(each.text)
    assert ended > 10


def test_what_was_read_is_not_read_again(model: Model, context: CountingContext) -> None:
    tokens = model.tokenize(STORY * 20)
    scheduler = Scheduler(context)
    for _ in range(2):
        text = Text(list(tokens), Best())
        scheduler.add(text)
        grow(scheduler, [text], 1)
    assert sum(context.batches) == len(tokens) + 1


def test_a_beginning_that_several_share_is_read_once(model: Model, context: CountingContext) -> None:
    shared = STORY * 15
    wanted = texts(model, 8, shared)
    scheduler = Scheduler(context)
    for text in wanted:
        scheduler.add(text)
    grow(scheduler, wanted, 1)
    rest = sum(len(text.tokens) - 1 for text in wanted) - 7 * len(model.tokenize(shared))
    # Nobody waits for less than that, wherever the pieces end in which the beginning happens to be read.
    assert sum(context.batches) < rest + 7 * SAVED_MIN, "each reads its own rest, and one the beginning"


def test_a_long_prompt_lets_the_others_go_on(model: Model, context: CountingContext) -> None:
    wanted = texts(model, 4)
    scheduler = Scheduler(context)
    for text in wanted:
        scheduler.add(text)
    while min(text.grown for text in wanted) <= BEGUN_MAX:
        step(scheduler)
    long = Text([*model.tokenize(STORY * 30), LAST], Best())
    scheduler.add(long)
    grown: list[Text] = []
    while long.tokens[-1] == LAST:
        grown += [each.text for each in step(scheduler)]
    assert all(grown.count(text) >= 3 for text in wanted)


def test_a_crowd_is_read_before_any_of_it_goes_on_but_not_before_others_do(
    model: Model, context: CountingContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_steadily(monkeypatch, 0.0)
    crowd = texts(model, 5)
    scheduler = Scheduler(context)
    for text in crowd:
        scheduler.add(text)
    while not all(text.grown for text in crowd):
        step(scheduler)
    assert [text.grown for text in crowd] == [1] * 5

    while min(text.grown for text in crowd) <= BEGUN_MAX:
        step(scheduler)
    before = crowd[0].grown
    for text in (newcomers := texts(model, 5, "Then ")):
        scheduler.add(text)
    while not all(text.grown for text in newcomers):
        step(scheduler)
    assert crowd[0].grown - before >= 3, "one token after each batch of reading"


def test_a_short_prompt_does_not_wait_for_a_long_one(model: Model, context: CountingContext) -> None:
    scheduler = Scheduler(context)
    long = Text(model.tokenize(STORY * 30), Best())
    short = Text(model.tokenize("Once"), Best())
    scheduler.add(long)
    step(scheduler)
    scheduler.add(short)
    first = next(each.text for _ in range(50) for each in step(scheduler))
    assert first is short


def test_places_between_others_are_closed_and_nothing_changes(model: Model, context: CountingContext) -> None:
    wanted = texts(model, 4)
    expected = alone(context, wanted[3])[0]
    context.forget(0, 0)
    scheduler = Scheduler(context)
    for text in wanted:
        scheduler.add(text)
    while min(len(text.choose.seen) for text in wanted) < 1:  # type: ignore[attr-defined]
        step(scheduler)
    places = [text.place.number for text in wanted if text.place is not None]
    assert places == [0, 1, 2, 3]
    scheduler.remove(wanted[1])
    for _ in range(GAP_STEPS + 1):
        step(scheduler)
    assert [text.place.number for text in wanted if text.place is not None] == [0, 2, 1]
    begun = len(texts(model, 4)[3].tokens)
    while len(wanted[3].tokens) < begun + GROWTH:
        step(scheduler)
    assert wanted[3].tokens[begun : begun + GROWTH] == expected
    again = Text(list(texts(model, 4)[1].tokens), Best())
    scheduler.add(again)
    context.batches = []
    step(scheduler)
    assert sum(context.batches) <= 4, "what the closed place had held was moved, not lost"


@pytest.fixture
def stoppable(model: Model) -> Iterator[tuple[Context, AbortFlag]]:
    """A small context, and what stops it."""
    flag = AbortFlag()
    with closing(Context(model, 4, TOKENS, 1, flag)) as context:
        yield context, flag


def test_what_is_stopped_in_a_batch_goes_on_as_if_nothing_had_happened(
    model: Model, stoppable: tuple[Context, AbortFlag]
) -> None:
    context, flag = stoppable
    wanted = texts(model, 3)
    expected = [alone(context, text)[0] for text in wanted]
    context.forget(0, 0)
    scheduler = Scheduler(context)
    for text in wanted:
        scheduler.add(text)
    for _ in range(6):
        step(scheduler)
        flag.up()
        with pytest.raises(Aborted):
            step(scheduler)
        flag.down()
    while min(len(text.choose.seen) for text in wanted) < GROWTH:  # type: ignore[attr-defined]
        step(scheduler)
    starts = [len(text.tokens) for text in texts(model, 3)]
    assert [text.tokens[start : start + GROWTH] for text, start in zip(wanted, starts, strict=True)] == expected


def test_prompts_that_end_early_leave_their_time_to_others(
    model: Model, context: CountingContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_steadily(monkeypatch, 60.0)
    growing, *newcomers = texts(model, 4)
    scheduler = Scheduler(context)
    scheduler.add(growing)
    while len(growing.choose.seen) < 2:  # type: ignore[attr-defined]
        step(scheduler)
    for text in newcomers:
        scheduler.add(text)
    grown: list[Text] = []
    while not set(newcomers) <= set(grown):
        grown += [each.text for each in step(scheduler)]
    assert grown.count(growing) <= 1, "only before the first of them"


def test_what_is_known_is_read_and_told_as_if_it_had_been_drawn(model: Model, context: CountingContext) -> None:
    """More than fits into one batch, beside others that grow."""
    [drawn, *others] = texts(model, 3)
    begun, growth = len(drawn.tokens), 3 * WANTED_MAX
    scheduler = Scheduler(context)
    scheduler.add(drawn)
    grown = grow(scheduler, [drawn], growth)[drawn]
    for text in others:
        scheduler.add(text)
    for _ in range(3):
        step(scheduler)
    known = Text(drawn.tokens[: begun + growth - 1], Best(), known=growth - 1)
    scheduler.add(known)
    read: list[int] = []
    while len(read) < growth:
        read += [each.token for each in step(scheduler) if each.text is known]
    assert read == grown
    assert np.array_equal(np.array(known.choose.seen), np.array(drawn.choose.seen))  # type: ignore[attr-defined]


def test_a_text_that_cannot_go_on_leaves_the_others_alone(model: Model, context: CountingContext) -> None:
    def broken(logits: Logits) -> int:
        raise BrokenLogits("no numbers")

    good, bad = texts(model, 1)[0], Text(model.tokenize("Hello"), broken)
    scheduler = Scheduler(context)
    scheduler.add(bad)
    scheduler.add(good)
    told = [each for _ in range(5) for each in step(scheduler) if each.text is bad]
    assert [str(each.broken) for each in told] == ["no numbers"]
    assert scheduler.plan() == [good]
    assert len(good.choose.seen) >= 3  # type: ignore[attr-defined]


def test_of_two_that_are_over_the_one_that_has_been_over_for_longer_makes_room(model: Model) -> None:
    with closing(CountingContext(model, 2, TOKENS, 1, AbortFlag())) as context:
        context.batches = []
        scheduler = Scheduler(context)
        long, short, new = texts(model, 3)
        scheduler.add(long)
        step(scheduler)
        scheduler.add(short)
        grow(scheduler, [short], 1)
        for _ in range(3):
            step(scheduler)
        scheduler.remove(long)
        held = list(long.tokens)
        scheduler.add(new)
        grow(scheduler, [new], 1)
        context.batches = []
        again = Text(held, Best())
        scheduler.add(again)
        grow(scheduler, [again], 1)
        assert sum(context.batches) <= 2, "the long one is still there"


def test_what_begins_alike_is_nothing_to_a_model_of_one_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It can take nothing back, so that a part of what it has read cannot be had: nobody waits for it, or copies it."""
    mamba = Model(tiny_mamba(tmp_path / "mamba.gguf"))
    with closing(CountingContext(mamba, 4, 256, 1, AbortFlag())) as context:
        context.batches = []
        monkeypatch.setattr(context, "copy", None)
        scheduler = Scheduler(context)
        shared = list(range(5, 45))
        first, second = Text([*shared, 50, 51], Best()), Text([*shared, 60, 61], Best())
        scheduler.add(first)
        scheduler.add(second)
        scheduler.plan()
        assert all(text.place is not None for text in (first, second))
        grow(scheduler, [first, second], 2)
        whole = Text([*first.tokens, 70], Best())
        context.batches = []
        scheduler.add(whole)
        grow(scheduler, [whole], 1)
        assert sum(context.batches) <= 3, "all that was read is of use"
