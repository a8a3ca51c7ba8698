"""The backend `llama_cpp`: one GGUF model in a child process that is started again when it dies.

Reference: `llama_cpp:PATH`, or `llama_cpp:NAME=PATH` to offer it by another name than the file's. A model with a usable chat
template offers `chat`, `summarize` and `complete`; one without (a base model) only `complete`; one that makes vectors `embed`,
one that judges texts `rerank`.
"""

import logging
import os
import random
import signal
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from pathlib import Path

import trio

from node import function_calls
from node.backends import DESCRIPTIONS, BackendError, Generated, GenerationRequest, Piece, Surroundings
from node.backends.llama_cpp import model_file, pipe
from node.backends.llama_cpp.process import Child, ChildEnded, ModelUnfit
from node.backends.self_test import measure_each
from node.backends.words import send
from protocol.limits import (
    ARGUMENTS_BYTES_MAX,
    CALLS_MAX,
    CONTEXT_TOKENS_MAX,
    FUNCTION_BYTES_MAX,
    NUMERICS_BYTES_MAX,
    SLOTS_MAX,
    TOKENS_MAX,
)
from protocol.parts import FEATURES, Capability, FunctionCall

COMPLAINT_MAX = 240  # Characters of the engine's words that a user reads.
RESTARTS_MAX = 5  # In a row. A model that dies more often has gone for good.
BACKOFF_S, BACKOFF_S_MAX = 0.1, 30.0  # Before the first restart, which nearly always is all it takes, and before any;
BACKOFF_FACTOR = 4  # for each more. Times a random half to one and a half: nodes of a swarm do not restart in step.
CALM_S = 60.0  # A child that served for this long counts as well: the row of restarts begins anew.
LOG_TAIL_BYTES = 16_384  # Where the engine's last complaint is looked for.

_log = logging.getLogger(__name__)


class LlamaCppBackend:
    """One model. Its child works on as many calls at a time as there is memory for."""

    def __init__(self, argument: str, surroundings: Surroundings) -> None:
        """Opens nothing. Raises BackendError where child processes of this kind are impossible, or without a path."""
        if os.name != "posix":
            raise BackendError(
                "llama_cpp needs Linux or macOS; here, run llama-server or Ollama and give its URL.", retryable=False
            )
        self.model, path = model_file.split_argument(argument)
        if not path:
            raise BackendError("llama_cpp needs a file: llama_cpp:/path/to/model.gguf", retryable=False)
        self.path = Path(path).expanduser().absolute()
        self._surroundings = surroundings
        self.log = surroundings.logs / f"{''.join(c if c.isalnum() or c in '._-' else '_' for c in self.model)}.log"
        self._child: Child | None = None
        self._found: pipe.Ready | None = None  # What the first child has found out, those after it need not.
        self._digest = b""
        self._skills: tuple[str, ...] = ()
        self._changed = trio.Event()
        self._gone: str | None = "has not been started"
        self._turn = trio.Semaphore(1)
        self._entered_at = float("inf")  # When the latest child had loaded; it may not have yet.

    @property
    def pid(self) -> int | None:
        """The child's process id while one is ready."""
        return self._child.pid if self._child else None

    async def run(self, *, task_status: trio.TaskStatus[tuple[Capability, ...]]) -> None:
        """As `Backend.run`. Raises when the child has died RESTARTS_MAX times in a row."""
        await trio.to_thread.run_sync(model_file.check_header, self.path)
        failure: BackendError | None = None
        try:
            failure = await self._live(task_status)
            restarts = 0
            while not failure:
                failure, restarts = await self._live_again(restarts)
        finally:
            self._enter(None, gone=str(failure) if failure else "is not running")
        raise failure

    async def generate(self, request: GenerationRequest, pieces: trio.MemorySendChannel[str | Piece]) -> Generated:
        """As `Backend.generate`. While the child is being restarted, calls wait for it."""
        async with self._turn:
            child = await self._wait_child()
            if request.model != self.model or request.skill not in self._skills:
                raise BackendError(
                    f'{self.model} does {", ".join(self._skills)}; not "{request.skill}" with "{request.model}".',
                    retryable=False,
                )
            if not request.turns:
                raise BackendError(f"{request.skill} needs at least one turn.", retryable=False)
            try:
                async with aclosing(child.answer(request)) as answer:
                    async for item in answer:
                        if isinstance(item, pipe.Ended):
                            return self._generated(item, request)
                        await send(pieces, item)
            except ChildEnded as error:
                raise BackendError(
                    f"{self.model}: its process {error} while it answered; it is being restarted."
                ) from None
            except pipe.PipeBroken as error:
                raise BackendError(f"{self.model}: the request is too large ({error}).", retryable=False) from None
        raise AssertionError("an answer ends with Ended")

    def _generated(self, ended: pipe.Ended, request: GenerationRequest) -> Generated:
        if ended.finish in ("stop", "length", "tool_calls"):
            # Counts go on the wire; a child that a hostile file has taken over must not bend them out of bounds.
            given = request.demands.forced or request.demands.options  # Texts that are as long as they are.
            tokens_out = _within(ended.tokens_out, TOKENS_MAX if given else request.tokens_max)
            calls = tuple(_call(*each) for each in ended.functions[:CALLS_MAX] if len(each) == 2)
            return Generated(ended.finish, _within(ended.tokens_in, CONTEXT_TOKENS_MAX), tokens_out, calls)
        if ended.finish in ("refused", "too_long"):
            raise BackendError(f"{self.model}: {ended.reason}.", retryable=False, too_long=ended.finish == "too_long")
        raise BackendError(f"{self.model}: {ended.reason or ended.finish}.")

    async def _wait_child(self) -> Child:
        while True:
            if self._gone is not None:
                raise BackendError(f"{self.model}: {self._gone}")
            if self._child is not None and not self._child.doomed:
                return self._child
            await self._changed.wait()

    def _enter(self, child: Child | None, *, gone: str | None = None) -> None:
        self._child, self._gone = child, gone
        if child is not None:
            self._entered_at = trio.current_time()
        self._changed.set()
        self._changed = trio.Event()
        self._surroundings.available(child is not None)

    def _tell_progress(self, share: float) -> None:
        self._surroundings.tell(f"reading its file, {min(max(share, 0.0), 1.0):.0%}")

    # --- The child's life -------------------------------------------------------------------------------------------------

    async def _live(self, task_status: trio.TaskStatus[tuple[Capability, ...]] | None = None) -> BackendError | None:
        """Start a child and stay until it ends. Returns why it could not be used, or None if it was used and then died.

        `task_status` is that of the first one, which is introduced.
        """
        failure: BackendError | None = None
        try:
            child = Child(self.path, self._surroundings, self.log, self._tell_progress, self._found)
        except OSError as error:
            return BackendError(f"{self.model}: no process can be started: {error.strerror}.")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child.serve)
            try:
                ready = await child.wait_ready()
                if task_status is not None:
                    self._found = ready
                    task_status.started(await self._introduce(child, ready))
                elif await self._read_digest() != self._digest:
                    raise BackendError(f"{self.path} has changed since it was loaded; remove the model and add it again.")
                else:
                    self._enter(child)
                await child.ended.wait()
                _log.warning("%s: its process %s; log: %s", self.model, child.cause, self.log)
            except (ModelUnfit, ChildEnded, BackendError) as error:
                failure = self._why(child, error)
                nursery.cancel_scope.cancel()
            finally:
                self._enter(None)
        return failure

    async def _live_again(self, restarts: int) -> tuple[BackendError | None, int]:
        delay_s = min(BACKOFF_S * BACKOFF_FACTOR**restarts, BACKOFF_S_MAX) * random.uniform(0.5, 1.5)
        await trio.sleep(delay_s)
        self._entered_at = float("inf")
        failure = await self._live()
        restarts = 0 if trio.current_time() - self._entered_at > CALM_S else restarts + 1
        if restarts < RESTARTS_MAX:
            return None, restarts
        return failure or BackendError(
            f"{self.model}: its process has died {restarts} times in a row; see {self.log}."
        ), 0

    async def _introduce(self, child: Child, ready: pipe.Ready) -> tuple[Capability, ...]:
        """Digest and self-test of a child that has just loaded. Raises BackendError, also when the child dies meanwhile."""
        if ready.note:
            _log.info("%s: %s", self.model, ready.note)
            self._surroundings.note(ready.note)
        _log.info("%s: %d threads; sandbox: %s", self.model, ready.threads, ", ".join(ready.guards))
        digest = self._digest = await self._read_digest()
        self._skills = tuple(skill for skill in ready.skills if skill in DESCRIPTIONS)
        context_tokens, numerics = (
            _within(ready.context_tokens, CONTEXT_TOKENS_MAX),
            ready.numerics[:NUMERICS_BYTES_MAX],
        )
        slots = max(1, _within(ready.slots, SLOTS_MAX))
        self._turn = trio.Semaphore(slots)
        features = tuple(feature for feature in FEATURES if feature in ready.features)
        speedup = speedup_of(ready.speedup, slots)
        offered = Capability("", self.model, digest, context_tokens, 0.0, 0, slots, (), "", numerics, features, speedup=speedup)
        self._enter(child)
        # Of the same file: another may lie there by now.
        measured = [each for each in self._surroundings.measured if each.digest == digest]
        if known := [each for each in measured if each.skill in self._skills]:
            self._skills = tuple(each.skill for each in known)
            return tuple(
                replace(
                    _of_skill(offered, each.skill, each.description),
                    tokens_per_second=each.tokens_per_second,
                    first_token_ms=each.first_token_ms,
                    tokens_in_per_second=each.tokens_in_per_second,
                )
                for each in known
            )
        passed: tuple[Capability, ...] = ()
        self._surroundings.tell("measuring its speed")
        async with trio.open_nursery() as nursery:
            # Calls wait for a restart, which a first child does not get.
            nursery.start_soon(_cancel_after, child.ended, nursery.cancel_scope)
            skills = [_of_skill(offered, skill, DESCRIPTIONS[skill]) for skill in self._skills]
            passed = await measure_each(self, skills)
            nursery.cancel_scope.cancel()
        if child.ended.is_set():
            raise ChildEnded(child.cause)
        self._skills = tuple(capability.skill for capability in passed)
        return passed

    async def _read_digest(self) -> bytes:
        """Of the file as it is now; read again only if it has changed. Raises BackendError."""
        cache, check = self._surroundings.logs / "digests.json", trio.from_thread.check_cancelled
        try:
            return await trio.to_thread.run_sync(partial(model_file.digest, self.path, cache, check))
        except OSError as error:
            raise BackendError(f"{self.path} cannot be read: {error.strerror}.", retryable=False) from error

    def _why(self, child: Child, error: Exception) -> BackendError:
        """What a user should read of a model that cannot be used."""
        if isinstance(error, BackendError) and not child.ended.is_set():
            return error
        if isinstance(error, ModelUnfit):
            reason = str(error)
            if reason.startswith("engine missing"):
                return BackendError(
                    f"llama {reason}. Install it: pip install 'starlings[llama]' (it needs a C++ compiler and some minutes).",
                    retryable=False,
                )
            return BackendError(f"{self.path}: {reason}{self._complaint()}. Log: {self.log}", retryable=False)
        if child.signal == signal.SIGILL:
            return BackendError(
                f"{self.path}: the engine's build crashes on this processor (SIGILL). Run `make engine`: it builds the "
                "engine anew with safe flags.",
                retryable=False,
            )
        return BackendError(
            f"{self.path}: the engine's process {child.cause or error} on it{self._complaint()}; the file may be damaged. "
            f"Log: {self.log}",
            retryable=False,
        )

    def _complaint(self) -> str:
        """The engine's last line about an error, from its log: a file's own words may be in it, so it is cut and cleaned."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, self.log.stat().st_size - LOG_TAIL_BYTES))
                lines = file.read(LOG_TAIL_BYTES).decode("utf-8", "replace").splitlines()
        except OSError:
            return ""
        for line in reversed(lines):
            if "error loading model" in line or "GGML_ASSERT" in line or "gguf_init" in line:
                return f" ({''.join(c for c in line if c.isprintable())[:COMPLAINT_MAX].strip()})"
        return ""


def _of_skill(offered: Capability, skill: str, description: str) -> Capability:
    """What a model offers with one skill: functions are called in a conversation only."""
    features = tuple(feature for feature in offered.features if feature != "tools" or skill == "chat")
    return replace(offered, skill=skill, description=description, features=features)


def _call(name: str, arguments: str) -> FunctionCall:
    if len(name.encode()) > FUNCTION_BYTES_MAX or len(arguments.encode()) > ARGUMENTS_BYTES_MAX:
        raise BackendError(f"the model's call of a function is too long ({len(arguments)} characters).", retryable=False)
    return FunctionCall(function_calls.new_id(), name, arguments)


def speedup_of(told: float, slots: int) -> float:
    """How many times as fast as one alone all slots are together, as the child has timed it, whatever it says."""
    return round(min(max(told, 1.0), float(slots)), 2) if told == told else 1.0


def _within(number: int, most: int) -> int:
    return max(0, min(number, most))


async def _cancel_after(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


def open_llama_cpp(argument: str, surroundings: Surroundings) -> LlamaCppBackend:
    """The entry point `llama_cpp`."""
    return LlamaCppBackend(argument, surroundings)
