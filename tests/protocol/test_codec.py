"""Bodies: one encoding for each message, every bound exact, and noise that does no harm."""

import dataclasses
import math
import struct
import tracemalloc
from collections.abc import Iterator
from random import Random
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import codec, envelope
from protocol import limits as lim
from protocol.envelope import Header
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.messages import (
    MESSAGES,
    Advert,
    AdvertPull,
    AdvertPush,
    Message,
    Ping,
    Pulse,
    Signed,
    Suspicion,
    TaskRequest,
)
from protocol.notary import Notary
from protocol.parts import Sampling, Turn
from tests.fields import least, places, with_item
from tests.strategies import ADA, SWARM, instances, messages, plain, signed_adverts, task_request

Path = tuple[int, ...]
CLASSES = list(MESSAGES.values())


def refused(body: bytes) -> str:
    """The kind of the error that this body makes."""
    with pytest.raises(RemoteProtocolError) as caught:
        codec.decode(body)
    return caught.value.kind


def packed(parts: Any) -> bytes:
    result: bytes = msgpack.packb(parts, use_bin_type=True)
    return result


# --- Round trips and noise --------------------------------------------------------------------------------------------


@settings(max_examples=150)
@given(messages())
def test_a_message_survives_the_wire(message: Message) -> None:
    """[COD-1] [COD-2] A body is an array of the kind and the fields in their order."""
    body = codec.encode(message)
    assert codec.decode(body) == message
    parts = msgpack.unpackb(body)
    assert parts[0] == message.KIND
    assert len(parts) == 1 + len(dataclasses.fields(message))  # type: ignore[arg-type]


@settings(max_examples=150)
@given(st.binary(max_size=200))
def test_noise_is_refused_and_does_nothing_else(noise: bytes) -> None:
    """[COD-9] Only one error leaves the decoder."""
    try:
        message = codec.decode(noise)
    except RemoteProtocolError:
        return
    assert codec.encode(message) == noise


@settings(max_examples=150)
@given(plain())
def test_any_msgpack_is_refused_or_is_the_one_encoding_of_a_message(parts: Any) -> None:
    """[COD-9] Not only random bytes: whatever msgpack can say."""
    try:
        message = codec.decode(packed(parts))
    except RemoteProtocolError:
        return
    assert codec.encode(message) == packed(parts)


@settings(max_examples=150)
@given(st.sampled_from(sorted(MESSAGES)), st.lists(plain(), max_size=12))
def test_any_fields_behind_a_known_kind_are_refused_or_are_a_message(kind: int, fields: list[Any]) -> None:
    """[COD-9] Noise that comes past the first check."""
    body = packed([kind, *fields])
    try:
        message = codec.decode(body)
    except RemoteProtocolError:
        return
    assert codec.encode(message) == body


@settings(max_examples=100)
@given(messages(), st.data())
def test_a_changed_bit_is_refused_or_makes_another_message(message: Message, data: st.DataObject) -> None:
    """[COD-3] Two different bodies never mean the same."""
    body = bytearray(codec.encode(message))
    bit = data.draw(st.integers(0, 8 * len(body) - 1))
    body[bit // 8] ^= 1 << bit % 8
    try:
        other = codec.decode(bytes(body))
    except RemoteProtocolError:
        return
    assert codec.encode(other) == bytes(body)
    assert other != message


# --- One encoding -----------------------------------------------------------------------------------------------------


def tokens(value: Any) -> Iterator[tuple[list[bytes], bytes]]:
    """For each value, outside first: every head that msgpack has for it, shortest first, and what follows the head."""
    match value:
        case bool():
            yield [b"\xc3" if value else b"\xc2"], b""
        case int():
            unsigned = [(0xCC, ">B", 2**8), (0xCD, ">H", 2**16), (0xCE, ">I", 2**32), (0xCF, ">Q", 2**64)]
            signed = [(0xD0, ">b", 2**7), (0xD1, ">h", 2**15), (0xD2, ">i", 2**31), (0xD3, ">q", 2**63)]
            heads = [bytes([value])] if value < 128 else []
            yield heads + _heads(unsigned + signed, value), b""
        case float():
            narrow = [b"\xca" + struct.pack(">f", value)] if math.isclose(value, 0.5) else []
            yield [b"\xcb" + struct.pack(">d", value), *narrow], b""
        case str():
            data = value.encode()
            heads = [bytes([0xA0 + len(data)])] if len(data) < 32 else []
            yield heads + _heads([(0xD9, ">B", 2**8), (0xDA, ">H", 2**16), (0xDB, ">I", 2**32)], len(data)), data
        case bytes():
            yield _heads([(0xC4, ">B", 2**8), (0xC5, ">H", 2**16), (0xC6, ">I", 2**32)], len(value)), value
        case list():
            heads = [bytes([0x90 + len(value)])] if len(value) < 16 else []
            yield heads + _heads([(0xDC, ">H", 2**16), (0xDD, ">I", 2**32)], len(value)), b""
            for item in value:
                yield from tokens(item)


def _heads(forms: list[tuple[int, str, int]], number: int) -> list[bytes]:
    return [bytes([first]) + struct.pack(layout, number) for first, layout, end in forms if number < end]


@pytest.mark.parametrize("cls", CLASSES)
@settings(max_examples=8)
@given(data=st.data())
def test_every_longer_encoding_is_refused(cls: type[Message], data: st.DataObject) -> None:
    """[COD-3] Each value of a body, in each form that msgpack has for it."""
    body = codec.encode(data.draw(instances(cls)))
    parts = list(tokens(msgpack.unpackb(body, strict_map_key=False)))
    assert b"".join(heads[0] + rest for heads, rest in parts) == body
    for at, (heads, rest) in enumerate(parts):
        before = b"".join(heads[0] + rest for heads, rest in parts[:at])
        after = b"".join(heads[0] + rest for heads, rest in parts[at + 1 :])
        for longer in heads[1:]:
            assert refused(before + longer + rest + after) == "garbage"


def test_a_float_of_32_bits_is_refused() -> None:
    """[COD-3] [COD-6] Half fits both widths exactly; only 64 bits are right."""
    body = codec.encode(dataclasses.replace(task_request(bytes(16)), sampling=Sampling(temperature=0.5)))
    wide, narrow = b"\xcb" + struct.pack(">d", 0.5), b"\xca" + struct.pack(">f", 0.5)
    assert body.count(wide) == 1
    assert refused(body.replace(wide, narrow)) == "garbage"


def test_minus_zero_is_written_as_zero_and_refused_when_it_comes() -> None:
    """[COD-6] The two zeros are equal, so they have one encoding."""
    request = task_request(bytes(16))
    zero, minus = (codec.encode(dataclasses.replace(request, sampling=Sampling(temperature=t))) for t in (0.0, -0.0))
    assert zero == minus
    wide = b"\xcb" + struct.pack(">d", 0.0)
    assert wide in zero
    assert refused(zero.replace(wide, b"\xcb" + struct.pack(">d", -0.0), 1)) == "garbage"


def test_bytes_after_the_body_are_refused() -> None:
    """[COD-1] A body is one array and nothing more."""
    assert refused(codec.encode(Ping(1)) + b"\x00") == "garbage"
    assert refused(codec.encode(Ping(1))[:-1]) == "garbage"
    assert refused(b"") == "garbage"


# --- Shape ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [packed({}), packed(1), packed([]), packed(["1"]), packed([True]), packed([None]), packed([[2]]), packed([2.0])],
)
def test_what_is_not_an_array_that_starts_with_a_kind_is_refused(body: bytes) -> None:
    """[COD-1] The kind is an integer."""
    assert refused(body) == "garbage"


@pytest.mark.parametrize(
    "kind", [kind for kind in (0, 5, 15, 19, 31, 39, 127, 128, 2**32, 2**64 - 1) if kind not in MESSAGES]
)
def test_an_unknown_kind_is_refused(kind: int) -> None:
    """[COD-8] Newer kinds need a newer protocol id."""
    assert refused(packed([kind])) == "garbage"


@pytest.mark.parametrize("cls", CLASSES)
def test_a_field_too_few_or_too_many_is_refused(cls: type[Message]) -> None:
    """[COD-2] The number of fields is part of the kind."""
    fields = least(cls)
    assert isinstance(codec.decode(packed([cls.KIND, *fields])), cls)
    assert refused(packed([cls.KIND, *fields[:-1]])) == "garbage"
    assert refused(packed([cls.KIND, *fields, 0])) == "garbage"


@pytest.mark.parametrize("head", [b"\xdc\x20\x00", b"\xdd\x00\x00\x20\x00"])
def test_arrays_that_only_promise_items_take_no_room(head: bytes) -> None:
    """[COD-9] Three kilobytes of heads took thirty megabytes and a sixteenth of a second, before any signature."""
    tracemalloc.start()
    try:
        with pytest.raises(RemoteProtocolError):
            codec.decode(b"\x92\x01" + head * 1_000)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_deep_nesting_is_refused() -> None:
    """[COD-4] Before it costs a stack."""
    assert refused(b"\x91" * 60_000 + b"\x01") == "garbage"
    assert refused(b"\x91" * 300 + b"\x01") == "garbage"


@pytest.mark.parametrize(
    "item", [{}, {"a": 1}, msgpack.ExtType(5, b""), msgpack.ExtType(5, b"x"), msgpack.Timestamp(1, 0), None, -1]
)
def test_maps_extensions_nil_and_negative_numbers_have_no_place(item: Any) -> None:
    """[COD-4] Whatever field they stand in."""
    for cls in CLASSES:
        for path in places(cls):
            assert refused(packed([cls.KIND, *with_item(cls, path, item)])) == "garbage"


def test_a_long_body_is_refused_before_it_is_read() -> None:
    """[COD-7] The bound on the whole comes on top of the bounds on the fields."""
    assert refused(b"\x00" * (lim.BODY_BYTES_MAX + 1)) == "oversized"
    assert refused(b"\x00" * lim.BODY_BYTES_MAX) == "garbage"


def test_a_message_over_the_body_limit_is_never_sent() -> None:
    """[COD-7] Exactly the limit passes both ways."""
    request = dataclasses.replace(task_request(bytes(16)), turns=(Turn("user", "x" * 60_000), Turn("user", "")))
    room = (
        lim.BODY_BYTES_MAX - len(codec.encode(request)) - 2
    )  # Text over 255 bytes takes two bytes more for its length.
    fits = dataclasses.replace(request, turns=(request.turns[0], Turn("user", "y" * room)))
    assert len(codec.encode(fits)) == lim.BODY_BYTES_MAX
    assert codec.decode(codec.encode(fits)) == fits
    with pytest.raises(LocalProtocolError, match="allowed"):
        codec.encode(dataclasses.replace(request, turns=(request.turns[0], Turn("user", "y" * (room + 1)))))


# --- Adverts inside a push --------------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(signed_adverts())
def test_an_advert_is_read_out_of_its_envelope(signed: Signed[Advert]) -> None:
    """[ADV-1] What was sealed is what comes out."""
    assert codec.signed(Advert, signed.sealed) == signed


@pytest.mark.parametrize("kind", codec.PASSED_ON)
def test_what_is_passed_on_is_refused_over_its_limit(kind: type[Message]) -> None:
    """[ADV-2] Before it is read."""
    with pytest.raises(RemoteProtocolError) as caught:
        codec.signed(kind, bytes(codec.PASSED_ON[kind] + 1))
    assert caught.value.kind == "oversized"


def test_pulses_and_suspicions_always_fit() -> None:
    """[ADV-2] At the edge of every field."""
    notary, most = Notary(ADA, SWARM, Random(1)), 2**53 - 1
    for message in (Pulse(most, lim.SLOTS_MAX, lim.SLOTS_MAX, True, True), Suspicion(ADA.node, most)):
        assert len(notary.sign(message, lim.LIFETIME_MS_MAX / 1000, most / 1000 - 1).sealed) <= lim.RUMOUR_BYTES_MAX
    assert 2 * lim.RUMOURS_MAX * (lim.RUMOUR_BYTES_MAX + 3) + 16 <= lim.BODY_BYTES_MAX


def test_a_push_takes_as_many_of_the_largest_adverts_as_it_says() -> None:
    """[ADV-2] A peer that collects large adverts from everywhere cannot make others unable to pass them on."""
    largest = [bytes(lim.ADVERT_BYTES_MAX)] * lim.ADVERTS_PER_PUSH_MAX
    assert len(packed([AdvertPush.KIND, largest])) <= lim.BODY_BYTES_MAX


@pytest.mark.parametrize("inner", [AdvertPull("", 1), AdvertPush(()), task_request(bytes(16))])
def test_only_an_advert_is_taken_from_an_adverts_envelope(inner: Message) -> None:
    """[ADV-1] Not even another push: nested pushes would multiply the work of reading one."""
    header = Header(SWARM, ADA.node, None, bytes(16), 1, 1)
    sealed = envelope.seal(ADA, header, codec.encode(inner))
    with pytest.raises(RemoteProtocolError, match="has no place here"):
        codec.signed(Advert, sealed)
    assert refused(packed([AdvertPush.KIND, [sealed]])) == "garbage"


def test_an_advert_without_its_envelope_is_never_sent() -> None:
    signed = Signed(ADA.node, 1, 1, Advert("", (), (), 0, 0, 0, False), b"")
    with pytest.raises(LocalProtocolError, match="without its envelope"):
        codec.encode(AdvertPush((signed,)))


def test_a_request_is_what_it_says() -> None:
    """[COD-2] One body by hand, so that the encoder is not only its own mirror."""
    request = task_request(b"a" * 16)
    assert isinstance(request, TaskRequest)
    temperature, top_p, min_p, one, zero = (b"\xcb" + struct.pack(">d", value) for value in (0.7, 0.95, 0.05, 1.0, 0.0))
    by_hand = (
        b"\x9d\x20" + b"\xc4\x10" + b"a" * 16 + b"\xc4\x10" + bytes(16) + b"\xa4chat" + b"\xa0"
        b"\x91\x94\xa4user\xa5hello\x90\xa0" + b"\x40"
        + b"\x98" + temperature + top_p + b"\x28" + min_p + one + zero + zero + b"\x00"
        + b"\x90" + b"\xcd\x75\x30" + b"\xa0" + b"\x90" + b"\x98\xa0\xa0\x90\xa0\x90\x00\xa0\xa0"
    )  # fmt: skip
    assert codec.encode(request) == by_hand
