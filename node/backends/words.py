"""Sends a text that is already known as an answer, word by word; here a token is a word."""

import re
from collections.abc import Awaitable, Callable, Iterable

import trio

from node.backends import BackendError, Generated, GenerationRequest, Piece
from node.backends.stops import Remaining, StopFilter

_WORD = re.compile(r"\s*\S+\s*\Z|\s*\S+")


def split_words(text: str) -> list[str]:
    """Words with the blanks before them; joined they are the text again. Blanks alone make no word."""
    return _WORD.findall(text)


async def send(pieces: trio.MemorySendChannel[str | Piece], text: str | Piece) -> None:
    """Send a piece of an answer. Raises BackendError if nobody can read it any more."""
    try:
        await pieces.send(text)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        raise BackendError("Nobody reads this answer any more.") from None


async def send_words(
    request: GenerationRequest,
    words: Iterable[str],
    pieces: trio.MemorySendChannel[str | Piece],
    before_each: Callable[[int], Awaitable[None]] | None = None,
) -> Generated:
    """Send words as the answer, within the request's `tokens_max` and `stops`. `before_each` may wait; it gets the index.

    Goes on from what was delivered, because whoever has the same words says the same. Raises BackendError for other words.
    """
    tokens_in = sum(len(turn.text.split()) for turn in request.turns)
    stops, remaining = StopFilter(request.stops), Remaining(request.delivered)
    sent, finish = 0, "stop"
    for index, word in enumerate(words):
        if index == request.tokens_max:
            finish = "length"
            break
        if before_each is not None and not remaining.covers(word):
            await before_each(index)
        sent += 1
        await _send_rest(pieces, remaining.after(stops.push(word)))
        if stops.stopped:
            break
    await _send_rest(pieces, remaining.after(stops.flush()))
    return Generated(finish, tokens_in, sent)


async def _send_rest(pieces: trio.MemorySendChannel[str | Piece], text: str) -> None:
    if text:
        await send(pieces, text)
