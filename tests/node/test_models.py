"""Models within the memory that they may have: who leaves, who stays, who waits; and what becomes of those that die or go."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from node import models as models_module
from node.backends import BackendError, Generated, GenerationRequest, Piece, Surroundings
from node.models import Models, UnknownModel
from protocol import errors
from protocol.messages import TaskRequest
from protocol.parts import AttemptId, Capability, Sampling, TaskId, Turn
from swarm.effects import Generate
from swarm.events import CapabilitiesChanged, Event, GenerationFailed, GenerationFinished

MB = 2**20


@dataclass(eq=False)
class Heavy:
    """A backend that takes memory: its `pid` is how much, in MB."""

    name: str
    pid: int
    surroundings: Surroundings
    load_s: float = 3.0
    fails: str = ""
    lacks: str = ""
    running: bool = False
    go_on: trio.Event = field(default_factory=trio.Event)  # Until then its answers wait.

    async def run(self, *, task_status: trio.TaskStatus[tuple[Capability, ...]]) -> None:
        self.surroundings.tell("half of it")
        self.surroundings.note(self.lacks)
        await trio.sleep(self.load_s)
        if self.fails:
            raise BackendError(self.fails)
        self.running = True
        try:
            known = self.surroundings.measured
            speed = known[0].tokens_per_second if known else 20.0
            task_status.started((Capability("chat", self.name, b"", 2048, speed, 100, 2, (), ""),))
            await trio.sleep_forever()
        finally:
            self.running = False

    async def generate(self, request: GenerationRequest, pieces: trio.MemorySendChannel[str | Piece]) -> Generated:
        if not self.running:
            raise BackendError(f"{self.name} is not running")
        await self.go_on.wait()
        await pieces.send("text")
        return Generated("stop", 1, 1)


@dataclass
class Box:
    """Models, what they tell their member, and every backend that was ever opened."""

    models: Models
    events: list[Event]
    opened: list[Heavy]

    def states(self) -> dict[str, str]:
        return {view.ref: view.state for view in self.models.views()}

    def detail(self, ref: str) -> str:
        """What is said of its state."""
        return next(view.detail for view in self.models.views() if view.ref == ref)

    def offered(self) -> dict[str, int]:
        """Model to time to the first token, as was last told."""
        latest = next(event for event in reversed(self.events) if isinstance(event, CapabilitiesChanged))
        return {capability.model: capability.first_token_ms for capability in latest.capabilities}

    def ask(self, number: int, model: str) -> AttemptId:
        attempt = AttemptId(bytes([number]) * 16)
        turns = (Turn("user", "?"),)
        request = TaskRequest(attempt, TaskId(attempt), "chat", model, turns, 9, Sampling(), (), 60_000)
        self.models.generate(Generate(request, model))
        return attempt

    def ended(self, attempt: AttemptId) -> Event | None:
        ends = [event for event in self.events if isinstance(event, GenerationFinished | GenerationFailed)]
        return next((event for event in ends if event.attempt == attempt), None)

    def answer(self) -> None:
        """Let every backend answer that waits."""
        for backend in self.opened:
            backend.go_on.set()
            backend.go_on = trio.Event()


@asynccontextmanager
async def box(
    monkeypatch: pytest.MonkeyPatch, memory_mb: int, *refs: str, pinned: tuple[str, ...] = (), **more: object
) -> AsyncIterator[Box]:
    """References are NAME:MB."""
    monkeypatch.setattr(models_module, "process_bytes", lambda pid: pid * MB)
    opened: list[Heavy] = []

    def open_model(ref: str, surroundings: Surroundings) -> Heavy:
        name, _, size = ref.partition(":")
        opened.append(Heavy(name, int(size), surroundings, **more))  # type: ignore[arg-type]
        return opened[-1]

    events: list[Event] = []
    models = Models(open_model, Surroundings(Path("unused"), 1), 4, events.append, memory_bytes=memory_mb * MB, pinned=pinned)
    async with trio.open_nursery() as nursery:
        await nursery.start(models.run, refs)
        for source in models.sources:
            await source.settled.wait()
        yield Box(models, events, opened)
        nursery.cancel_scope.cancel()


async def test_who_was_asked_for_least_recently_leaves(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    async with box(monkeypatch, 250, "a:100", "b:100", "c:100") as node:
        await wait_all_tasks_blocked()
        assert node.states() == {"a:100": "resting", "b:100": "ready", "c:100": "ready"}
        assert node.offered() == {"a": 3_100, "b": 100, "c": 100}, "a resting model is offered, with the time that it takes to load"
        for number, (model, resting) in enumerate([("b", "a"), ("a", "c"), ("b", "c"), ("c", "a")], 1):
            attempt = node.ask(number, model)
            await trio.sleep(4)
            node.answer()
            await trio.sleep(1)
            assert isinstance(node.ended(attempt), GenerationFinished), model
            assert [name for name, state in node.states().items() if state == "resting"] == [f"{resting}:100"], model
        assert sum(backend.running for backend in node.opened) == 2


async def test_two_that_want_a_model_while_another_is_loaded_have_it_loaded_once(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    async with box(monkeypatch, 100, "a:100", "b:100", "c:100") as node:
        await wait_all_tasks_blocked()
        assert node.states() == {"a:100": "resting", "b:100": "resting", "c:100": "ready"}
        first = node.ask(1, "b")
        await trio.sleep(1)
        second = node.ask(2, "a")
        await trio.sleep(0.5)
        assert node.detail("a:100") == "waiting for its turn"
        third = node.ask(3, "a")
        for attempts in ([first], [second, third]):
            await trio.sleep(5)
            node.answer()
            await trio.sleep(1)
            assert all(isinstance(node.ended(attempt), GenerationFinished) for attempt in attempts)
        last = node.ask(4, "c")
        await trio.sleep(5)
        node.answer()
        await trio.sleep(1)
        assert isinstance(node.ended(last), GenerationFinished), "nobody stands in its way"


async def test_whoever_is_idle_first_makes_room(monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock) -> None:
    async with box(monkeypatch, 250, "a:100", "b:100", "c:100") as node:
        await wait_all_tasks_blocked()
        c = node.opened[2]
        node.ask(1, "b")
        await trio.sleep(1)
        node.ask(2, "c")
        await trio.sleep(1)
        third = node.ask(3, "a")
        await trio.sleep(1)
        assert node.detail("a:100") == "waiting for memory"
        c.go_on.set()  # Which was asked for later than the other, who goes on for long.
        await trio.sleep(5)
        assert node.states() == {"a:100": "ready", "b:100": "ready", "c:100": "resting"}
        node.answer()
        await trio.sleep(1)
        assert isinstance(node.ended(third), GenerationFinished)


async def test_a_speed_is_measured_once(monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock) -> None:
    async with box(monkeypatch, 150, "a:100", "b:100") as node:
        node.ask(1, "a")
        await trio.sleep(5)
        again = node.opened[-1]
        assert (again.name, [capability.model for capability in again.surroundings.measured]) == ("a", ["a"])


async def test_what_is_pinned_stays_and_what_works_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    async with box(monkeypatch, 250, "a:100", "b:100", "c:100", pinned=("a:100",)) as node:
        await wait_all_tasks_blocked()
        assert node.states() == {"a:100": "ready", "b:100": "resting", "c:100": "ready"}
        busy = node.ask(1, "c")
        waiting = node.ask(2, "b")
        await trio.sleep(100)
        assert (node.states()["b:100"], node.ended(waiting)) == ("loading", None), "c is at work, and a is pinned"
        node.answer()
        await trio.sleep(4)
        assert isinstance(node.ended(busy), GenerationFinished)
        assert node.states() == {"a:100": "ready", "b:100": "ready", "c:100": "resting"}
        node.answer()
        await trio.sleep(1)
        assert isinstance(node.ended(waiting), GenerationFinished)


async def test_a_model_that_can_never_fit_says_so(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    file = tmp_path / "huge.gguf"
    with file.open("wb") as opened:
        opened.truncate(300 * MB)  # A hole: it takes no disk.
    async with box(monkeypatch, 250, "a:100") as node:
        huge = node.models.add(str(file))
        await huge.settled.wait()
        assert huge.state == "failed"
        assert huge.detail == "it takes about 390 MB, and offer.memory leaves 250 MB: set that higher, or take a smaller model"
        assert node.states()["a:100"] == "ready"


async def test_an_attempt_that_waits_for_its_model_can_be_stopped(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    async with box(monkeypatch, 150, "a:100", "b:100") as node:
        attempt = node.ask(1, "a")
        await trio.sleep(1)
        node.models.stop_generating(attempt)
        await trio.sleep(0.1)
        assert node.ended(attempt) == GenerationFailed(attempt, errors.CANCELLED.number, "")
        await trio.sleep(10)
        assert node.states() == {"a:100": "ready", "b:100": "resting"}, "it is loaded all the same"


async def test_a_model_that_does_not_come_back_fails_with_those_that_wait(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    async with box(monkeypatch, 150, "a:100", "b:100") as node:
        def spoil(backend: Heavy) -> None:
            backend.fails = "the disk is gone"

        opened = node.models._open_model
        monkeypatch.setattr(node.models, "_open_model", _spoiling(opened, spoil))
        for number in range(models_module.RELOADS_MAX):
            assert (node.states()["a:100"], node.offered().keys()) == ("resting", {"a", "b"}), "it may be for a moment"
            attempt = node.ask(number, "a")
            await trio.sleep(5)
            assert node.ended(attempt) == GenerationFailed(attempt, errors.BACKEND_FAILED.number, "the disk is gone")
        assert (node.states()["a:100"], node.offered().keys()) == ("failed", {"b"})


def _spoiling(opened: Callable[..., object], spoil: Callable[[Heavy], None]) -> Callable[..., Heavy]:
    def open_model(ref: str, surroundings: Surroundings) -> Heavy:
        backend = opened(ref, surroundings)
        assert isinstance(backend, Heavy)
        spoil(backend)
        return backend

    return open_model


async def test_what_is_removed_is_offered_no_more_and_what_it_did_goes_on_elsewhere(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    async with box(monkeypatch, 500, "a:100", "b:100") as node:
        attempt = node.ask(1, "a")
        await trio.sleep(1)
        assert node.models.remove("a").model == "a"
        await trio.sleep(1)
        assert (node.offered(), node.states()) == ({"b": 100}, {"b:100": "ready"})
        ended = node.ended(attempt)
        assert ended is None or isinstance(ended, GenerationFailed)
        assert not node.opened[0].running
        with pytest.raises(UnknownModel, match='no model "a"; it has b:100'):
            node.models.remove("a")
        await node.models.add("a:100").settled.wait()
        assert node.states() == {"b:100": "ready", "a:100": "ready"}


async def test_what_a_ready_model_lacks_is_told(monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock) -> None:
    async with box(monkeypatch, 500, "a:100", lacks="it has no chat template") as node:
        assert [(view.state, view.detail) for view in node.models.views()] == [("ready", "it has no chat template")]


async def test_a_model_can_be_removed_while_it_loads(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    async with box(monkeypatch, 500, "a:100") as node:
        added = node.models.add("b:100")
        await trio.sleep(1)
        assert [(view.state, view.detail) for view in node.models.views()] == [("ready", ""), ("loading", "half of it")]
        node.models.remove("b:100")
        await added.settled.wait()
        assert added.view.state == "removed"
        await node.models.add("c:100").settled.wait()
        assert node.states() == {"a:100": "ready", "c:100": "ready"}


async def test_what_is_being_restarted_is_not_offered_meanwhile(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    async with box(monkeypatch, 500, "a:100", "b:100") as node:
        tell = node.opened[0].surroundings.available
        tell(False)
        assert (node.offered(), node.states()["a:100"]) == ({"b": 100}, "restarting")
        tell(True)
        assert node.offered() == {"a": 100, "b": 100}


async def test_a_bug_in_a_plug_in_fails_what_it_did_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    async with box(monkeypatch, 500, "a:100") as node:
        monkeypatch.setattr(node.opened[0], "generate", lambda *_: {}["no such key"])
        attempt = node.ask(1, "a")
        await trio.sleep(1)
        reason = "a bug in its backend: KeyError('no such key')"
        assert node.ended(attempt) == GenerationFailed(attempt, errors.BACKEND_FAILED.number, reason)
        monkeypatch.setattr(Heavy, "run", lambda *_, **__: {}["no such key"])
        added = node.models.add("b:100")
        await added.settled.wait()
        assert (added.state, added.detail) == ("failed", reason)
        assert node.states()["a:100"] == "ready"


async def test_one_is_loaded_at_a_time(monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock) -> None:
    """Or each would make the other look slow."""
    began = trio.current_time()
    async with box(monkeypatch, 500, "a:100", "b:100", "c:100"):
        assert trio.current_time() - began == pytest.approx(9)


async def test_a_model_that_always_has_something_to_do_leaves_for_one_that_waits(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    async with box(monkeypatch, 100, "b:100", "a:100") as node:
        await wait_all_tasks_blocked()
        assert node.states() == {"b:100": "resting", "a:100": "ready"}
        asked = [node.ask(1, "a"), node.ask(2, "b")]
        for number in range(3, 30):
            await trio.sleep(1)
            node.answer()
            asked.append(node.ask(number, "a"))  # Before the one that was just answered has gone.
        assert isinstance(node.ended(asked[1]), GenerationFinished)
        await trio.sleep(10)
        node.answer()
        await trio.sleep(10)
        node.answer()
        await trio.sleep(1)
        assert all(isinstance(node.ended(attempt), GenerationFinished) for attempt in asked), "and comes back for its own"


async def test_a_model_that_cannot_be_loaded_again_just_now_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    async with box(monkeypatch, 100, "b:100", "a:100") as node:
        await wait_all_tasks_blocked()
        assert node.states() == {"b:100": "resting", "a:100": "ready"}
        short = node.opened

        def open_short(ref: str, surroundings: Surroundings) -> Heavy:
            short.append(Heavy("b", 100, surroundings, fails="no memory"))
            return short[-1]

        opening = node.models._open_model
        monkeypatch.setattr(node.models, "_open_model", open_short)
        attempt = node.ask(1, "b")
        await trio.sleep(5)
        assert node.ended(attempt) == GenerationFailed(attempt, errors.BACKEND_FAILED.number, "no memory"), "others can do it"
        assert (node.states()["b:100"], node.offered().keys()) == ("resting", {"a", "b"})
        monkeypatch.setattr(node.models, "_open_model", opening)
        attempt = node.ask(2, "b")
        await trio.sleep(5)
        node.answer()
        await trio.sleep(1)
        assert isinstance(node.ended(attempt), GenerationFinished)


async def test_what_has_left_memory_is_told_to_hold_nothing(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    async with box(monkeypatch, 100, "b:100", "a:100") as node:
        await wait_all_tasks_blocked()
        told = [event.resting for event in node.events if isinstance(event, CapabilitiesChanged)]
        assert (told[0], told[-1]) == (frozenset(), frozenset({"b"}))


async def test_those_that_have_failed_take_no_place_and_do_not_pile_up(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    async with box(monkeypatch, 5_000, *(f"m{number}:1" for number in range(models_module.SOURCES_MAX - 1))) as node:
        for number in range(20):
            await node.models.add(f"no size {number}").settled.wait()
        assert (len(node.states()), list(node.states().values()).count("failed")) == (models_module.SOURCES_MAX, 1)
        assert node.states()["no size 19"] == "failed", "the newest"
        good = node.models.add("good:1")
        await good.settled.wait()
        assert (good.state, set(node.states().values())) == ("ready", {"ready"})
        over = node.models.add("over:1")
        assert (over.state, over.detail) == ("failed", "a node offers at most 16 models")
        assert over.settled.is_set() and over not in node.models.sources
