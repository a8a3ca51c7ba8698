"""Sends a text that is already known as an answer, word by word; here a token is a word."""

import re
from collections.abc import Awaitable, Callable, Iterable

import trio

from node.backends import BackendError, Generated, GenerationRequest
from node.backends.stops import StopFilter

_WORD = re.compile(r"\s*\S+\s*\Z|\s*\S+")


def split_words(text: str) -> list[str]:
    """Words with the blanks before them; joined they are the text again. Blanks alone make no word."""
    return _WORD.findall(text)


async def send(pieces: trio.MemorySendChannel[str], text: str) -> None:
    """Send a piece of an answer. Raises BackendError if nobody can read it any more."""
    try:
        await pieces.send(text)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        raise BackendError("Nobody reads this answer any more.") from None


async def send_words(
    request: GenerationRequest,
    words: Iterable[str],
    pieces: trio.MemorySendChannel[str],
    before_each: Callable[[int], Awaitable[None]] | None = None,
) -> Generated:
    """Send words as the answer, within the request's `tokens_max` and `stops`. `before_each` may wait; it gets the index."""
    tokens_in = sum(len(turn.text.split()) for turn in request.turns)
    stops = StopFilter(request.stops)
    sent = 0
    for index, word in enumerate(words):
        if index == request.tokens_max:
            return await _end(stops, pieces, "length", tokens_in, sent)
        if before_each is not None:
            await before_each(index)
        sent += 1
        text = stops.push(word)
        if text:
            await send(pieces, text)
        if stops.stopped:
            break
    return await _end(stops, pieces, "stop", tokens_in, sent)


async def _end(
    stops: StopFilter, pieces: trio.MemorySendChannel[str], finish: str, tokens_in: int, tokens_out: int
) -> Generated:
    rest = stops.flush()
    if rest:
        await send(pieces, rest)
    return Generated(finish, tokens_in, tokens_out)
