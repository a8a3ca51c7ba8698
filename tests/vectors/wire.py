"""Vectors of bodies, envelopes, adverts and frames."""

import struct
from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import Any

import msgpack

from protocol import codec, envelope, framing
from protocol import limits as lim
from protocol.errors import RemoteProtocolError
from protocol.framing import Form
from protocol.genesis import swarm_id
from protocol.identity import Identity
from protocol.messages import Advert, AdvertPush, Goodbye, Ping, TaskCancelled
from protocol.notary import Notary
from protocol.parts import Sampling
from tests.independent_signatures import NEUTRAL, point_bytes
from tests.vectors.samples import (
    ADA,
    ADVERT,
    ATTEMPT,
    BOB,
    EVE,
    HEADER,
    MESSAGES,
    NOW_MS,
    NOW_S,
    REQUEST,
    SIGNED,
    SIGNED_PULSE,
    SIGNED_SUSPICION,
    SWARM,
    TASK,
    as_json,
    kind_of,
    named,
    packed,
    sealed_by_issuer,
)  # fmt: skip


def bodies() -> Any:
    return {
        "valid": [{**named(message), "body": codec.encode(message).hex()} for message in MESSAGES],
        "invalid": [
            {"body": body.hex(), "kind": kind_of(lambda body=body: codec.decode(body)), "why": why}  # type: ignore[misc]
            for why, body in _bad_bodies()
        ],
    }


def _bad_bodies() -> Iterator[tuple[str, bytes]]:
    ping, request = codec.encode(Ping(7)), codec.encode(replace(REQUEST, sampling=Sampling(temperature=0.5)))
    half = b"\xcb" + struct.pack(">d", 0.5)
    yield "nothing", b""
    yield "half a body", ping[:-1]
    yield "a byte too many", ping + b"\x00"
    yield "a map", packed({0: 2})
    yield "a number", packed(2)
    yield "an empty array", packed([])
    yield "a kind that is a text", packed(["2", 7])
    yield "a kind that is true", packed([True, 7])
    yield "an unknown kind", packed([99, 7])
    yield "a negative kind", packed([-1, 7])
    yield "a field too few", packed([2])
    yield "a field too many", packed([2, 7, 7])
    yield "nil", packed([2, None])
    yield "true for a number", packed([2, True])
    yield "a real for a whole number", packed([2, 7.0])
    yield "a number over its bound", packed([2, 2**32])
    yield "a negative number", packed([2, -1])
    yield "an extension", packed([2, msgpack.ExtType(1, b"7")])
    yield "a map in a field", packed([2, {}])
    yield "an array of 16 bits for two items", b"\xdc\x00\x02" + ping[1:]
    yield "an array of 32 bits", b"\xdd\x00\x00\x00\x02" + ping[1:]
    for longer in (
        "cc07",
        "cd0007",
        "ce00000007",
        "cf0000000000000007",
        "d007",
        "d10007",
        "d200000007",
        "d30000000000000007",
    ):
        yield "a longer number", ping[:2] + bytes.fromhex(longer)
    yield "a longer kind", b"\x92\xcc\x02\x07"
    yield "a longer text", packed([18]).replace(b"\x91", b"\x93") + b"\xd9\x04chat\x01"
    yield "bytes with a longer head", b"\x92\x26\xc5\x00\x10" + ATTEMPT
    yield "bytes for text", packed([18, b"chat", 1])
    yield "text for bytes", packed([38, "0123456789abcdef"])
    yield "bytes too short", packed([38, bytes(15)])
    yield "bytes too long", packed([38, bytes(17)])
    yield "text over its bound", packed([18, "x" * 49, 1])
    yield "text over its bound in bytes, not in characters", packed([18, "é" * 25, 1])
    yield "text that is not UTF-8", packed([18, b"abcd", 1]).replace(b"\xc4\x04abcd", b"\xa4ab\xffd")
    yield "a surrogate in UTF-8", packed([18, b"abc", 1]).replace(b"\xc4\x03abc", b"\xa3\xed\xa0\x80")
    yield "an overlong character", packed([18, b"ab", 1]).replace(b"\xc4\x02ab", b"\xa2\xc0\x80")
    yield "a real of 32 bits", request.replace(half, b"\xca" + struct.pack(">f", 0.5))
    for why, real in (
        ("minus zero", -0.0),
        ("not a number", float("nan")),
        ("infinity", float("inf")),
        ("over its bound", 2.5),
    ):
        yield f"a real: {why}", request.replace(half, b"\xcb" + struct.pack(">d", real))
    yield "a whole number for a real", request.replace(half, b"\x01")
    yield "too many turns", packed([32, ATTEMPT, TASK, "chat", "", [["user", ""]] * 129, 1, 0.0, 0.0, 0, [], 1])
    yield "a turn with three fields", packed([32, ATTEMPT, TASK, "chat", "", [["user", "", ""]], 1, 0.0, 0.0, 0, [], 1])
    yield "a number for a boolean", packed([4, 1, "stopping"])
    yield "deep nesting", b"\x91" * 600 + b"\x02"
    yield "a push of what is no envelope", packed([17, [b"\x00"]])
    yield (
        "a push of another message than an advert",
        packed([17, [sealed_by_issuer(AdvertPush(()), replace(HEADER, audience=None))]]),
    )
    yield "an advert that is a text", packed([17, ["advert"]])
    yield "an advert over its limit", packed([17, [bytes(lim.ADVERT_BYTES_MAX + 1)]])


def envelopes() -> Any:
    valid = [envelope.seal(ADA, header, codec.encode(message)) for header, message in (
        (HEADER, REQUEST),
        (replace(HEADER, sent_at_ms=NOW_MS + lim.CLOCK_SKEW_MS_MAX), Goodbye(False, "")),
        (replace(HEADER, sent_at_ms=NOW_MS - lim.CLOCK_SKEW_MS_MAX - lim.MESSAGE_LIFETIME_MS), TaskCancelled(ATTEMPT)),
        (replace(HEADER, lifetime_ms=lim.LIFETIME_MS_MAX), Goodbye(True, "")),
        (replace(HEADER, lifetime_ms=1), Goodbye(True, "")),
    )]  # fmt: skip
    return {
        "receiver": {"swarm": SWARM.hex(), "audience": BOB.node.hex(), "now_ms": NOW_MS},
        "valid": [
            {"envelope": sealed.hex(), "header": as_json(header), "body": body.hex()}
            for sealed in valid
            for header, body, _ in [envelope.split(sealed)]
        ],
        "invalid": [
            {"envelope": sealed.hex(), "kind": kind_of(lambda sealed=sealed: _open(sealed)), "why": why}  # type: ignore[misc]
            for why, sealed in _bad_envelopes()
        ],
    }


def _open(sealed: bytes) -> None:
    header, _, _ = envelope.split(sealed)
    envelope.check(header, SWARM, BOB.node, NOW_MS)
    envelope.prove(sealed)


def _bad_envelopes() -> Iterator[tuple[str, bytes]]:
    body = codec.encode(Goodbye(False, ""))
    good = envelope.seal(ADA, HEADER, body)
    header, _, signature = msgpack.unpackb(good)

    def signed(header: bytes, domain: bytes = envelope.DOMAIN, signer: Identity = ADA) -> bytes:
        return packed([header, body, signer.sign(domain + len(header).to_bytes(4, "big") + header + body)])

    def changed(at: int, value: Any) -> bytes:
        fields = msgpack.unpackb(header)
        fields[at] = value
        return signed(packed(fields))

    yield "nothing", b""
    yield "cut off", good[:-1]
    yield "a byte too many", good + b"\x00"
    yield "two parts", packed([header, body])
    yield "text for bytes", packed([header, "body", signature])
    yield "a signature of 63 bytes", packed([header, body, signature[:63]])
    yield "a longer array head", b"\xdc\x00\x03" + good[1:]
    yield "a longer header", signed(b"\xdc\x00\x07" + header[1:])
    yield "a longer version", signed(b"\x97\xcc\x01" + header[2:])
    yield "a header over its limit", signed(header + bytes(lim.HEADER_BYTES_MAX))
    yield "six fields", signed(packed(msgpack.unpackb(header)[:6]))
    yield "eight fields", signed(packed([*msgpack.unpackb(header), 0]))
    yield "a version that is true", changed(0, True)
    yield "another version", changed(0, 2)
    yield "another version with other fields", signed(packed([2, "what follows is unknown"]))
    yield "a swarm of 31 bytes", changed(1, bytes(31))
    yield "an issuer of 33 bytes", changed(2, bytes(33))
    yield "an audience of 31 bytes", changed(3, bytes(31))
    yield "a nonce of 15 bytes", changed(4, bytes(15))
    yield "sent at 2^53", changed(5, 2**53)
    yield "sent at a negative time", changed(5, -1)
    yield "a lifetime of zero", changed(6, 0)
    yield "a lifetime over its limit", changed(6, lim.LIFETIME_MS_MAX + 1)
    yield "another swarm", changed(1, bytes(32))
    yield "for somebody else", changed(3, bytes(EVE.node))
    yield "for everybody", changed(3, None)
    yield "a millisecond too early", changed(5, NOW_MS + lim.CLOCK_SKEW_MS_MAX + 1)
    yield "a millisecond too late", changed(5, NOW_MS - lim.CLOCK_SKEW_MS_MAX - lim.MESSAGE_LIFETIME_MS - 1)
    yield "signed by somebody else", signed(header, signer=EVE)
    yield "signed without the domain", signed(header, domain=b"")
    yield "a changed body", good.replace(body, codec.encode(Goodbye(True, "")))
    neutral = point_bytes(NEUTRAL)
    forged = packed([1, SWARM, neutral, bytes(BOB.node), b"n" * 16, NOW_MS, 30_000])
    yield "forged under a key of small order", packed([forged, body, neutral + bytes(32)])


def adverts() -> Any:
    notary = Notary(EVE, SWARM, Random(3))
    late_ms = 60_000 + lim.CLOCK_SKEW_MS_MAX
    rows = [
        (SIGNED.sealed, "fresh"),
        (notary.sign(ADVERT, 60.0, NOW_S - late_ms / 1000).sealed, "at its last moment"),
        (notary.sign(ADVERT, 60.0, NOW_S - late_ms / 1000 - 0.001).sealed, "expired"),
        (notary.sign(ADVERT, 60.0, NOW_S + lim.CLOCK_SKEW_MS_MAX / 1000 + 0.001).sealed, "from the future"),
        (Notary(EVE, swarm_id("other"), Random(3)).sign(ADVERT, 60.0, NOW_S).sealed, "of another swarm"),
        (envelope.seal(ADA, HEADER, codec.encode(ADVERT)), "for one node alone"),
        (SIGNED.sealed.replace(bytes(EVE.node), bytes(ADA.node)), "in another name"),
        (sealed_by_issuer(Goodbye(True, ""), replace(HEADER, audience=None)), "another message"),
        (b"\xc0", "no envelope"),
    ]
    judge = Notary(BOB, SWARM, Random(4))
    found = []
    for sealed, why in rows:
        try:
            holds = not judge.fault(codec.signed(Advert, sealed), NOW_S)
        except RemoteProtocolError:
            holds = False
        found.append({"kind": "Advert", "sealed": sealed.hex(), "holds": holds, "why": why})
    found += [
        {"kind": "Pulse", "sealed": SIGNED_PULSE.sealed.hex(), "holds": True, "why": "a pulse"},
        {"kind": "Suspicion", "sealed": SIGNED_SUSPICION.sealed.hex(), "holds": True, "why": "a suspicion"},
        {"kind": "Pulse", "sealed": SIGNED.sealed.hex(), "holds": False, "why": "an advert for a pulse"},
        {"kind": "Suspicion", "sealed": SIGNED_PULSE.sealed.hex(), "holds": False, "why": "a pulse for a suspicion"},
    ]
    return {"swarm": SWARM.hex(), "now_ms": NOW_MS, "adverts": found}


def frames() -> Any:
    one, two = framing.frame(Form.SEALED, b"sealed"), framing.frame(Form.BARE, b"")
    valid = [(b"", b""), (one, b""), (one + two, b""), (one + two[:3], two[:3]), (one[:7], one[:7])]
    invalid = [
        ("one byte too long", (lim.FRAME_BYTES_MAX + 1).to_bytes(4, "big") + b"\x01"),
        ("far too long", b"\xff\xff\xff\xff\x02"),
        ("form 0", b"\x00\x00\x00\x00\x00"),
        ("form 3", one + b"\x00\x00\x00\x00\x03"),
    ]
    return {
        "valid": [
            {
                "stream": stream.hex(),
                "frames": [
                    {"form": form, "payload": payload.hex()} for form, payload in framing.FrameReader().feed(stream)
                ],
                "rest": rest.hex(),
            }
            for stream, rest in valid
        ],
        "invalid": [
            {"stream": s.hex(), "kind": kind_of(lambda s=s: framing.FrameReader().feed(s)), "why": why}  # type: ignore[misc]
            for why, s in invalid
        ],
    }
