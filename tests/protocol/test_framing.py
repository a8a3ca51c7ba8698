"""Frames, however the stream is cut."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import limits as lim
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.framing import HEAD_BYTES, Form, FrameReader, frame
from tests.strategies import chunks_of

FRAMES = st.lists(st.tuples(st.sampled_from(Form), st.binary(max_size=40)), max_size=6)


@settings(max_examples=300)
@given(FRAMES, st.data())
def test_frames_come_out_whole_however_the_stream_is_cut(sent: list[tuple[Form, bytes]], data: st.DataObject) -> None:
    """[FRM-1] [FRM-4] In order, each once, and nothing is left over."""
    stream = b"".join(frame(form, payload) for form, payload in sent)
    reader = FrameReader()
    assert [item for chunk in data.draw(chunks_of(stream)) for item in reader.feed(chunk)] == sent


@settings(max_examples=100)
@given(FRAMES, st.data())
def test_a_bad_head_is_refused_however_the_stream_is_cut(sent: list[tuple[Form, bytes]], data: st.DataObject) -> None:
    """[FRM-4] Frames before it may have come out; none comes after it."""
    stream = b"".join(frame(form, payload) for form, payload in sent)
    after = frame(Form.BARE, b"after")
    reader = FrameReader()
    seen: list[tuple[Form, bytes]] = []
    chunks = data.draw(chunks_of(stream + b"\x00\x00\x00\x00\x07" + after))

    def read_all() -> None:
        for chunk in chunks:
            seen.extend(reader.feed(chunk))

    with pytest.raises(RemoteProtocolError):
        read_all()
    assert seen == sent[: len(seen)]


def test_a_frame_is_length_form_and_payload() -> None:
    """[FRM-1] By hand."""
    assert frame(Form.SEALED, b"abc") == b"\x00\x00\x00\x03\x01abc"
    assert frame(Form.BARE, b"") == b"\x00\x00\x00\x00\x02"


def test_the_largest_frame_passes() -> None:
    """[FRM-2] Exactly the limit."""
    payload = bytes(lim.FRAME_BYTES_MAX)
    assert FrameReader().feed(frame(Form.SEALED, payload)) == [(Form.SEALED, payload)]


def test_a_larger_frame_is_refused_by_its_head_alone() -> None:
    """[FRM-2] Nothing of it is waited for or kept."""
    for size in (lim.FRAME_BYTES_MAX + 1, 2**32 - 1):
        with pytest.raises(RemoteProtocolError) as caught:
            FrameReader().feed(size.to_bytes(4, "big") + b"\x01")
        assert caught.value.kind == "oversized"


def test_a_larger_frame_is_never_sent() -> None:
    """[FRM-2] Ours is the same bound."""
    with pytest.raises(LocalProtocolError, match="allowed"):
        frame(Form.BARE, bytes(lim.FRAME_BYTES_MAX + 1))


@pytest.mark.parametrize("form", [0, 3, 127, 255])
def test_an_unknown_form_is_refused(form: int) -> None:
    """[FRM-3] By its head alone."""
    with pytest.raises(RemoteProtocolError) as caught:
        FrameReader().feed(b"\x00\x00\x00\x01" + bytes([form]))
    assert caught.value.kind == "garbage"


def test_half_a_frame_yields_nothing_yet() -> None:
    """[FRM-4] Whatever is missing, even one byte of the head."""
    whole = frame(Form.BARE, b"payload")
    for cut in range(len(whole)):
        reader = FrameReader()
        assert reader.feed(whole[:cut]) == []
        assert reader.feed(whole[cut:]) == [(Form.BARE, b"payload")]


def test_a_reader_keeps_no_more_than_one_frame() -> None:
    """[FRM-2] What has come out is let go."""
    reader = FrameReader()
    for _ in range(3):
        reader.feed(frame(Form.BARE, bytes(1000)) + b"\x00")
        assert len(reader._buffer) < HEAD_BYTES
        reader.feed(b"\x00\x00\x00\x02")
