"""What a machine can do with a model: how fast it answers one, and how many at once."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from statistics import median

import trio

from node.backends import Backend, GenerationRequest, Piece
from protocol.parts import Capability, Sampling, Turn

TOKENS = 48
CROWDS = (1, 2, 4, 8, 16)


@dataclass(frozen=True, slots=True)
class Trial:
    """So many answers at once: the tokens per second of all together, and the seconds until half of them had begun."""

    at_once: int
    tokens_per_second: float
    first_text_s: float


async def trials(backend: Backend, capability: Capability) -> AsyncIterator[Trial]:
    """One after the other, up to the capability's slots. Raises BackendError."""
    most = min(capability.slots, CROWDS[-1])
    for crowd in [*(crowd for crowd in CROWDS if crowd < most), most]:
        yield await _trial(backend, capability, crowd)


async def _trial(backend: Backend, capability: Capability, crowd: int) -> Trial:
    began = trio.current_time()
    first_s: list[float] = []
    tokens = 0

    async def one(number: int) -> None:
        nonlocal tokens
        # No two begin alike, or what was computed for one would serve the others.
        text = f"{crowd}.{number}: tell a story about a flock of starlings that lives near a city, and how it spends the day."
        request = GenerationRequest(capability.skill, capability.model, (Turn("user", text),), TOKENS, Sampling(seed=1))
        send, receive = trio.open_memory_channel[str | Piece](0)
        async with trio.open_nursery() as call:
            call.start_soon(_read, receive, began, first_s)
            async with send:
                generated = await backend.generate(request, send)
        tokens += generated.tokens_out

    async with trio.open_nursery() as nursery:
        for number in range(crowd):
            nursery.start_soon(one, number)
    return Trial(crowd, tokens / (trio.current_time() - began), median(first_s))


async def _read(pieces: trio.MemoryReceiveChannel[str | Piece], began: float, first_s: list[float]) -> None:
    seen = False
    async for _ in pieces:
        if not seen:
            seen = True
            first_s.append(trio.current_time() - began)
    if not seen:
        first_s.append(trio.current_time() - began)
