"""Measures a model before it is advertised: it must produce text, and how fast it writes and reads is taken down."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import trio

from node.backends import Backend, BackendError, GenerationRequest, Piece
from protocol.limits import DEADLINE_MS_MAX
from protocol.parts import Capability, Sampling, Turn

TOKENS_MAX = 24  # Enough for a rate within a few per cent; 0.3 s at the 95 tokens/s of the smallest model on one core.
AFTER_FIRST_S = 1.5  # A model slower than 16 tokens/s is measured by what it managed until then.
FIRST_TOKEN_S = 60.0  # A server that must first load its model from disk may take this long.
RATE_MAX = 1e6  # A clock too coarse for a micro-model must not divide by zero.
READING_S = 15.0  # A model that has not read its text by then is one whose speed of reading is not known,
READING_S_MIN = 0.02  # nor is one that takes no time for it that could be measured, and need not be.

TEXTS = {
    "complete": "Once upon a time there was a small bird that",
    "summarize": "The meeting was moved from Monday to Thursday because the room was being painted. "
    "Everyone has agreed to the new time, and the agenda stays the same.",
}
"""What each skill is tried with; any other skill gets `OTHER_TEXT`."""
OTHER_TEXT = "Tell me something about starlings."
ASKED_BEFORE = {"rerank": (Turn("user", "Which birds gather in the evening?"),)}
LONG_TEXT = " ".join(f"In {year} they were {40 * year - 70_000} birds, or a few more." for year in range(1990, 1996))
"""About a hundred tokens, which nothing else begins with."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Tried:
    """What came of one text: seconds until the first of the answer, None if there was none, and from then on."""

    first_s: float | None = None
    writing_s: float = 0.0
    tokens: int = 0
    tokens_in: int = 0  # 0: nobody has counted them.


async def measure(backend: Backend, capability: Capability, tokens_in_per_second: float | None = None) -> Capability:
    """The capability with its measured speeds; that of reading may be known. Raises BackendError if no text came out of it."""
    tried = await _try(backend, capability, TEXTS.get(capability.skill, OTHER_TEXT), TOKENS_MAX, FIRST_TOKEN_S)
    if tried.first_s is None:
        raise BackendError(
            f"{capability.model} gave no text within {FIRST_TOKEN_S:.0f} s when tried with {capability.skill}."
        )
    if tokens_in_per_second is None:
        tokens_in_per_second = await _reading_speed(backend, capability, tried)
    tokens, seconds = tried.tokens, tried.writing_s
    rate = (tokens - 1) / seconds if tokens > 1 and seconds > 0 else tokens / max(tried.first_s, 1 / RATE_MAX)
    return replace(
        capability,
        tokens_per_second=round(min(rate, RATE_MAX), 1),
        first_token_ms=min(round(tried.first_s * 1000), DEADLINE_MS_MAX),
        tokens_in_per_second=round(tokens_in_per_second, 1),
    )


async def measure_each(backend: Backend, capabilities: Sequence[Capability]) -> tuple[Capability, ...]:
    """Those that passed, measured. Raises the last failure if none did."""
    passed: list[Capability] = []
    reading: dict[str, float] = {}  # By model.
    failure = BackendError("The backend offers nothing.", retryable=False)
    for capability in capabilities:
        try:
            measured = await measure(backend, capability, reading.get(capability.model))
            reading[capability.model] = measured.tokens_in_per_second
            passed.append(measured)
        except BackendError as error:
            failure = error
            _log.warning("%s is not offered with %s: %s", capability.model, capability.skill, error)
    if not passed:
        raise failure
    return tuple(passed)


async def _reading_speed(backend: Backend, capability: Capability, short: _Tried) -> float:
    """Tokens per second, from how much longer a long text takes than a short one; 0 if that cannot be told.

    Of the short one nothing is taken off if its tokens were not counted, because it was cut off.
    """
    try:
        long = await _try(backend, capability, LONG_TEXT, 1, READING_S)
    except BackendError:
        return 0.0
    if long.first_s is None:
        return 0.0
    short_s = short.first_s or 0.0 if short.tokens_in else 0.0
    tokens, longer_s = long.tokens_in - short.tokens_in, long.first_s - short_s
    return tokens / longer_s if tokens > 0 and longer_s >= READING_S_MIN else 0.0


async def _try(backend: Backend, capability: Capability, text: str, tokens_max: int, first_token_s: float) -> _Tried:
    """One answer, for so long at most, and from its first text on for AFTER_FIRST_S. Raises BackendError."""
    request = GenerationRequest(
        skill=capability.skill,
        model=capability.model,
        turns=(*ASKED_BEFORE.get(capability.skill, ()), Turn("user", text)),
        tokens_max=tokens_max,
        sampling=Sampling(seed=1),
    )
    send, receive = trio.open_memory_channel[str | Piece](0)
    started = trio.current_time()
    limit = trio.CancelScope(deadline=started + first_token_s)
    tried = _Tried()
    failure: BackendError | None = None
    pieces = 0

    async def read() -> None:
        nonlocal pieces
        async for piece in receive:
            pieces += bool(piece)
            if tried.first_s is None and piece:
                tried.first_s = trio.current_time() - started
                limit.deadline = trio.current_time() + AFTER_FIRST_S

    with limit:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            async with send:
                try:
                    generated = await backend.generate(request, send)
                    tried.tokens, tried.tokens_in = generated.tokens_out, generated.tokens_in
                except BackendError as error:
                    failure = error  # Raised below, where it is not wrapped in the nursery's group.
    if failure is not None:
        raise failure
    if tried.first_s is not None:
        tried.writing_s = trio.current_time() - started - tried.first_s
    # Pieces are coalesced only above 50 a second, so a model that ran into the limit sent about a token in each.
    tried.tokens = tried.tokens or pieces
    return tried
