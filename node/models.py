"""This node's models: opens their backends, keeps them within the memory that they may have, and lets them work for attempts."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TypeVar

import trio

from node.backends import Backend, BackendError, Surroundings
from node.backends.llama_cpp.model_file import parts
from node.backends.references import file_of, without_secrets
from node.generating import answer
from node.memory import process_bytes
from node.sources import LoadQueue, Source
from node.views import ModelView
from protocol import errors
from protocol import limits as lim
from protocol.codec import encode
from protocol.errors import LocalProtocolError
from protocol.messages import Advert, TaskRequest
from protocol.parts import AttemptId, Capability
from swarm.effects import Generate
from swarm.events import CapabilitiesChanged, Event, GenerationFailed

log = logging.getLogger(__name__)

SOURCES_MAX = lim.CAPABILITIES_MAX  # More could not be advertised.
RELOADS_MAX = 3  # In a row that fail: then it is not memory that is short for a moment.
GROWTH = 1.3  # A model that was never loaded takes about so many times the bytes of its file.

_E = TypeVar("_E", bound=Exception)

OpenModel = Callable[[str, Surroundings], Backend]
"""Makes the backend of a model's reference. Raises BackendError for references that name nothing."""


class UnknownModel(Exception):
    """No source of this node goes by that name. The message is for people."""


class Models:
    """Every model source of this node. All methods are called from the node's own trio loop."""

    def __init__(
        self,
        open_model: OpenModel,
        surroundings: Surroundings,
        parallel_max: int,
        post: Callable[[Event], None],
        *,
        memory_bytes: int,
        pinned: tuple[str, ...] = (),
    ) -> None:
        """`memory_bytes` are for all models together; those in `pinned` stay whatever is asked for."""
        self._open_model, self._surroundings, self._post = open_model, surroundings, post
        self._memory_bytes, self._pinned = memory_bytes, pinned
        self._parallel = trio.CapacityLimiter(parallel_max)
        self._sources: list[Source] = []
        self._scopes: dict[AttemptId, trio.CancelScope] = {}
        self._nursery: trio.Nursery | None = None
        self._loading = LoadQueue()

    async def run(self, refs: tuple[str, ...], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Load these and whatever is added, until cancelled. Never fails for a model: its view says what is wrong."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for ref in refs:
                self.add(ref)
            task_status.started()
            await trio.sleep_forever()

    def add(self, ref: str) -> Source:
        """Begin to load one more source. Its `settled` tells that it is ready, has failed, or was removed meanwhile."""
        assert self._nursery is not None, "models are added while they run"
        for source in self._sources:
            if source.ref == ref and source.state != "failed":
                return source
        self._sources = [source for source in self._sources if source.ref != ref]
        source = Source(ref, ref in self._pinned)
        failed = [other for other in self._sources if other.state == "failed"]
        if len(self._sources) - len(failed) >= SOURCES_MAX:
            self._fail(source, f"a node offers at most {SOURCES_MAX} models")
            return source
        if len(self._sources) == SOURCES_MAX:  # Those that have failed are kept only to say why.
            self._sources.remove(failed[0])
        self._sources.append(source)
        self._loading.join(source)
        self._nursery.start_soon(self._keep, source)
        return source

    def remove(self, name: str) -> ModelView:
        """Let go of a source, by its reference or by its model's name; what it is doing ends. Raises UnknownModel."""
        found = next((source for source in self._sources if name in source.names), None)
        if found is None:
            known = ", ".join(without_secrets(source.ref) for source in self._sources) or "none"
            raise UnknownModel(f'this node has no model "{without_secrets(name)}"; it has {known}')
        view = found.view
        self._sources.remove(found)
        found.set("removed")
        found.scope.cancel()
        found.settled.set()
        log.info("model %s is removed", without_secrets(found.ref))
        self._announce()
        return view

    def views(self) -> list[ModelView]:
        return [source.view for source in self._sources]

    @property
    def sources(self) -> list[Source]:
        """All there are now. A reference in them may have secrets in it, so it is not for showing; a view is."""
        return list(self._sources)

    # --- One source ---------------------------------------------------------------------------------------------------

    async def _keep(self, source: Source) -> None:
        """Load it, and again whenever it is wanted after it had to leave."""
        try:
            with source.scope:
                while True:
                    trouble = await self._lived(source)
                    source.set("resting", trouble)
                    self._announce()
                    await source.wanted.wait()
        except* BackendError as group:
            self._fail(source, _reasons(group))
        except* Exception as bugs:  # A plug-in's bug ends its model and nothing else.
            log.exception("a bug in the backend of %s", without_secrets(source.ref))
            self._fail(source, f"a bug in its backend: {_leaves(bugs)[0]!r}")
        finally:
            self._loading.leave(source)

    async def _lived(self, source: Source) -> str:
        """As `_live`. Returns why it could not be loaded, if it could before: others may have the memory just now.

        Raises BackendError, in groups, for one that is of no use any more.
        """
        trouble = ""
        try:
            await self._live(source)
            source.failures = 0
        except* BackendError as group:
            source.failures += 1
            if source.state != "loading" or not source.capabilities or source.failures >= RELOADS_MAX:
                raise
            trouble = _reasons(group)
            log.warning("model %s cannot be loaded now: %s", without_secrets(source.ref), trouble)
            self._loading.leave(source)
        source.backend, source.able = None, True
        return trouble

    async def _live(self, source: Source) -> None:
        """Until others need its memory."""
        source.wanted, source.dismissed, source.has_worked = trio.Event(), trio.Event(), False
        source.set("loading", "waiting for its turn")  # Whoever wants it from here on need not say so again.
        async with trio.open_nursery() as nursery:
            await self._loading.wait_turn(source)
            source.set("loading")
            await self._make_room(source)
            began = trio.current_time()
            source.backend = self._open_model(source.ref, self._surroundings_of(source))
            capabilities = await nursery.start(source.backend.run)
            source.load_s = trio.current_time() - began
            # One that takes more than was thought may still be there alone.
            source.memory_bytes = min(process_bytes(source.backend.pid), self._memory_bytes)
            source.used_at = trio.current_time()
            self._ready(source, capabilities)
            self._trim(source)
            self._loading.leave(source)
            await source.dismissed.wait()
            nursery.cancel_scope.cancel()

    def _surroundings_of(self, source: Source) -> Surroundings:
        def tell(words: str) -> None:
            if source.state == "loading":
                source.detail = words

        def note(words: str) -> None:
            source.note = words

        def available(able: bool) -> None:
            if source.able != able and source.state == "ready":
                source.able = able
                self._announce()

        return replace(
            self._surroundings,
            memory_bytes=self._memory_bytes,
            measured=source.capabilities,
            tell=tell,
            note=note,
            available=available,
        )

    async def _make_room(self, source: Source) -> None:
        """Send away who was asked for least recently, until this one fits. Raises BackendError if it never can."""
        need = source.memory_bytes or _file_bytes(source.ref)
        while True:
            others = [other for other in self._held() if other is not source]
            if need + sum(other.memory_bytes for other in others) <= self._memory_bytes or not need:
                return
            staying = sum(other.memory_bytes for other in others if other.pinned)
            if need + staying > self._memory_bytes:
                raise BackendError(
                    f"it takes about {_amount(need)}, and offer.memory leaves {_amount(self._memory_bytes - staying)}: set that "
                    "higher, or take a smaller model",
                    retryable=False,
                )
            source.detail = "waiting for memory"
            self._send_away([other for other in others if not other.pinned])
            await _first_of(other.changed for other in others)

    def _send_away(self, others: list[Source]) -> None:
        """One of them leaves: who is idle, or who has had its turn, as soon as it is done. It may be on its way already."""
        leaving = [other for other in others if other.state == "leaving"]
        if not all(other.working for other in leaving):
            return
        idle = [other for other in others if other.state == "ready" and not other.active]
        busy = [other for other in others if other.state == "ready" and other.has_worked]
        if idle:
            for other in leaving:
                other.set("ready")  # It need not, then.
        if idle or not leaving:
            for other in sorted(idle or busy, key=lambda other: other.used_at)[:1]:
                self._dismiss(other)

    def _held(self) -> list[Source]:
        """Those that take memory now."""
        return [source for source in self._sources if source.state in ("ready", "leaving") and source.memory_bytes]

    def _dismiss(self, source: Source) -> None:
        """It leaves memory when it has done what it is doing; who needs it from now on waits until it is back."""
        log.info("model %s leaves memory to others", without_secrets(source.ref))
        source.set("leaving")
        self._let_go(source)

    def _let_go(self, source: Source) -> None:
        if source.state == "leaving" and not source.working:
            source.dismissed.set()

    def _trim(self, newest: Source) -> None:
        """If it takes more than was thought, those leave that can."""
        over = sum(source.memory_bytes for source in self._held()) - self._memory_bytes
        for source in sorted(self._held(), key=lambda source: source.used_at):
            if over > 0 and source is not newest and not source.pinned and not source.active:
                self._dismiss(source)
                over -= source.memory_bytes

    def _ready(self, source: Source, capabilities: tuple[Capability, ...]) -> None:
        taken = {offered.model for other in self._sources for offered in other.capabilities if other is not source}
        twice = sorted({offered.model for offered in capabilities if offered.model in taken})
        if twice:
            again = "a file can be offered by another name: llama_cpp:NAME=PATH"
            raise BackendError(f"this node offers {', '.join(twice)} already; {again}", retryable=False)
        if not capabilities:
            raise BackendError("nothing passed its self-test; see the log", retryable=False)
        _check_fit(capabilities)
        source.capabilities = capabilities
        source.set("ready", source.note)
        log.info("model %s is ready: %s", without_secrets(source.ref), ", ".join(offered.skill for offered in capabilities))
        source.settled.set()
        self._announce()

    def _fail(self, source: Source, detail: str) -> None:
        offered = bool(source.capabilities)
        source.backend, source.capabilities, source.memory_bytes = None, (), 0
        source.set("failed", detail)
        log.warning("model %s has failed: %s", without_secrets(source.ref), detail)
        source.settled.set()
        if offered:
            self._announce()

    def _announce(self) -> None:
        most = int(self._parallel.total_tokens)
        capabilities = [
            replace(
                offered,
                slots=min(offered.slots, most),
                # Whoever asks a resting model waits until it is loaded, and had better know.
                first_token_ms=min(offered.first_token_ms + source.rest_ms, lim.DEADLINE_MS_MAX),
            )
            for source in self._sources
            for offered in source.capabilities
            if source.able
        ]
        resting = {offered.model for source in self._sources if source.state != "ready" for offered in source.capabilities}
        self._post(CapabilitiesChanged(tuple(capabilities[: lim.CAPABILITIES_MAX]), frozenset(resting)))

    # --- One attempt --------------------------------------------------------------------------------------------------

    def generate(self, effect: Generate) -> None:
        """Begin the work; it ends in GenerationFinished or GenerationFailed, always."""
        assert self._nursery is not None, "models work while they run"
        # Made now, not when the task first runs: the stop may come in the same breath.
        scope = self._scopes[effect.request.attempt] = trio.CancelScope()
        self._nursery.start_soon(self._generate, effect.request, effect.model, scope)

    def stop_generating(self, attempt: AttemptId) -> None:
        scope = self._scopes.get(attempt)
        if scope is not None:
            scope.cancel()

    async def _generate(self, request: TaskRequest, model: str, scope: trio.CancelScope) -> None:
        attempt = request.attempt
        ended: Event = GenerationFailed(attempt, errors.CANCELLED.number, "")
        try:
            with scope:
                ended = await self._work(request, model)
        except* BackendError as group:
            error = _leaves(group)[0]
            code = errors.TOO_LONG if error.too_long else errors.BACKEND_FAILED if error.retryable else errors.BAD_REQUEST
            ended = GenerationFailed(attempt, code.number, str(error))
        except* Exception as bugs:
            log.exception("a bug in the backend of %s", model)
            ended = GenerationFailed(attempt, errors.BACKEND_FAILED.number, f"a bug in its backend: {_leaves(bugs)[0]!r}")
        finally:
            del self._scopes[attempt]
        self._post(ended)

    async def _work(self, request: TaskRequest, model: str) -> Event:
        source = self._source(request.skill, model)
        if source is None:
            return GenerationFailed(request.attempt, errors.BACKEND_FAILED.number, f"{model} is gone")
        source.active += 1
        try:
            backend = await self._awake(source)  # Before its turn: those whose turn it is may have to end for it.
            source.working, source.has_worked = source.working + 1, True
            try:
                async with self._parallel:
                    return await answer(backend, request, model, self._post)
            finally:
                source.working -= 1
                self._let_go(source)
        finally:
            source.active -= 1
            source.used_at = trio.current_time()
            source.stir()

    async def _awake(self, source: Source) -> Backend:
        """The backend, once it is in memory. Raises BackendError."""
        failures = source.failures
        while source.backend is None or source.state != "ready":
            if source.state in ("failed", "removed") or source.failures > failures:
                raise BackendError(source.detail or "the model was removed")
            if source.state == "resting" and not source.wanted.is_set():
                self._loading.join(source)
                source.wanted.set()
            await source.changed.wait()
        return source.backend

    def _source(self, skill: str, model: str) -> Source | None:
        for source in self._sources:
            if any(offered.skill == skill and offered.model == model for offered in source.capabilities):
                return source
        return None


async def _first_of(events: Iterable[trio.Event]) -> None:
    """Until one of them is set."""

    async def wait(event: trio.Event) -> None:
        await event.wait()
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for event in events:
            nursery.start_soon(wait, event)


def _file_bytes(ref: str) -> int:
    """About what a model will take that was never loaded; 0 if that cannot be told."""
    try:
        return int(sum(part.stat().st_size for part in parts(file_of(ref))) * GROWTH)
    except (BackendError, OSError):
        return 0  # No file; or opening it will say better what is wrong.


def _amount(count: int) -> str:
    return f"{max(0, count) / 2**30:.1f} GB" if count >= 2**30 else f"{max(0, count) / 2**20:.0f} MB"


def _check_fit(capabilities: tuple[Capability, ...]) -> None:
    """Raises BackendError if an advert could not carry these: better now than when the advert is due."""
    try:
        encode(Advert("", (), capabilities[: lim.CAPABILITIES_MAX], 0, 0, 0, False))
    except LocalProtocolError as error:
        raise BackendError(f"what the backend says of its model cannot be told to others: {error}", retryable=False) from None


def _reasons(group: BaseExceptionGroup[BackendError]) -> str:
    return "; ".join(str(error) for error in _leaves(group))


def _leaves(group: BaseExceptionGroup[_E]) -> list[_E]:
    leaves: list[_E] = []
    for error in group.exceptions:
        leaves += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return leaves
