"""Seals a body with its issuer, audience, time and signature, and opens it again. What is signed is bytes, never structures."""

from dataclasses import dataclass
from typing import Any

import msgpack

from protocol import limits as lim
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.identity import NODE_ID_BYTES, SIGNATURE_BYTES, Identity, NodeId, verify

# Keeps these signatures apart from every other use of a node's key, libp2p's among them.
DOMAIN = b"starlings/1/envelope\0"
VERSION = 1
SWARM_BYTES = 32
NONCE_BYTES = 16


@dataclass(frozen=True, slots=True)
class Header:
    """Who says it, to whom (None: to whoever it reaches), in which swarm, when, and for how long it holds."""

    swarm: bytes
    issuer: NodeId
    audience: NodeId | None
    nonce: bytes
    sent_at_ms: int
    lifetime_ms: int


def seal(identity: Identity, header: Header, body: bytes) -> bytes:
    """The envelope `[header, body, signature]`, each as bytes. Raises LocalProtocolError for a header out of bounds."""
    if header.issuer != identity.node:
        raise LocalProtocolError("only the issuer seals")
    packed = _pack_header(header)
    try:
        _parse_header(packed)
    except RemoteProtocolError as wrong:
        raise LocalProtocolError(f"{wrong}: {header}") from wrong
    return _pack([packed, body, identity.sign(_signed_bytes(packed, body))])


def split(sealed: bytes) -> tuple[Header, bytes, bytes]:
    """Header, body and signature of an envelope, unproven. Raises RemoteProtocolError for anything else."""
    parts = _unpack(sealed, lim.FRAME_BYTES_MAX)
    if (
        type(parts) is not list
        or len(parts) != 3
        or any(type(part) is not bytes for part in parts)
        or len(parts[0]) > lim.HEADER_BYTES_MAX
        or len(parts[2]) != SIGNATURE_BYTES
        or _pack(parts) != sealed
    ):
        raise RemoteProtocolError("garbage", "not an envelope")
    return _parse_header(parts[0]), parts[1], parts[2]


def check(header: Header, swarm: bytes, audience: NodeId | None, now_ms: int) -> None:
    """Raises RemoteProtocolError unless the header is for this swarm, this audience and this time."""
    if header.swarm != swarm:
        raise RemoteProtocolError("foreign", "the sender belongs to another swarm")
    if header.audience != audience:
        raise RemoteProtocolError("forged", "an envelope for somebody else")
    if header.sent_at_ms > now_ms + lim.CLOCK_SKEW_MS_MAX:
        ahead_s = (header.sent_at_ms - now_ms) / 1000
        raise RemoteProtocolError("stale", f"sent {ahead_s:.0f} s in the future; one of the two clocks is wrong")
    if header.sent_at_ms + header.lifetime_ms + lim.CLOCK_SKEW_MS_MAX < now_ms:
        late_s = (now_ms - header.sent_at_ms) / 1000
        raise RemoteProtocolError(
            "stale", f"sent {late_s:.0f} s ago; one of the two clocks is wrong, or it is a replay"
        )


def prove(sealed: bytes) -> None:
    """Raises RemoteProtocolError unless the issuer signed it. The dearest check, so the last."""
    header, body, signature = split(sealed)
    if not verify(header.issuer, _signed_bytes(_pack_header(header), body), signature):
        raise RemoteProtocolError("forged", "the signature does not hold")


def _signed_bytes(header: bytes, body: bytes) -> bytes:
    return DOMAIN + len(header).to_bytes(4, "big") + header + body


def _pack_header(header: Header) -> bytes:
    return _pack(
        [
            VERSION,
            header.swarm,
            bytes(header.issuer),
            None if header.audience is None else bytes(header.audience),
            header.nonce,
            header.sent_at_ms,
            header.lifetime_ms,
        ]
    )


def _parse_header(packed: bytes) -> Header:
    # The version is told by two bytes, so that whatever another version means by the rest, people hear of a version.
    if len(packed) > 1 and 0x91 <= packed[0] <= 0x9F and packed[1] < 0x80 and packed[1] != VERSION:
        raise RemoteProtocolError("foreign", f"envelope version {packed[1]}; this node speaks {VERSION}")
    parts = _unpack(packed, lim.HEADER_BYTES_MAX)
    if type(parts) is not list or len(parts) != 7:
        raise RemoteProtocolError("garbage", "not a header")
    version, swarm, issuer, audience, nonce, sent_at_ms, lifetime_ms = parts
    if not (
        type(version) is int
        and version == VERSION
        and _is_bytes(swarm, SWARM_BYTES)
        and _is_bytes(issuer, NODE_ID_BYTES)
        and (audience is None or _is_bytes(audience, NODE_ID_BYTES))
        and _is_bytes(nonce, NONCE_BYTES)
        and type(sent_at_ms) is int
        and 0 <= sent_at_ms < 2**53
        and type(lifetime_ms) is int
        and 0 < lifetime_ms <= lim.LIFETIME_MS_MAX
        and _pack(parts) == packed
    ):
        raise RemoteProtocolError("garbage", "a header with fields out of bounds")
    return Header(swarm, NodeId(issuer), None if audience is None else NodeId(audience), nonce, sent_at_ms, lifetime_ms)


def _is_bytes(value: Any, size: int) -> bool:
    return type(value) is bytes and len(value) == size


def _pack(parts: list[Any]) -> bytes:
    packed: bytes = msgpack.packb(parts, use_bin_type=True)
    return packed


def _unpack(data: bytes, bytes_max: int) -> Any:
    if len(data) > bytes_max:
        raise RemoteProtocolError("oversized", f"{len(data)} bytes, {bytes_max} allowed")
    try:
        return msgpack.unpackb(
            data, max_str_len=0, max_bin_len=bytes_max, max_array_len=8, max_map_len=0, max_ext_len=0
        )
    except (ValueError, RecursionError, msgpack.UnpackException, msgpack.ExtraData) as wrong:
        raise RemoteProtocolError("garbage", f"not msgpack within limits: {type(wrong).__name__}") from wrong
