"""A fast model's words travel together, a slow one's as they come."""

from dataclasses import dataclass

import pytest
import trio
import trio.testing

from node.backends import BackendError, Generated, GenerationRequest, Piece
from node.generating import PIECE_GAP_S, answer
from protocol.messages import TaskRequest
from protocol.parts import AttemptId, Capability, FunctionCall, Logprob, Sampling, TaskId, Turn
from swarm.events import Event, GenerationFinished, PieceGenerated

WORDS = [f"w{number} " for number in range(20)]
ID = bytes(16)
CALL = FunctionCall("1", "f", '{"a": "' + "x" * 13_000 + '"}')  # Eight of them are more than one message.
REQUEST = TaskRequest(AttemptId(ID), TaskId(ID), "chat", "steady", (Turn("user", "?"),), 99, Sampling(), (), 60_000)


@dataclass
class Steady:
    """Says a word each time that so many seconds are over."""

    gap_s: float
    pid: int | None = None

    async def run(self, *, task_status: trio.TaskStatus[tuple[Capability, ...]]) -> None:
        task_status.started(())
        await trio.sleep_forever()

    async def generate(self, request: GenerationRequest, pieces: trio.MemorySendChannel[str | Piece]) -> Generated:
        for number, word in enumerate(WORDS):
            await trio.sleep(self.gap_s)
            await pieces.send(Piece(word, (number,)))
        return Generated("stop", 1, len(WORDS))


async def told(gap_s: float) -> tuple[list[tuple[float, PieceGenerated]], Event]:
    """Each piece, and when it was told; and the end."""
    posted: list[tuple[float, PieceGenerated]] = []

    def post(event: Event) -> None:
        assert isinstance(event, PieceGenerated)
        posted.append((trio.current_time(), event))

    end = await answer(Steady(gap_s), REQUEST, "steady", post)
    assert "".join(piece.text for _, piece in posted) == "".join(WORDS)
    assert [token for _, piece in posted for token in piece.tokens] == list(range(len(WORDS)))
    return posted, end


async def test_words_of_a_fast_model_are_joined_and_the_first_is_not_kept_waiting(autojump_clock: trio.testing.MockClock) -> None:
    began = trio.current_time()
    posted, end = await told(PIECE_GAP_S / 5)
    assert posted[0][0] - began == pytest.approx(PIECE_GAP_S / 5) and posted[0][1].text == WORDS[0]
    assert len(posted) < len(WORDS) / 3
    assert isinstance(end, GenerationFinished) and end.usage.tokens_out == len(WORDS)


@pytest.mark.parametrize(
    "said",
    [Piece("a", (-1,)), Piece("a", (2**31,)), Piece("a", (1,), (Logprob(b"a", 1.0),)), Generated("stop", 1, 1, (CALL,) * 8)],
    ids=["negative", "large", "likely", "calls"],
)
async def test_what_no_message_can_hold_fails_the_answer_and_not_the_node(said: Piece | Generated) -> None:
    class Wrong(Steady):
        async def generate(self, request: GenerationRequest, pieces: trio.MemorySendChannel[str | Piece]) -> Generated:
            if isinstance(said, Generated):
                return said
            await pieces.send(said)
            return Generated("stop", 1, 1)

    with pytest.RaisesGroup(BackendError, allow_unwrapped=True, flatten_subgroups=True):
        await answer(Wrong(0.0), REQUEST, "steady", lambda event: None)


async def test_words_of_a_slow_model_are_told_as_they_come(autojump_clock: trio.testing.MockClock) -> None:
    began = trio.current_time()
    posted, _ = await told(2 * PIECE_GAP_S)
    assert [piece.text for _, piece in posted] == WORDS
    assert [at - began for at, _ in posted] == pytest.approx([2 * PIECE_GAP_S * number for number in range(1, 1 + len(WORDS))])
