"""One attempt at work: a backend's pieces as events for the member, joined where they come faster than anybody reads."""

from collections.abc import Callable

import trio

from node.backends import Backend, BackendError, GenerationRequest, Piece
from protocol import limits as lim
from protocol.codec import encode
from protocol.errors import LocalProtocolError
from protocol.messages import TaskFinished, TaskPiece, TaskRequest
from protocol.parts import AttemptId
from swarm.events import Event, GenerationFinished, PieceGenerated
from swarm.values import Usage

PIECES_QUEUED_MAX = 64  # Between a backend and the member; the member takes them at once, so this is slack.
PIECE_GAP_S = 0.05  # Between pieces after the first. Faster, readers notice nothing and every hop pays for each piece.


async def answer(backend: Backend, request: TaskRequest, model: str, post: Callable[[Event], None]) -> Event:
    """Post the pieces of an answer as they come; returns its end. Raises BackendError, and whatever a plug-in does by mistake."""
    asked = GenerationRequest(
        request.skill, model, request.turns, request.tokens_max, request.sampling, request.stops,
        request.delivered, request.delivered_tokens, request.demands,
    )  # fmt: skip
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
            post(_joined(request.attempt, pieces))
            posted_at = trio.current_time()
    assert generated is not None
    _check(TaskFinished(request.attempt, 0, "", 0, 0, 0, 0, 0, generated.calls))
    ended_at = trio.current_time()
    first_s = (first_at or ended_at) - began
    finish = generated.finish if generated.finish in ("length", "tool_calls") else "stop"
    # A plug-in may count as it likes, but what is told to a peer has bounds.
    tokens_in, tokens_out = (
        min(max(0, count), lim.CONTEXT_TOKENS_MAX) for count in (generated.tokens_in, generated.tokens_out)
    )
    return GenerationFinished(request.attempt, Usage(finish, tokens_in, tokens_out, first_s, ended_at - began, generated.calls))


async def _gathered(receiving: trio.MemoryReceiveChannel[str | Piece], posted_at: float) -> list[str | Piece]:
    """What else comes before the next piece is due, or the end: a fast model's words travel together."""
    pieces = []
    if trio.current_time() < posted_at + PIECE_GAP_S:
        with trio.move_on_at(posted_at + PIECE_GAP_S):
            async for piece in receiving:
                pieces.append(piece)
    return pieces


def _joined(attempt: AttemptId, pieces: list[str | Piece]) -> PieceGenerated:
    text = "".join(piece.text if isinstance(piece, Piece) else piece for piece in pieces)
    tokens = tuple(token for piece in pieces if isinstance(piece, Piece) for token in piece.tokens)
    logprobs = tuple(each for piece in pieces if isinstance(piece, Piece) for each in piece.logprobs)
    _check(TaskPiece(attempt, 0, "", tokens[: lim.PIECE_TOKENS_MAX]))
    for each in logprobs:
        _check(TaskPiece(attempt, 0, "", (), (each,)))
    return PieceGenerated(attempt, text, tokens, logprobs)


def _check(message: TaskPiece | TaskFinished) -> None:
    """Raises BackendError for what no message can hold: better now than when it is due."""
    try:
        encode(message)
    except LocalProtocolError as error:
        raise BackendError(f"what the backend says cannot be told: {error}") from None
