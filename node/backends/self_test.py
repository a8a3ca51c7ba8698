"""Measures a model before it is advertised: it must produce text, and its speed is taken down."""

import logging
from collections.abc import Sequence
from dataclasses import replace

import trio

from node.backends import Backend, BackendError, GenerationRequest, Piece
from protocol.limits import DEADLINE_MS_MAX
from protocol.parts import Capability, Sampling, Turn

TOKENS_MAX = 24  # Enough for a rate within a few per cent; 0.3 s at the 95 tokens/s of the smallest model on one core.
AFTER_FIRST_S = 1.5  # A model slower than 16 tokens/s is measured by what it managed until then.
FIRST_TOKEN_S = 60.0  # A server that must first load its model from disk may take this long.
RATE_MAX = 1e6  # A clock too coarse for a micro-model must not divide by zero.

TEXTS = {
    "complete": "Once upon a time there was a small bird that",
    "summarize": "The meeting was moved from Monday to Thursday because the room was being painted. "
    "Everyone has agreed to the new time, and the agenda stays the same.",
}
"""What each skill is tried with; any other skill gets `OTHER_TEXT`."""
OTHER_TEXT = "Tell me something about starlings."

_log = logging.getLogger(__name__)


async def measure(backend: Backend, capability: Capability) -> Capability:
    """The capability with its measured speeds. Raises BackendError if no text came out of it."""
    text = TEXTS.get(capability.skill, OTHER_TEXT)
    request = GenerationRequest(
        skill=capability.skill,
        model=capability.model,
        turns=(Turn("user", text),),
        tokens_max=TOKENS_MAX,
        sampling=Sampling(seed=1),
    )
    send, receive = trio.open_memory_channel[str | Piece](0)
    limit = trio.CancelScope(deadline=trio.current_time() + FIRST_TOKEN_S)
    started = trio.current_time()
    first: float | None = None
    failure: BackendError | None = None
    pieces = 0
    tokens = 0

    async def read() -> None:
        nonlocal first, pieces
        async for piece in receive:
            pieces += bool(piece)
            if first is None and piece:
                first = trio.current_time()
                limit.deadline = first + AFTER_FIRST_S

    with limit:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            async with send:
                try:
                    tokens = (await backend.generate(request, send)).tokens_out
                except BackendError as error:
                    failure = error  # Raised below, where it is not wrapped in the nursery's group.
    if failure is not None:
        raise failure
    if first is None:
        raise BackendError(
            f"{capability.model} gave no text within {FIRST_TOKEN_S:.0f} s when tried with {capability.skill}."
        )
    # Pieces are coalesced only above 50 a second, so a model that ran into the limit sent about a token in each.
    tokens = tokens or pieces
    seconds = trio.current_time() - first
    rate = (tokens - 1) / seconds if tokens > 1 and seconds > 0 else tokens / max(first - started, 1 / RATE_MAX)
    return replace(
        capability,
        tokens_per_second=round(min(rate, RATE_MAX), 1),
        first_token_ms=min(round((first - started) * 1000), DEADLINE_MS_MAX),
    )


async def measure_each(backend: Backend, capabilities: Sequence[Capability]) -> tuple[Capability, ...]:
    """Those that passed, measured. Raises the last failure if none did."""
    passed: list[Capability] = []
    failure = BackendError("The backend offers nothing.", retryable=False)
    for capability in capabilities:
        try:
            passed.append(await measure(backend, capability))
        except BackendError as error:
            failure = error
            _log.warning("%s is not offered with %s: %s", capability.model, capability.skill, error)
    if not passed:
        raise failure
    return tuple(passed)
