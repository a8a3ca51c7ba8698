"""Envelopes: what is sealed opens again, and nothing else does."""

from dataclasses import replace
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import envelope
from protocol import limits as lim
from protocol.envelope import Header
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.identity import NodeId
from tests.strategies import ADA, BOB, EVE, NOW_MS, SWARM, headers, plain

HEADER = Header(SWARM, ADA.node, BOB.node, b"n" * 16, NOW_MS, 30_000)
SEALED = envelope.seal(ADA, HEADER, b"body")


def packed(parts: Any) -> bytes:
    result: bytes = msgpack.packb(parts, use_bin_type=True)
    return result


def refused(sealed: bytes) -> str:
    """The kind of the error that these bytes make."""
    with pytest.raises(RemoteProtocolError) as caught:
        opened(sealed)
    return caught.value.kind


def opened(sealed: bytes) -> Header:
    header, _, _ = envelope.split(sealed)
    envelope.prove(sealed)
    return header


def signed_by(identity: Any, header: bytes, body: bytes, domain: bytes = envelope.DOMAIN) -> bytes:
    """An envelope around any header at all, with a signature that holds."""
    signature = identity.sign(domain + len(header).to_bytes(4, "big") + header + body)
    return packed([header, body, signature])


def fields(header: Header = HEADER) -> list[Any]:
    """A header's fields on the wire."""
    return [
        1, header.swarm, bytes(header.issuer), header.audience and bytes(header.audience),
        header.nonce, header.sent_at_ms, header.lifetime_ms,
    ]  # fmt: skip


@settings(max_examples=100)
@given(headers(), st.binary(max_size=500))
def test_what_was_sealed_opens_again(header: Header, body: bytes) -> None:
    """[ENV-1] [ENV-2] Every header within bounds, any body."""
    sealed = envelope.seal(ADA, header, body)
    assert opened(sealed) == header
    assert envelope.split(sealed)[1] == body


def test_the_layout_is_the_one_in_the_specification() -> None:
    """[ENV-1] [ENV-2] [ENV-3] Built by hand: domain, length of the header, header, body."""
    assert packed(fields()) == envelope_parts()[0]
    assert signed_by(ADA, packed(fields()), b"body") == SEALED


def envelope_parts() -> list[bytes]:
    parts: list[bytes] = msgpack.unpackb(SEALED)
    return parts


def test_every_single_changed_bit_is_refused() -> None:
    """[ENV-9] Nothing in an envelope is there without being proved."""
    for bit in range(8 * len(SEALED)):
        changed = bytearray(SEALED)
        changed[bit // 8] ^= 1 << bit % 8
        assert refused(bytes(changed)) in {"garbage", "foreign", "forged", "oversized"}


def test_every_cut_is_refused() -> None:
    """[ENV-1] And so is anything behind the end."""
    for size in range(len(SEALED)):
        assert refused(SEALED[:size]) == "garbage"
    assert refused(SEALED + b"\x00") == "garbage"


@settings(max_examples=150)
@given(st.binary(max_size=300) | plain().map(packed))
def test_noise_is_refused_and_does_nothing_else(noise: bytes) -> None:
    """[ENV-1] Only one error leaves."""
    assert refused(noise) == "garbage"


@settings(max_examples=150)
@given(st.lists(plain(), max_size=8).map(packed) | st.binary(max_size=300))
def test_any_header_with_a_good_signature_is_refused_or_is_the_one_encoding_of_a_header(header: bytes) -> None:
    """[ENV-2] [ENV-4] A signature does not make nonsense true."""
    sealed = signed_by(ADA, header, b"body")
    try:
        assert packed(fields(opened(sealed))) == header
    except RemoteProtocolError:
        return


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (0, True), (0, None), (1, b"s" * 31), (1, b"s" * 33), (1, 7), (2, b"i" * 31), (2, None), (3, b"a" * 31),
        (3, b""), (3, False), (4, b"n" * 15), (4, b"n" * 17), (5, -1), (5, 2**53), (5, 1.0), (5, True), (6, 0),
        (6, lim.LIFETIME_MS_MAX + 1), (6, True), (6, None),
    ],
)  # fmt: skip
def test_a_header_field_out_of_bounds_is_refused(at: int, value: Any) -> None:
    """[ENV-2] Even when the signature holds."""
    parts = fields()
    parts[at] = value
    assert refused(signed_by(ADA, packed(parts), b"body")) == "garbage"


@pytest.mark.parametrize(("at", "value"), [(3, None), (5, 0), (5, 2**53 - 1), (6, 1), (6, lim.LIFETIME_MS_MAX)])
def test_a_header_field_at_its_bound_passes(at: int, value: Any) -> None:
    """[ENV-2] What the table allows, all of it."""
    parts = fields()
    parts[at] = value
    sealed = signed_by(ADA, packed(parts), b"body")
    assert fields(opened(sealed)) == parts


@pytest.mark.parametrize("parts", [fields()[:6], [*fields(), 0], [], {}, 1, [fields()]])
def test_a_header_with_other_than_seven_fields_is_refused(parts: Any) -> None:
    """[ENV-2] The number of fields is part of the version."""
    assert refused(signed_by(ADA, packed(parts), b"body")) == "garbage"


def test_a_header_over_its_limit_is_refused() -> None:
    """[ENV-2] Before it is read."""
    assert refused(signed_by(ADA, bytes(lim.HEADER_BYTES_MAX + 1), b"body")) == "garbage"


def test_an_envelope_over_its_limit_is_refused() -> None:
    """[ENV-1] Before it is read."""
    assert refused(bytes(lim.FRAME_BYTES_MAX + 1)) == "oversized"


@pytest.mark.parametrize("size", [63, 65, 0])
def test_a_signature_of_another_length_is_refused(size: int) -> None:
    """[ENV-1] It has 64 bytes."""
    assert refused(packed([packed(fields()), b"body", bytes(size)])) == "garbage"


@pytest.mark.parametrize(
    "parts", [[b"", b""], [b"", b"", b"", b""], [b"h", None, bytes(64)], [b"h", "", bytes(64)], {}, 3, [1, 2, 3]]
)
def test_what_is_not_three_byte_strings_is_refused(parts: Any) -> None:
    """[ENV-1] An array of header, body and signature."""
    assert refused(packed(parts)) == "garbage"


def test_a_longer_encoding_is_refused() -> None:
    """[ENV-4] The same values in other bytes: around the parts, and inside the header with a signature that holds."""
    header, body, _ = envelope_parts()
    assert SEALED.startswith(b"\x93\xc4")
    assert refused(b"\xdc\x00\x03" + SEALED[1:]) == "garbage"
    assert refused(b"\x93\xc5\x00" + SEALED[2:]) == "garbage"
    assert header.startswith(b"\x97\x01\xc4\x20")
    for longer in (b"\xdc\x00\x07" + header[1:], b"\x97\xcc\x01" + header[2:], b"\x97\x01\xc5\x00" + header[3:]):
        assert refused(signed_by(ADA, longer, body)) == "garbage"


@pytest.mark.parametrize("version", [0, 2, 127])
def test_another_version_is_foreign_whatever_follows(version: int) -> None:
    """[ENV-5] Said by the first field alone, so that people hear of a version and not of garbage."""
    for rest in (fields()[1:], fields()[1:6], [], ["text", {"map": None}]):
        assert refused(signed_by(ADA, packed([version, *rest]), b"body")) == "foreign"
    assert refused(signed_by(ADA, bytes([0x91, version]) + b"\xc1 no msgpack at all", b"body")) == "foreign"


def test_a_signature_for_another_purpose_is_refused() -> None:
    """[ENV-3] The same key signs libp2p's handshake and records; none of them is an envelope."""
    for domain in (b"", b"noise-libp2p-static-key:", b"starlings/2/envelope\0", envelope.DOMAIN[:-1]):
        assert refused(signed_by(ADA, packed(fields()), b"body", domain)) == "forged"


def test_header_and_body_cannot_be_cut_elsewhere() -> None:
    """[ENV-3] The header's length is signed too."""
    header = packed(fields())
    signature = ADA.sign(envelope.DOMAIN + header + b"body")
    assert refused(packed([header, b"body", signature])) == "forged"


def test_only_the_issuers_key_counts() -> None:
    """[ENV-9] Eve signs in Ada's name."""
    assert refused(signed_by(EVE, packed(fields()), b"body")) == "forged"


def test_a_forgery_under_a_key_of_small_order_is_refused() -> None:
    """[IDN-4] [ENV-9] Under the neutral point as key, one constant signature fits every message, for some verifiers."""
    neutral = bytes([1]) + bytes(31)
    parts = fields(replace(HEADER, issuer=NodeId(neutral)))
    assert refused(packed([packed(parts), b"body", neutral + bytes(32)])) == "forged"


# --- Where and when an envelope holds ---------------------------------------------------------------------------------


def judged(header: Header, now_ms: int = NOW_MS, audience: NodeId | None = BOB.node) -> str:
    """The kind of error that the check makes, or nothing."""
    try:
        envelope.check(header, SWARM, audience, now_ms)
    except RemoteProtocolError as error:
        return error.kind
    return ""


def test_an_envelope_of_another_swarm_is_foreign() -> None:
    """[ENV-6] Each swarm has its own id."""
    assert judged(HEADER) == ""
    assert judged(replace(HEADER, swarm=bytes(32))) == "foreign"


def test_an_envelope_for_somebody_else_is_forged() -> None:
    """[ENV-7] In both directions: one for nobody in particular is not one for us."""
    assert judged(replace(HEADER, audience=EVE.node)) == "forged"
    assert judged(replace(HEADER, audience=None)) == "forged"
    assert judged(replace(HEADER, audience=None), audience=None) == ""
    assert judged(HEADER, audience=None) == "forged"


def test_the_time_window_is_exact_at_both_ends() -> None:
    """[ENV-8] Two clocks may differ by CLOCK_SKEW_MS_MAX either way."""
    skew = lim.CLOCK_SKEW_MS_MAX
    assert judged(HEADER, NOW_MS - skew) == ""
    assert judged(HEADER, NOW_MS - skew - 1) == "stale"
    assert judged(HEADER, NOW_MS + HEADER.lifetime_ms + skew) == ""
    assert judged(HEADER, NOW_MS + HEADER.lifetime_ms + skew + 1) == "stale"


def test_the_error_tells_people_about_their_clock() -> None:
    with pytest.raises(RemoteProtocolError, match="3600 s in the future; one of the two clocks is wrong"):
        envelope.check(HEADER, SWARM, BOB.node, NOW_MS - 3_600_000)
    with pytest.raises(RemoteProtocolError, match="3600 s ago"):
        envelope.check(HEADER, SWARM, BOB.node, NOW_MS + 3_600_000)


# --- Our own mistakes -------------------------------------------------------------------------------------------------


def test_nobody_seals_in_anothers_name() -> None:
    with pytest.raises(LocalProtocolError, match="only the issuer"):
        envelope.seal(EVE, HEADER, b"")


@pytest.mark.parametrize(
    "header",
    [
        replace(HEADER, lifetime_ms=0),
        replace(HEADER, lifetime_ms=lim.LIFETIME_MS_MAX + 1),
        replace(HEADER, nonce=b"short"),
        replace(HEADER, sent_at_ms=2**53),
        replace(HEADER, swarm=b""),
    ],
)
def test_a_header_that_others_would_refuse_is_never_sealed(header: Header) -> None:
    """[ENV-2] Found here, where the mistake is, and not at the peer."""
    with pytest.raises(LocalProtocolError):
        envelope.seal(ADA, header, b"")
