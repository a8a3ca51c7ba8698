"""What a model's process does step by step, without the process."""

from itertools import count

import pytest

from node.backends.llama_cpp import pipe
from node.backends.llama_cpp import scheduler as scheduler_module
from node.backends.llama_cpp.mailbox import Sink
from node.backends.llama_cpp.scheduler import Grown, Scheduler


def step(scheduler: Scheduler) -> list[Grown]:
    """Plan a batch and compute it, if there is anything to do."""
    return scheduler.compute() if scheduler.plan() else []


def read_steadily(monkeypatch: pytest.MonkeyPatch, read_s: float) -> None:
    """Every batch of reading takes as long, whatever the machine does; beside texts that go on, all of it may take `read_s`."""
    monkeypatch.setattr(scheduler_module, "READ_S", read_s)
    monkeypatch.setattr(scheduler_module, "READ_BEGUN_S", 60.0)
    monkeypatch.setattr(scheduler_module, "perf_counter", count(0.0, 0.1).__next__)


class Kept(Sink):
    """Keeps what is said, instead of sending it."""

    def __init__(self) -> None:
        super().__init__(-1)
        self.said: list[pipe.Said] = []

    def say(self, said: pipe.Said) -> None:
        pipe.pack(said)
        self.said.append(said)

    def answers(self) -> set[int]:
        """The calls that have had a text."""
        return {said.call for said in self.said if isinstance(said, pipe.Piece)}
