"""The parent's end of one child process: starts it, talks to it, and makes sure that it is gone."""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import trio

from node.backends import GenerationRequest, Piece, Surroundings
from node.backends.likelihoods import bounded
from node.backends.llama_cpp import pipe
from node.backends.llama_cpp.vitals import Vitals
from protocol.limits import OPTIONS_MAX
from protocol.parts import Logprob, Turn

PING_S = 0.2
STILL_S = 0.4  # For so long a process may owe a sign of life, or the end of a batch, while it stands still,
SILENT_S = 5.0  # and a sign of life while it does not: on a machine that swaps it may take a while.
STEP_S_MAX = 120.0  # Of one batch. The largest models on the slowest processors take a quarter of it.
LOAD_S_MAX = 300.0  # 40 GB from a slow disk. A file that makes the engine loop is given up after it.
CANCEL_S_MAX = 0.8  # That a child is waited for; the contract gives a second.
FRAMES_WAITING_MAX = 256  # To the child, which reads at once. More means that it is frozen.
REAP_S_MAX = 5.0  # A killed process is gone in milliseconds, unless the disk under its model hangs.
TEXT_WAITING_MAX = 1 << 20  # Characters of an answer that nobody reads; the longest answers are a tenth of it.
LOGPROBS_WAITING_MAX = 1 << 15  # Of an answer that nobody reads; one for each token of the longest.


class ChildEnded(Exception):
    """The child is gone. The message is why, for people, and completes "its process …"."""


class ModelUnfit(Exception):
    """The child has found that it cannot use the model. The message completes "FILE: …"."""


@dataclass(eq=False, slots=True)
class Call:
    """One answer on its way: text that waits for its reader, with its tokens, and how it ended."""

    number: int
    text: str = ""
    tokens: list[int] = field(default_factory=list)
    logprobs: list[Logprob] = field(default_factory=list)
    ended: pipe.Ended | None = None
    news: trio.Event = field(default_factory=trio.Event)

    @property
    def has_news(self) -> bool:
        """Whether there is something for the reader."""
        return bool(self.text or self.logprobs)

    def add(self, piece: pipe.Piece) -> None:
        self.text += piece.text
        self.tokens += piece.tokens
        self.logprobs += map(_logprob, piece.logprobs)
        self.news.set()

    def end(self, ended: pipe.Ended) -> None:
        self.ended = ended
        self.news.set()

    def take(self) -> Piece:
        """All that waits."""
        piece = Piece(self.text, tuple(self.tokens), tuple(self.logprobs))
        self.text, self.tokens, self.logprobs = "", [], []
        return piece


class Child:
    """One process of `node.backends.llama_cpp.child`. `serve` must run for anything else to make progress."""

    def __init__(
        self,
        model: Path,
        given: Surroundings,
        log: Path,
        progress: Callable[[float], None] = lambda share: None,
        before: pipe.Ready | None = None,
    ) -> None:
        """Starts the process. Raises OSError if that is impossible. `progress` is told what share of the file has been read.

        `before` is what an earlier process found out about the same model, so that this one need not.
        """
        self._progress = progress
        self._process = _spawn(model, given, log, before)
        assert self._process.stdin is not None and self._process.stdout is not None
        self._to_child = trio.lowlevel.FdStream(os.dup(self._process.stdin.fileno()))
        self._from_child = trio.lowlevel.FdStream(os.dup(self._process.stdout.fileno()))
        self._process.stdin.close()
        self._process.stdout.close()
        self._outbox, self._outgoing = trio.open_memory_channel[bytes](FRAMES_WAITING_MAX)
        self._numbers = count(1)
        self._calls: dict[int, Call] = {}
        self._said: pipe.Ready | pipe.Unfit | None = None
        self._serving = trio.CancelScope()  # Carries frames.
        self._verdict = ""  # Why it was given up.
        self._vitals = Vitals(self._process.pid)
        self._heard_at: float | None = None  # Its latest sign of life. None: it has not given one yet.
        self._steps, self._stepped_at = 0, 0.0  # Batches, and when it was last known to compute another one, or none.
        self._settled = trio.Event()
        self.ended = trio.Event()
        self.cause = ""
        self.doomed = False  # It has been told to die, or is dead; no call may begin any more.

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def signal(self) -> int | None:
        """Which signal ended the child, if one did."""
        code = self._process.returncode
        return -code if code is not None and code < 0 else None

    async def serve(self) -> None:
        """Carry frames until the child ends, however that comes about; then `ended` is set and `cause` says why."""
        cause = ""
        try:
            async with trio.open_nursery() as nursery:
                self._serving = nursery.cancel_scope
                nursery.start_soon(self._write)
                nursery.start_soon(self._watch)
                cause = await self._read()
                nursery.cancel_scope.cancel()
        finally:
            self.kill()
            if not (cause or self._verdict):
                await self._reap()  # How it has died is all that is known.
            self.cause = cause or self._verdict or self._death()
            self.ended.set()
            self._settled.set()
            for call in self._calls.values():
                call.news.set()
            await self._reap()  # One that waits for a disk may take long, or for ever; nobody else waits for that.

    def kill(self) -> None:
        """The child holds nothing worth saving."""
        self.doomed = True
        self._serving.cancel()
        if self._process.poll() is None:
            self._process.kill()

    async def _watch(self) -> None:
        """Ask for signs of life, and give up a child that stands still. What is late itself blames nobody."""
        still_s = 0.0
        while True:
            asked_at = trio.current_time()
            self._tell(pipe.pack(pipe.Ping()))
            await trio.sleep(PING_S)
            now = trio.current_time()
            standstill = await self._vitals.standstill()
            still_s = still_s + now - asked_at if standstill else 0.0
            if self._heard_at is None:
                continue  # It is still starting.
            if now - asked_at > 2 * PING_S:
                self._heard_at = self._stepped_at = now
                still_s = 0.0
            elif now - self._heard_at > SILENT_S:
                self._give_up(f"gave no sign of life for {SILENT_S:.0f} s")
            elif still_s > STILL_S and now - min(self._heard_at, self._stepped_at) > STILL_S:
                self._give_up(standstill)

    def _give_up(self, verdict: str) -> None:
        self._verdict = self._verdict or verdict
        self.kill()

    async def wait_ready(self) -> pipe.Ready:
        """Raises ModelUnfit or ChildEnded."""
        with trio.move_on_after(LOAD_S_MAX):
            await self._settled.wait()
        if isinstance(self._said, pipe.Ready) and not self.ended.is_set():
            return self._said
        if isinstance(self._said, pipe.Unfit):
            raise ModelUnfit(self._said.reason)
        if self.ended.is_set():
            raise ChildEnded(self.cause)
        self.kill()
        raise ModelUnfit(f"it was not loaded within {LOAD_S_MAX:.0f} s")

    async def answer(self, request: GenerationRequest) -> AsyncGenerator[Piece | pipe.Ended, None]:
        """The pieces, joined to what has come since the last was taken, and then Ended. Raises ChildEnded, or
        PipeBroken for a request that is too large.

        Must be closed (`aclosing`): a call that is left before its end is cancelled in the child. One in a batch with others
        may be out of it only when that is computed, which nobody here waits for.
        """
        call = Call(next(self._numbers))
        frame = pipe.pack(_asked(call.number, request))
        self._calls[call.number] = call
        try:
            self._tell(frame)
            while True:
                if call.has_news:
                    yield call.take()
                elif call.ended is not None:
                    yield call.ended
                    return
                elif self.ended.is_set():
                    raise ChildEnded(self.cause)
                else:
                    call.news = trio.Event()
                    await call.news.wait()
        finally:
            if call.ended is None and not self.ended.is_set():
                self._tell(pipe.pack(pipe.Cancel(call.number)))
                with trio.CancelScope(shield=True, deadline=trio.current_time() + CANCEL_S_MAX):
                    while call.ended is None and not self.ended.is_set():
                        call.take()
                        call.news = trio.Event()
                        await call.news.wait()
            del self._calls[call.number]

    def _tell(self, frame: bytes) -> None:
        try:
            self._outbox.send_nowait(frame)
        except (trio.WouldBlock, trio.BrokenResourceError):
            self._give_up("took nothing in any more")  # Frozen, or just dying: either way `serve` ends, and all calls with it.

    async def _write(self) -> None:
        try:
            async for frame in self._outgoing:
                await self._to_child.send_all(frame)
        except trio.BrokenResourceError:
            pass  # The child has closed its end; reading tells the rest.

    async def _read(self) -> str:
        """Until the child closes its end. Returns why the child must go, or nothing if it went by itself."""
        unpacker = pipe.Unpacker()
        try:
            while chunk := await self._from_child.receive_some(65_536):
                for said in unpacker.feed(chunk):
                    self._hear(said)
        except pipe.PipeBroken as error:
            return f"broke the protocol: {error}"
        except trio.BrokenResourceError:
            pass
        return ""

    def _hear(self, said: pipe.Said) -> None:
        match said:
            case pipe.Piece(number):
                call = self._calls.get(number)
                if call is not None and call.ended is None:
                    call.add(said)
                    if len(call.text) + len(call.tokens) > TEXT_WAITING_MAX or len(call.logprobs) > LOGPROBS_WAITING_MAX:
                        raise pipe.PipeBroken("an answer without end")
            case pipe.Ended(number):
                call = self._calls.get(number)
                if call is not None and call.ended is None:
                    call.end(said)
            case pipe.Loading(share):
                self._progress(share)
            case pipe.Pong(steps, busy):
                now = trio.current_time()
                self._heard_at = now
                if steps != self._steps or not busy:
                    self._steps, self._stepped_at = steps, now
                elif now - self._stepped_at > STEP_S_MAX:
                    self._give_up(f"computed for {STEP_S_MAX:.0f} s without an end")
            case pipe.Ready() | pipe.Unfit():
                if self._said is None:
                    self._said = said
                self._settled.set()
            case pipe.Generate() | pipe.Cancel() | pipe.Ping():
                raise pipe.PipeBroken("a child that asks")

    async def _reap(self) -> None:
        try:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + REAP_S_MAX):
                await trio.to_thread.run_sync(self._process.wait, abandon_on_cancel=True)
        finally:
            for stream in (self._to_child, self._from_child):
                await trio.aclose_forcefully(stream)

    def _death(self) -> str:
        if self._process.returncode is None:
            return "does not end"
        if self.signal is not None:
            return f"crashed ({signal_name(self.signal)})"
        return f"ended by itself (exit code {self._process.returncode})"


def _asked(number: int, request: GenerationRequest) -> pipe.Generate:
    sampling, demands = request.sampling, request.demands
    return pipe.Generate(
        number,
        request.skill,
        [_turn(turn) for turn in request.turns],
        request.tokens_max,
        list(request.stops),
        request.delivered,
        list(request.delivered_tokens),
        float(sampling.temperature),
        float(sampling.top_p),
        sampling.top_k,
        float(sampling.min_p),
        float(sampling.repeat_penalty),
        float(sampling.presence_penalty),
        float(sampling.frequency_penalty),
        sampling.seed,
        demands.schema,
        demands.grammar,
        list(demands.options),
        demands.forced,
        list(demands.forced_tokens),
        demands.logprobs,
        demands.tools,
        demands.tool,
    )


def _turn(turn: Turn) -> list[str]:
    if not (turn.calls or turn.call):
        return [turn.role, turn.text]
    return [turn.role, turn.text, turn.call, *(part for call in turn.calls for part in (call.id, call.name, call.arguments))]


def _logprob(told: pipe.Told) -> Logprob:
    (data, logprob), *others = zip(map(_data, told[::2]), map(_share, told[1::2]), strict=True)
    return bounded(data, logprob, others[:OPTIONS_MAX])


def _data(value: bytes | float) -> bytes:
    assert isinstance(value, bytes)
    return value


def _share(value: bytes | float) -> float:
    assert isinstance(value, float)
    return value


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _spawn(model: Path, given: Surroundings, log: Path, before: pipe.Ready | None) -> "subprocess.Popen[bytes]":
    """Start the child in a session of its own, out of reach of the terminal's Ctrl-C, with next to no environment.

    Not by way of trio: it starts processes on a worker thread, and PR_SET_PDEATHSIG would kill the child when that ends.
    """
    environment = {
        # The child finds its modules where this process does, and never in the folder that it happens to stand in.
        "PYTHONPATH": os.pathsep.join(str(Path(place or ".").absolute()) for place in sys.path),
        "PYTHONDONTWRITEBYTECODE": "1",
        "LANG": "C.UTF-8",
        # Threads that exist before the sandbox does would be outside of it.
        "OPENBLAS_NUM_THREADS": "1",
    }
    environment |= {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH") if name in os.environ}
    with _open_log(log) as errors:
        return subprocess.Popen(
            [
                sys.executable, "-P", "-m", "node.backends.llama_cpp.child",
                str(model), given.exact, str(given.threads), str(given.memory_bytes), str(given.context_tokens), str(os.getpid()),
                pipe.pack(before).hex() if before is not None else "",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
            cwd=log.parent if log.parent.is_dir() else "/",
            start_new_session=True,
        )  # fmt: skip


def _open_log(log: Path):  # type: ignore[no-untyped-def]
    """The log, new; the one before is kept beside it. A disk that takes no log does not keep a model from running."""
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        if log.exists():
            log.replace(log.with_name(log.name + ".1"))
        return log.open("wb")
    except OSError:
        return open(os.devnull, "wb")
