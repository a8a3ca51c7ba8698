"""Requests between the thread that reads and the one that works: who is begun, who is stopped, and that none takes others along."""

from collections.abc import Callable

import pytest

from node.backends.llama_cpp import pipe
from node.backends.llama_cpp.context import Aborted, AbortFlag
from node.backends.llama_cpp.mailbox import Requests, Sink


class Over(Exception):
    """The end of a test."""


class Desk(Sink):
    """Work that is one batch for all calls, and what is said of them. `during` happens while a batch is computed."""

    def __init__(self) -> None:
        super().__init__(-1)
        self.abort = AbortFlag()
        self.requests = Requests(-1, self.abort, self)
        self.calls: set[int] = set()
        self.begun: list[int] = []
        self.computed: list[set[int]] = []
        self.said: list[tuple[int, str]] = []
        self.during: list[Callable[[], None]] = []

    def say(self, said: pipe.Said) -> None:
        assert isinstance(said, pipe.Ended)
        self.said.append((said.call, said.finish))

    def send(self, frames: bytes) -> None: ...

    def begin(self, request: pipe.Generate) -> None:
        self.calls.add(request.call)
        if request.skill == "faulty":
            raise KeyError("no such key")
        self.begun.append(request.call)

    def cancel(self, call: int) -> None:
        if call in self.calls:
            self.calls.remove(call)
            self.say(pipe.Ended(call, "cancelled", 0, 0, ""))

    def plan(self) -> frozenset[int]:
        if not self.during:
            raise Over
        return frozenset(self.calls)

    def step(self) -> None:
        self.during.pop(0)()
        if self.abort:
            raise Aborted
        self.computed.append(set(self.calls))

    def hear(self, *said: pipe.Said) -> None:
        for each in said:
            self.requests.hear(each)

    def serve(self, *during: Callable[[], None]) -> None:
        self.during += during
        with pytest.raises(Over):
            self.requests.serve(self)


def generate(call: int, skill: str = "chat") -> pipe.Generate:
    return pipe.Generate(call, skill, [["user", "Hi"]], 8)


def nothing() -> None: ...


def test_what_is_cancelled_before_its_turn_is_not_begun() -> None:
    desk = Desk()
    desk.hear(generate(1), generate(2), pipe.Cancel(2))
    desk.serve(nothing)
    assert (desk.begun, desk.said) == ([1], [(2, "cancelled")])


def test_a_request_that_meets_a_bug_fails_alone(capfd: pytest.CaptureFixture[str]) -> None:
    desk = Desk()
    desk.hear(generate(1, "faulty"), generate(2))
    desk.serve(nothing)
    assert (desk.said, desk.computed) == ([(1, "failed"), (1, "cancelled")], [{2}]), "nothing is left of it"
    assert "no such key" in capfd.readouterr().err, "the log tells where"


def test_a_batch_is_stopped_when_all_that_it_is_for_are_cancelled() -> None:
    desk = Desk()
    desk.hear(generate(1), generate(2))
    desk.serve(lambda: desk.hear(pipe.Cancel(1)), lambda: desk.hear(pipe.Cancel(2)))
    assert desk.computed[0] == {1, 2}, "one goes on"
    assert desk.said == [(1, "cancelled"), (2, "cancelled")]
    assert len(desk.computed) == 1, "the second batch was for nobody"


def test_a_cancel_says_so_before_the_next_batch() -> None:
    desk = Desk()
    desk.hear(generate(1), generate(2))
    heard: list[tuple[int, str]] = []
    desk.serve(lambda: desk.hear(pipe.Cancel(1)), lambda: heard.extend(desk.said))
    assert heard == [(1, "cancelled")]


def test_requests_that_take_long_to_begin_let_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.backends.llama_cpp.mailbox.BEGIN_S", 0.0)
    desk = Desk()
    desk.hear(generate(1), generate(2), generate(3))
    desk.serve(nothing)
    assert desk.computed == [{1}]
