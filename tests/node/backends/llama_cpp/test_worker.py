"""What the child's worker makes of requests, step by step. With a real model."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from node.backends.llama_cpp import pipe
from node.backends.llama_cpp import scheduler as scheduler_module
from node.backends.llama_cpp.context import AbortFlag, Context
from node.backends.llama_cpp.formats import Formats
from node.backends.llama_cpp.mailbox import Sink
from node.backends.llama_cpp.model import Model
from node.backends.llama_cpp.worker import Worker

RESUMED = 0
STORY = "The starlings gather over the reed bed, turn and fold like smoke, and settle all at once. "


class Kept(Sink):
    """Keeps what is said, instead of sending it."""

    def __init__(self) -> None:
        super().__init__(-1)
        self.said: list[pipe.Said] = []

    def say(self, said: pipe.Said) -> None:
        self.said.append(said)

    def answers(self) -> set[int]:
        """The calls that have had a text."""
        return {said.call for said in self.said if isinstance(said, pipe.Piece)}


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
    worker: Worker, sink: Kept, monkeypatch: pytest.MonkeyPatch, delivered: str
) -> None:
    """Its reader has been reading for a while already."""
    monkeypatch.setattr(scheduler_module, "READ_BEGUN_S", 60.0)
    monkeypatch.setattr(scheduler_module, "READ_S", 0.0)
    crowd = {1, 2, 3, 4, 5}
    worker.begin(request(RESUMED, delivered))
    while RESUMED not in sink.answers():
        worker.plan()
        worker.step()
    for call in crowd:
        worker.begin(request(call))
    sink.said.clear()
    while not crowd <= sink.answers():
        worker.plan()
        worker.step()
    assert (RESUMED in sink.answers()) == bool(delivered)
