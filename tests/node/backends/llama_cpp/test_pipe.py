"""The pipe between parent and child carries what it may, and nothing else gets through."""

from itertools import pairwise

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.backends.llama_cpp import pipe

SAID = [
    pipe.Generate(1, "chat", [["user", "hé"]], 5, ["\n"], "so", [1, 49_151], 0.7, 0.9, 3, options=["a"], logprobs=2),
    pipe.Cancel(1),
    pipe.Ready(4096, 16, 2, ["chat"], ["schema"], ["no network"], "", b"bits", 1.5, 8, 1e7),
    pipe.Unfit("broken"),
    pipe.Piece(1, "text 😀", [0, 7], [[b"text", -0.5, b"text", -0.5, b"\xf0", -2.0], [b"", 0.0]]),
    pipe.Ended(1, "stop", 3, 4, ""),
    pipe.Loading(0.5),
    pipe.Ping(),
    pipe.Pong(7, True),
]


@given(cuts=st.lists(st.integers(0, 400), max_size=8))
def test_frames_come_out_however_the_bytes_are_cut(cuts: list[int]) -> None:
    data = b"".join(map(pipe.pack, SAID))
    unpacker = pipe.Unpacker()
    ends = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    assert [said for a, b in pairwise(ends) for said in unpacker.feed(data[a:b])] == SAID


def framed(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        msgpack.packb("hello"),
        msgpack.packb([]),
        msgpack.packb([99, 1]),
        msgpack.packb([-1, 1]),
        msgpack.packb([True, 1]),
        msgpack.packb([4, 1]),
        msgpack.packb([4, 1, b"bytes"]),
        msgpack.packb([4, 1.0, "text"]),
        msgpack.packb([4, True, "text"]),
        msgpack.packb([2, 1, ["chat", 5], [], ""]),
        msgpack.packb([5, 1, "stop", 1, 2, "", "more"]),
        msgpack.packb([4, 1, {"a": 1}]),
        msgpack.packb([4, 1, "x", [], [[]]]),
        msgpack.packb([4, 1, "x", [], [[b"x"]]]),
        msgpack.packb([4, 1, "x", [], [["x", -1.0]]]),
        msgpack.packb([4, 1, "x", [], [[b"x", -1]]]),
        msgpack.packb([4, 1, "x"]) + b"\x00",
        b"\x91" * 5000,
    ],
)
def test_what_is_no_message_breaks_the_pipe(body: bytes) -> None:
    with pytest.raises(pipe.PipeBroken):
        pipe.Unpacker().feed(framed(body))


@given(st.binary(max_size=200))
def test_noise_breaks_the_pipe_or_waits_for_more(noise: bytes) -> None:
    try:
        assert all(isinstance(said, pipe.Said) for said in pipe.Unpacker().feed(noise))
    except pipe.PipeBroken:
        pass


def test_a_frame_too_large_is_refused_before_it_is_buffered() -> None:
    with pytest.raises(pipe.PipeBroken):
        pipe.Unpacker().feed((pipe.FRAME_BYTES_MAX + 1).to_bytes(4, "big"))
    with pytest.raises(pipe.PipeBroken):
        pipe.pack(pipe.Piece(1, "x" * pipe.FRAME_BYTES_MAX, []))


def test_text_that_is_no_unicode_is_sent_with_marks_in_its_place() -> None:
    assert pipe.Unpacker().feed(pipe.pack(pipe.Piece(1, "a\ud800b", []))) == [pipe.Piece(1, "a?b", [])]
