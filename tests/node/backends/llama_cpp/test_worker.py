"""What the child's worker makes of requests, step by step. With a real model."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from node.backends.llama_cpp import pipe
from node.backends.llama_cpp.batch import Row
from node.backends.llama_cpp.context import AbortFlag, Context
from node.backends.llama_cpp.formats import Formats
from node.backends.llama_cpp.model import ComputeFailed, Model
from node.backends.llama_cpp.worker import Call, Choice, Worker
from tests.node.backends.llama_cpp.gguf_files import small_model
from tests.node.backends.llama_cpp.spm_files import spm_vocabulary
from tests.node.backends.llama_cpp.steps import Kept, read_steadily

RESUMED = 0
STORY = "The starlings gather over the reed bed, turn and fold like smoke, and settle all at once. "


@pytest.fixture
def sink() -> Kept:
    return Kept()


@pytest.fixture
def worker(smollm2: Path, sink: Kept) -> Iterator[Worker]:
    model = Model(smollm2)
    with closing(Context(model, 8, 512, 1, AbortFlag())) as context:
        yield Worker(model, context, None, Formats(model), sink)


def request(call: int, delivered: str = "") -> pipe.Generate:
    turns = [["user", f"{call}. {STORY * 3}"]]
    return pipe.Generate(call, "complete", turns, 100, delivered=delivered)


@pytest.mark.parametrize("delivered", ["", STORY])
def test_an_answer_waits_for_a_crowd_unless_it_goes_on_with_one_that_was_begun(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, delivered: str
) -> None:
    """Its reader has been reading for a while already."""
    read_steadily(monkeypatch, 0.0)
    worker.begin(request(RESUMED, delivered))
    begun = worker._calls[RESUMED].text
    had = begun.grown
    while begun.grown == had:
        worker.plan()
        worker.step()
    had = begun.grown
    for call in (1, 2, 3, 4, 5):
        worker.begin(request(call))
    crowd = [call.text for call in worker._calls.values() if call.text is not begun]
    while not all(text.grown for text in crowd):
        worker.plan()
        worker.step()
    assert (begun.grown > had) == bool(delivered)


def finish(worker: Worker, *calls: int) -> dict[int, pipe.Ended]:
    """Work until these have ended, as the process would."""
    sink = worker._sink
    assert isinstance(sink, Kept)
    for _ in range(2_000):
        ended = {said.call: said for said in sink.said if isinstance(said, pipe.Ended)}
        if ended.keys() >= set(calls):
            return ended
        worker.plan()
        worker.step()
    raise AssertionError("somebody waits for ever")


def longest_token(worker: Worker) -> int:
    model = worker._model
    return max(range(model.vocabulary_size), key=lambda token: len(model.bytes_of(token)))


def test_delivered_tokens_that_say_more_than_a_frame_holds_harm_nobody(worker: Worker, sink: Kept) -> None:
    """A frame of 8 kB can ask for 655 kB of text."""
    tokens = [longest_token(worker)] * 8_192
    asked = pipe.Generate(1, "complete", [["user", "Hi"]], 8_192, delivered_tokens=tokens)
    worker.begin(pipe.Generate(2, "complete", [["user", "Hello"]], 5))
    worker.begin(asked)
    worker.begin(pipe.Generate(3, "complete", [["user", "Hello"]], 8_192, delivered_tokens=tokens[:400]))
    ended = finish(worker, 1, 2, 3)
    assert {said.finish for said in ended.values()} == {"length"}


def test_an_answer_that_was_begun_with_more_room_is_not_over_here(worker: Worker) -> None:
    begun = worker._model.tokenize_plain(STORY * 40)[:600]
    text = b"".join(map(worker._model.bytes_of, begun)).decode()
    delivered = {"delivered": text, "delivered_tokens": begun}
    worker.begin(pipe.Generate(1, "complete", [["user", "Hi"]], 1_000, **delivered))  # type: ignore[arg-type]
    worker.begin(pipe.Generate(2, "complete", [["user", "Hi"]], 600, **delivered))  # type: ignore[arg-type]
    ended = finish(worker, 1, 2)
    assert (ended[1].finish, ended[2].finish) == ("too_long", "length")
    assert "512 are the most" in ended[1].reason


def test_a_bug_in_one_answer_ends_it_alone(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    worker.begin(request(1))
    worker.begin(request(2))
    taken = worker._take

    def take(call: Call, text: str) -> None:
        if call.number == 1:
            raise RuntimeError("no such luck")
        taken(call, text)

    monkeypatch.setattr(worker, "_take", take)
    ended = finish(worker, 1, 2)
    assert (ended[1].finish, ended[2].finish) == ("failed", "length")
    assert "no such luck" in ended[1].reason
    assert "no such luck" in capfd.readouterr().err


def test_only_those_that_a_batch_was_for_fail_with_it(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    worker.begin(request(1))
    worker.begin(request(2))
    decode = worker._context.decode

    def fail(rows: list[Row]) -> None:
        monkeypatch.setattr(worker._context, "decode", decode)
        raise ComputeFailed("no more")

    [first] = worker.plan()
    monkeypatch.setattr(worker._context, "decode", fail)
    worker.step()
    ended = finish(worker, 1, 2)
    assert (ended.pop(first).finish, ended.popitem()[1].finish) == ("failed", "length")


def test_a_given_answer_that_the_model_cannot_say_is_refused_and_the_others_go_on(tmp_path: Path, sink: Kept) -> None:
    """A vocabulary that writes spaces as U+2581 has no other word for that character."""
    model = Model(small_model(tmp_path / "spm.gguf", None, **spm_vocabulary()))
    with closing(Context(model, 4, 64, 1, AbortFlag())) as context:
        worker = Worker(model, context, None, Formats(model), sink)
        worker.begin(pipe.Generate(1, "complete", [["user", "hello"]], 9, delivered="\u2581", forced="\u2581\u2581"))
        worker.begin(pipe.Generate(2, "complete", [["user", "hello"]], 9))
        ended = finish(worker, 1, 2)
    assert (ended[1].finish, ended[2].finish) == ("refused", "length")


def test_options_are_read_as_what_goes_on_with_the_text(tmp_path: Path, sink: Kept) -> None:
    model = Model(small_model(tmp_path / "spm.gguf", None, **spm_vocabulary()))
    with closing(Context(model, 4, 64, 1, AbortFlag())) as context:
        worker = Worker(model, context, None, Formats(model), sink)
        worker.begin(pipe.Generate(1, "complete", [["user", "hello"]], 9, options=["you", "hello"]))
        [choice] = worker._calls.values()
        assert isinstance(choice, Choice)
        assert [b"".join(map(model.bytes_of, option)) for option in choice.ballot.options] == [b"you", b"hello"]
