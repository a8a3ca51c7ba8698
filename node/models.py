"""This node's models: opens their backends, keeps them running, and lets them work for attempts."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import trio

from node.backends import Backend, BackendError, GenerationRequest, Piece, Surroundings
from node.backends.references import without_secrets
from node.views import ModelView
from protocol import errors
from protocol import limits as lim
from protocol.codec import encode
from protocol.errors import LocalProtocolError
from protocol.messages import Advert, AttemptId, Capability, TaskRequest
from swarm.effects import Generate
from swarm.events import CapabilitiesChanged, Event, GenerationFailed, GenerationFinished, PieceGenerated
from swarm.values import Usage

log = logging.getLogger(__name__)

PIECES_QUEUED_MAX = 64  # Between a backend and the member; the member takes them at once, so this is slack.
PIECE_GAP_S = 0.05  # Between pieces after the first. Faster, readers notice nothing and every hop pays for each piece.
SOURCES_MAX = lim.CAPABILITIES_MAX  # More could not be advertised.

OpenModel = Callable[[str, Surroundings], Backend]
"""Makes the backend of a model's reference. Raises BackendError for references that name nothing."""


@dataclass(eq=False, slots=True)
class _Source:
    ref: str
    backend: Backend | None = None
    state: str = "loading"
    detail: str = ""
    capabilities: tuple[Capability, ...] = ()
    settled: trio.Event = field(default_factory=trio.Event)


class Models:
    """Every model source of this node. All methods are called from the node's own trio loop."""

    def __init__(
        self, open_model: OpenModel, surroundings: Surroundings, parallel_max: int, post: Callable[[Event], None]
    ) -> None:
        self._open_model, self._surroundings, self._post = open_model, surroundings, post
        self._parallel = trio.CapacityLimiter(parallel_max)
        self._sources: list[_Source] = []
        self._scopes: dict[AttemptId, trio.CancelScope] = {}
        self._nursery: trio.Nursery | None = None

    async def run(self, refs: tuple[str, ...], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Load these and whatever is added, until cancelled. Never fails for a model: its view says what is wrong."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for ref in refs:
                self.add(ref)
            task_status.started()
            await trio.sleep_forever()

    def add(self, ref: str) -> trio.Event:
        """Begin to load one more source. The event tells that it is ready or has failed."""
        assert self._nursery is not None, "models are added while they run"
        for source in self._sources:
            if source.ref == ref and source.state != "failed":
                return source.settled
        self._sources = [source for source in self._sources if source.ref != ref]
        source = _Source(ref)
        self._sources.append(source)
        if len(self._sources) > SOURCES_MAX:
            self._fail(source, f"a node offers at most {SOURCES_MAX} models")
        else:
            self._nursery.start_soon(self._keep, source)
        return source.settled

    def view(self, ref: str) -> ModelView:
        return next(_view(source) for source in self._sources if source.ref == ref)

    def views(self) -> list[ModelView]:
        return [_view(source) for source in self._sources]

    def refs(self) -> list[str]:
        """Every source as it was given: with its secrets, so not for showing."""
        return [source.ref for source in self._sources]

    async def settled(self, ref: str) -> None:
        """Until this source is ready or has failed."""
        await next(source for source in self._sources if source.ref == ref).settled.wait()

    # --- One source ---------------------------------------------------------------------------------------------------

    async def _keep(self, source: _Source) -> None:
        try:
            source.backend = self._open_model(source.ref, self._surroundings)
            async with trio.open_nursery() as nursery:
                capabilities = await nursery.start(source.backend.run)
                self._ready(source, capabilities)
        except* BackendError as group:
            reasons = [str(error) for error in _leaves(group)]
            self._fail(source, "; ".join(reasons))

    def _ready(self, source: _Source, capabilities: tuple[Capability, ...]) -> None:
        taken = {offered.model for other in self._sources for offered in other.capabilities if other is not source}
        twice = sorted({offered.model for offered in capabilities if offered.model in taken})
        if twice:
            raise BackendError(f"this node offers {', '.join(twice)} already", retryable=False)
        if not capabilities:
            raise BackendError("nothing passed its self-test; see the log", retryable=False)
        _check_fit(capabilities)
        source.capabilities, source.state = capabilities, "ready"
        log.info("model %s is ready: %s", without_secrets(source.ref), ", ".join(offered.skill for offered in capabilities))
        source.settled.set()
        self._announce()

    def _fail(self, source: _Source, detail: str) -> None:
        offered = bool(source.capabilities)
        source.state, source.detail, source.capabilities = "failed", detail, ()
        log.warning("model %s has failed: %s", without_secrets(source.ref), detail)
        source.settled.set()
        if offered:
            self._announce()

    def _announce(self) -> None:
        most = int(self._parallel.total_tokens)
        capabilities = [
            replace(offered, slots=min(offered.slots, most)) for source in self._sources for offered in source.capabilities
        ]
        self._post(CapabilitiesChanged(tuple(capabilities[: lim.CAPABILITIES_MAX])))

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
            code = errors.BACKEND_FAILED if error.retryable else errors.BAD_REQUEST
            ended = GenerationFailed(attempt, code.number, str(error))
        finally:
            del self._scopes[attempt]
        self._post(ended)

    async def _work(self, request: TaskRequest, model: str) -> Event:
        backend = self._backend(request.skill, model)
        if backend is None:
            return GenerationFailed(request.attempt, errors.BACKEND_FAILED.number, f"{model} is gone")
        asked = GenerationRequest(
            request.skill, model, request.turns, request.tokens_max, request.sampling, request.stops,
            request.delivered, request.delivered_tokens, request.demands,
        )  # fmt: skip
        async with self._parallel:
            began = trio.current_time()
            first_at: float | None = None
            sending, receiving = trio.open_memory_channel[str | Piece](PIECES_QUEUED_MAX)
            generated = None
            posted_at = began

            async def work() -> None:
                nonlocal generated
                async with sending:
                    generated = await backend.generate(asked, sending)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(work)
                async for piece in receiving:
                    if first_at is None:
                        first_at = trio.current_time()
                        pieces = [piece]
                    else:
                        pieces = [piece, *await _gathered(receiving, posted_at)]
                    self._post(_joined(request.attempt, pieces))
                    posted_at = trio.current_time()
            assert generated is not None
            ended_at = trio.current_time()
            first_s = (first_at or ended_at) - began
            finish = "length" if generated.finish == "length" else "stop"
            # A plug-in may count as it likes, but what is told to a peer has bounds.
            tokens_in, tokens_out = (
                min(max(0, count), lim.CONTEXT_TOKENS_MAX) for count in (generated.tokens_in, generated.tokens_out)
            )
            usage = Usage(finish, tokens_in, tokens_out, first_s, ended_at - began)
            return GenerationFinished(request.attempt, usage)

    def _backend(self, skill: str, model: str) -> Backend | None:
        for source in self._sources:
            if any(offered.skill == skill and offered.model == model for offered in source.capabilities):
                return source.backend
        return None


def _check_fit(capabilities: tuple[Capability, ...]) -> None:
    """Raises BackendError if an advert could not carry these: better now than when the advert is due."""
    try:
        encode(Advert("", (), capabilities[: lim.CAPABILITIES_MAX], 0, 0, 0, False))
    except LocalProtocolError as error:
        raise BackendError(f"what the backend says of its model cannot be told to others: {error}", retryable=False) from None


async def _gathered(receiving: trio.MemoryReceiveChannel[str | Piece], posted_at: float) -> list[str | Piece]:
    """What else comes before the next piece is due, or the end: a fast model's words travel together."""
    pieces = []
    with trio.move_on_at(posted_at + PIECE_GAP_S):
        async for piece in receiving:
            pieces.append(piece)
    return pieces


def _joined(attempt: AttemptId, pieces: list[str | Piece]) -> PieceGenerated:
    text = "".join(piece.text if isinstance(piece, Piece) else piece for piece in pieces)
    tokens = tuple(token for piece in pieces if isinstance(piece, Piece) for token in piece.tokens)
    logprobs = tuple(each for piece in pieces if isinstance(piece, Piece) for each in piece.logprobs)
    return PieceGenerated(attempt, text, tokens, logprobs)


def _leaves(group: BaseExceptionGroup[BackendError]) -> list[BackendError]:
    leaves: list[BackendError] = []
    for error in group.exceptions:
        leaves += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return leaves


def _view(source: _Source) -> ModelView:
    fastest = max(source.capabilities, key=lambda offered: offered.tokens_per_second, default=None)
    return ModelView(
        ref=without_secrets(source.ref),
        model=fastest.model if fastest else "",
        state=source.state,
        detail=source.detail,
        skills=[offered.skill for offered in source.capabilities],
        tokens_per_second=fastest.tokens_per_second if fastest else None,
        first_token_ms=fastest.first_token_ms if fastest else None,
    )
