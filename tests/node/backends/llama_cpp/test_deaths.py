"""The child dies in every way; calls fail in words, the model comes back, and nothing is left when the parent is gone."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import trio

from node.backends import BackendError, GenerationRequest, Piece, Surroundings
from node.backends.contract import ask, running
from node.backends.llama_cpp import backend as backend_module
from node.backends.llama_cpp import model_file, pipe
from node.backends.llama_cpp.backend import LlamaCppBackend
from node.backends.llama_cpp.process import REAP_S_MAX, STILL_S, Child, ChildEnded
from protocol.parts import Capability, Sampling, Turn
from tests.node.backends.llama_cpp.hanging import COMPUTING, SLEEPING, WAITING, write_site

DEADLINE_S = 60.0  # A safety net on a busy machine.

PARENT = """
import sys, trio
from pathlib import Path
from node.backends import GenerationRequest, Surroundings
from node.backends.llama_cpp.backend import LlamaCppBackend
from node.backends.llama_cpp.process import Child
from protocol.parts import Sampling, Turn

moment = sys.argv[3]
backend = LlamaCppBackend(sys.argv[1], Surroundings(Path(sys.argv[2]), 1))
started = Child.__init__

def say(*words):
    print(*words, flush=True)

def start(child, *arguments):
    started(child, *arguments)
    say(child.pid)

Child.__init__ = start

async def main():
    async with trio.open_nursery() as nursery:
        if moment == "loading":
            nursery.start_soon(nursery.start, backend.run)
            return
        await nursery.start(backend.run)
        say("loaded")
        if moment == "answering":
            send, receive = trio.open_memory_channel(0)
            request = GenerationRequest("complete", backend.model, (Turn("user", "Hi"),), 4000, Sampling(seed=1), ())
            nursery.start_soon(backend.generate, request, send)
            await receive.receive()
            say("answering")
        await trio.sleep_forever()

trio.run(main)
"""


def long_request() -> GenerationRequest:
    return GenerationRequest("complete", "nonsense", (Turn("user", "Hi"),), 4000, Sampling(seed=1), ())


def short_request() -> GenerationRequest:
    return GenerationRequest("chat", "nonsense", (Turn("user", "Hi"),), 8, Sampling(seed=1), ())


async def strike(backend: LlamaCppBackend, number: int) -> BackendError:
    """Send the child a signal in the middle of an answer; returns what the answer failed with."""
    send, receive = trio.open_memory_channel[str](0)
    failed: list[BackendError] = []

    async def call() -> None:
        with send:
            try:
                await backend.generate(long_request(), send)
            except BackendError as error:
                failed.append(error)

    with trio.fail_after(DEADLINE_S), receive:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await receive.receive()
            assert backend.pid is not None
            os.kill(backend.pid, number)
            async for _ in receive:
                pass
    return failed[0]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
async def test_a_crash_fails_the_call_and_the_model_comes_back(
    number: signal.Signals, nonsense: Path, surroundings: Surroundings
) -> None:
    async with running(backend := LlamaCppBackend(str(nonsense), surroundings)):
        before = backend.pid
        error = await strike(backend, number)
        assert f"crashed ({number.name})" in str(error) and error.retryable
        assert (await ask(backend, short_request())).text
        assert backend.pid != before


async def test_what_the_first_process_found_out_is_not_tried_again(
    nonsense: Path, surroundings: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[pipe.Ready] = []
    wait = Child.wait_ready

    async def wait_and_note(child: Child) -> pipe.Ready:
        found.append(await wait(child))
        return found[-1]

    monkeypatch.setattr(Child, "wait_ready", wait_and_note)
    async with running(backend := LlamaCppBackend(str(nonsense), surroundings)):
        await strike(backend, signal.SIGKILL)
        assert (await ask(backend, short_request())).text
    assert found[1] == found[0], "measured again, its speed would be another"


async def test_calls_that_wait_are_answered_after_the_crash(nonsense: Path, surroundings: Surroundings) -> None:
    answers: list[str] = []

    async def wait_in_line() -> None:
        answers.append((await ask(backend, short_request())).text)

    async def fail() -> None:
        with pytest.raises(BackendError):
            await ask(backend, long_request())

    async with running(backend := LlamaCppBackend(str(nonsense), surroundings)) as capabilities:
        expected = (await ask(backend, short_request())).text
        async with trio.open_nursery() as nursery:
            for _ in range(capabilities[0].slots - 1):
                nursery.start_soon(fail)
            nursery.start_soon(strike, backend, signal.SIGKILL)
            await trio.testing.wait_all_tasks_blocked(0.01)
            for _ in range(3):
                nursery.start_soon(wait_in_line)
    assert answers == [expected] * 3


async def test_a_frozen_child_is_replaced_when_a_call_is_cancelled(nonsense: Path, surroundings: Surroundings) -> None:
    async with running(backend := LlamaCppBackend(str(nonsense), surroundings)):
        before = backend.pid
        assert before is not None
        send, receive = trio.open_memory_channel[str](0)
        with trio.fail_after(DEADLINE_S), send, receive:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(backend.generate, long_request(), send)
                await receive.receive()
                os.kill(before, signal.SIGSTOP)
                nursery.cancel_scope.cancel()
            assert (await ask(backend, short_request())).text
        assert backend.pid != before


async def test_a_stopped_child_is_seen_within_a_second_and_replaced(nonsense: Path, surroundings: Surroundings) -> None:
    told: list[bool] = []
    watched = replace(surroundings, available=told.append)
    async with running(backend := LlamaCppBackend(str(nonsense), watched)):
        began = trio.current_time()
        error = await strike(backend, signal.SIGSTOP)
        assert "its process was stopped" in str(error) and error.retryable
        assert trio.current_time() - began < 5, "a busy machine may take longer than a second"
        assert (await ask(backend, short_request())).text
        assert told[-2:] == [False, True], "it was not offered meanwhile"


@pytest.fixture
def hanging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Children that hang at a signal."""
    monkeypatch.syspath_prepend(write_site(tmp_path))


@pytest.mark.usefixtures("hanging")
@pytest.mark.parametrize("number", [WAITING, SLEEPING])
async def test_a_child_that_hangs_is_seen_within_a_second_and_replaced(
    number: signal.Signals, nonsense: Path, surroundings: Surroundings
) -> None:
    async with running(backend := LlamaCppBackend(str(nonsense), surroundings)):
        error = await strike(backend, number)
        assert "its process stood still" in str(error) and error.retryable
        assert (await ask(backend, short_request())).text


@pytest.mark.usefixtures("hanging")
async def test_a_child_that_has_hung_with_nothing_to_do_is_seen_when_it_has(nonsense: Path, surroundings: Surroundings) -> None:
    async with running(backend := LlamaCppBackend(str(nonsense), surroundings)):
        assert backend.pid is not None
        await trio.sleep(STILL_S)  # It has just answered, and goes back to waiting.
        os.kill(backend.pid, WAITING)
        await trio.sleep(2 * STILL_S)
        with trio.fail_after(DEADLINE_S), pytest.raises(BackendError, match="stood still"):
            await ask(backend, short_request())
        assert (await ask(backend, short_request())).text


@pytest.mark.usefixtures("hanging")
async def test_a_child_that_is_only_slow_is_left_alone(nonsense: Path, surroundings: Surroundings) -> None:
    async with running(backend := LlamaCppBackend(str(nonsense), surroundings)):
        before = backend.pid
        assert before is not None
        os.kill(before, COMPUTING)
        assert (await ask(backend, short_request())).text
        assert backend.pid == before


async def test_a_child_that_computes_without_end_is_replaced(
    smollm2: Path, surroundings: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread that reads still gives signs of life."""
    async with running(backend := LlamaCppBackend(f"nonsense={smollm2}", surroundings)):
        monkeypatch.setattr("node.backends.llama_cpp.process.STEP_S_MAX", 0.05)  # Reading this takes half a second a step.
        with pytest.raises(BackendError, match="its process computed for 0 s without an end"):
            await ask(backend, replace(long_request(), turns=(Turn("user", "a bird " * 1_500),)))


async def test_a_request_too_large_for_the_pipe_harms_nobody(nonsense: Path, surroundings: Surroundings) -> None:
    async with running(backend := LlamaCppBackend(str(nonsense), surroundings)):
        before = backend.pid
        with pytest.raises(BackendError, match="too large") as raised:
            await ask(backend, replace(long_request(), turns=(Turn("user", "x" * 600_000),)))
        assert not raised.value.retryable
        assert (await ask(backend, short_request())).text
        assert backend.pid == before


async def test_a_call_that_is_cancelled_among_others_takes_none_of_them_along(
    smollm2: Path, surroundings: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a batch takes: the call is out when that is computed, and nobody is killed for it."""
    monkeypatch.setattr("node.backends.llama_cpp.process.CANCEL_S_MAX", 0.0)
    async with running(backend := LlamaCppBackend(f"nonsense={smollm2}", surroundings)):
        before, whole = backend.pid, await ask(backend, short_request())
        for _ in range(5):
            send, receive = trio.open_memory_channel[str | Piece](0)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(backend.generate, long_request(), send)
                await receive.receive()
                async with trio.open_nursery() as others:
                    others.start_soon(_is_answered, backend, whole.text)
                    others.start_soon(_is_answered, backend, whole.text)
                    await trio.sleep(0.05)
                    nursery.cancel_scope.cancel()
                    with trio.CancelScope(shield=True):
                        await trio.testing.wait_all_tasks_blocked(0.01)
        assert (await ask(backend, short_request())).text == whole.text
        assert backend.pid == before


async def _is_answered(backend: LlamaCppBackend, expected: str) -> None:
    with trio.CancelScope(shield=True):
        assert (await ask(backend, short_request())).text == expected


async def test_a_child_that_cannot_be_ended_keeps_nobody_waiting(nonsense: Path, surroundings: Surroundings) -> None:
    """As one that waits for a disk that is gone."""
    async with running(backend := LlamaCppBackend(str(nonsense), surroundings)):
        child, pid = backend._child, backend.pid
        assert child is not None and pid is not None
        child._process.kill = lambda: None  # type: ignore[method-assign]
        try:
            with trio.fail_after(REAP_S_MAX / 2):
                error = await strike(backend, signal.SIGSTOP)
            assert "its process was stopped" in str(error)
        finally:
            os.kill(pid, signal.SIGKILL)
        assert (await ask(backend, short_request())).text


class LoadsForLong:
    """Stands in for a process: each dies while it loads for longer than counts as calm, but for the first."""

    started = 0

    def __init__(self, *_: object) -> None:
        self.ended, self.cause, self.signal, self.doomed, self.pid = trio.Event(), "crashed", 9, False, 1
        LoadsForLong.started += 1
        self.is_first = LoadsForLong.started == 1

    async def serve(self) -> None:
        await trio.sleep(2 * backend_module.CALM_S)
        self.ended.set()

    async def wait_ready(self) -> pipe.Ready:
        if not self.is_first:
            await self.ended.wait()
            raise ChildEnded(self.cause)
        return pipe.Ready(512, 1, 1, ["complete"], [], [], "", b"", 1.0, 1, 1e7)


async def test_loading_for_long_is_not_serving_for_long(
    nonsense: Path, surroundings: Surroundings, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    monkeypatch.setattr(backend_module, "Child", LoadsForLong)
    digest = model_file.digest(nonsense, surroundings.logs / "digests.json", lambda: None)
    known = Capability("complete", "nonsense", digest, 512, 1.0, 1, 1, (), "")
    backend = LlamaCppBackend(str(nonsense), replace(surroundings, measured=(known,)))
    autojump_clock.autojump_threshold = 0.1  # The file's digest is made by a thread.
    with pytest.RaisesGroup(BackendError):
        async with trio.open_nursery() as nursery:
            await nursery.start(backend.run)
    assert LoadsForLong.started == 1 + backend_module.RESTARTS_MAX


async def test_a_model_that_cannot_come_back_is_given_up(
    nonsense: Path, tmp_path: Path, surroundings: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend_module, "BACKOFF_S", 0.001)
    model = tmp_path / "gone.gguf"
    os.link(nonsense, model)
    backend = LlamaCppBackend(f"nonsense={model}", surroundings)
    with pytest.RaisesGroup(pytest.RaisesExc(BackendError, match=r"gone\.gguf")):
        async with trio.open_nursery() as nursery:
            with trio.fail_after(DEADLINE_S):
                await nursery.start(backend.run)
                os.unlink(model)
                assert backend.pid is not None
                os.kill(backend.pid, signal.SIGKILL)
                with pytest.raises(BackendError):
                    while True:
                        await ask(backend, short_request())


@pytest.fixture
def parent(nonsense: Path, tmp_path: Path, request: pytest.FixtureRequest) -> "Iterator[subprocess.Popen[str]]":
    """A process with a model, at the moment that the test names."""
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT, nonsense, tmp_path / "logs", request.param],
        cwd=Path(__file__).parents[4],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    yield process
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    process.communicate()


def child_at(process: "subprocess.Popen[str]", moment: str) -> psutil.Process:
    assert process.stdout is not None
    child = psutil.Process(int(process.stdout.readline()))
    if moment in ("loaded", "answering"):
        assert process.stdout.readline() == "loaded\n"
    if moment == "answering":
        assert process.stdout.readline() == "answering\n"
    return child


MOMENTS = pytest.mark.parametrize(
    ("parent", "moment"), [(moment, moment) for moment in ("loading", "loaded", "answering")], indirect=["parent"]
)


@MOMENTS
def test_a_killed_parent_leaves_no_child(parent: "subprocess.Popen[str]", moment: str) -> None:
    child = child_at(parent, moment)
    parent.kill()
    assert psutil.wait_procs([child], timeout=DEADLINE_S)[1] == []


@MOMENTS
def test_ctrl_c_ends_both_without_noise_from_the_child(parent: "subprocess.Popen[str]", moment: str) -> None:
    child = child_at(parent, moment)
    os.killpg(parent.pid, signal.SIGINT)
    _, errors = parent.communicate(timeout=DEADLINE_S)
    assert psutil.wait_procs([child], timeout=DEADLINE_S)[1] == []
    assert parent.returncode != 0
    assert errors.count("KeyboardInterrupt") >= 1 and "BackendError" not in errors


@pytest.mark.parametrize(("parent", "moment"), [("answering", "answering")], indirect=["parent"])
def test_the_child_is_out_of_the_terminals_reach(parent: "subprocess.Popen[str]", moment: str) -> None:
    child = child_at(parent, moment)
    assert os.getsid(child.pid) == child.pid != os.getsid(parent.pid)
