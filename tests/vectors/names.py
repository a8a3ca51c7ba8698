"""Vectors of names, keys and signatures."""

from hashlib import sha512
from random import Random
from typing import Any

from protocol.genesis import swarm_id
from protocol.identity import Identity, NodeId, node_text, verify
from protocol.parts import Turn
from protocol.prefixes import prefix_of
from swarm.finding.regions import REGIONS, key_of
from swarm.values import MEMBERSHIP, Subject
from tests.independent_signatures import BASE, NEUTRAL, L, P, Point, add, point_bytes, point_of, times
from tests.vectors.samples import ADA, BOB


def identities() -> Any:
    seeds = [bytes(32), bytes([255]) * 32, *(Random(number).randbytes(32) for number in range(6))]
    valid = [(seed, Identity(seed).node) for seed in seeds]
    text = node_text(ADA.node)
    invalid = {
        "": "nothing",
        text[:-1]: "too short",
        text + "1": "too long",
        "1" + text: "another zero byte in front",
        " " + text: "a blank",
        text.replace("K", "0", 1): "0 is not a base58 character",
        "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N": "the hash of an RSA key",
        "16Uiu2HAmDQpPBrPFSoWVYNKTwbSW4ew1ez8cBqcsqrPv58wvaJvb": "a secp256k1 key",
        "1" * 52: "zero bytes",
    }
    return {
        "valid": [{"seed": seed.hex(), "node": node.hex(), "text": node_text(node)} for seed, node in valid],
        "invalid": [{"text": wrong, "why": why} for wrong, why in invalid.items()],
    }


def signatures() -> Any:
    """Signatures of Ada under her own key, and such as only arithmetic can make."""
    assert BASE is not None
    true = ADA.sign(b"data")
    larger = (int.from_bytes(true[32:], "little") + L).to_bytes(32, "little")
    neutral, torsion = point_bytes(NEUTRAL), _torsion()
    secret, dice = 1_234_567, 89
    r = point_bytes(times(dice, BASE))
    key = point_bytes(times(secret, BASE))
    mixed = point_bytes(add(times(secret, BASE), torsion))  # Of order 8 L.

    def answered(key: bytes, r: bytes, dice: int, data: bytes) -> bytes:
        k = int.from_bytes(sha512(r + key + data).digest(), "little")
        return r + ((dice + k * secret) % L).to_bytes(32, "little")

    rows = [
        (ADA.node, b"data", true, "by Ada"),
        (ADA.node, b"", ADA.sign(b""), "of nothing"),
        (ADA.node, b"date", true, "of other data"),
        (BOB.node, b"data", true, "under another key"),
        (ADA.node, b"data", bytes([true[0] ^ 1]) + true[1:], "a changed bit in R"),
        (ADA.node, b"data", true[:63] + bytes([true[63] ^ 1]), "a changed bit in S"),
        (ADA.node, b"data", true[:32] + larger, "S + L in place of S"),
        (ADA.node, b"data", true[:63], "63 bytes"),
        (neutral, b"data", neutral + bytes(32), "the neutral point as key: fits every message without this rule"),
        (point_bytes(torsion), b"data", neutral + bytes(32), "a key of order 8"),
        ((P + 1).to_bytes(32, "little"), b"data", neutral + bytes(32), "the neutral point, not reduced, as key"),
        (key, b"data", answered(key, r, dice, b"data"), "made by hand"),
        (key, b"data", answered(key, neutral, 0, b"data"), "the neutral point as R"),
        (
            key,
            b"data",
            answered(key, point_bytes(add(times(dice, BASE), torsion)), dice, b"data"),
            "R off by order 8",
        ),
    ]
    # Under a key of mixed order the equation holds for one message in eight; who multiplies by 8 takes all of them.
    texts = [str(number).encode() for number in range(24)]
    rows += [(mixed, text, answered(mixed, r, dice, text), "a key of mixed order") for text in texts]
    return [
        {
            "node": node.hex(),
            "data": data.hex(),
            "signature": s.hex(),
            "holds": verify(NodeId(node), data, s),
            "why": why,
        }
        for node, data, s, why in rows
    ]


def _torsion() -> Point:
    """A point of order 8: any point of the curve, times L."""
    candidates = (point_of(y.to_bytes(32, "little")) for y in range(2, 100))
    points = (times(L, point) for point in candidates if point is not None)
    return next(point for point in points if point_bytes(times(4, point)) != point_bytes(NEUTRAL))


def swarms() -> Any:
    return [
        {"name": name, "swarm": swarm_id(name).hex()} for name in ("public", "attic", "Attic", "café", "cafe\u0301", "")
    ]


def providers() -> Any:
    skills = ("chat", "classify:language", "x-größe")
    models = ("smollm2-135m-instruct", "chat")  # A model may be called as a skill is.
    subjects = [MEMBERSHIP, *map(Subject, skills), *(Subject(model=model) for model in models), Subject(digest=bytes(range(32)))]
    return [
        {
            "swarm": swarm_id(name).hex(),
            "skill": subject.skill,
            "model": subject.model,
            "digest": subject.digest.hex(),
            "region": region,
            "key": key_of(swarm_id(name), subject, region).hex(),
        }
        for name in ("public", "attic")
        for subject in subjects
        for region in range(REGIONS)
    ]


def prefixes() -> Any:
    """Conversations and the digests of their prefixes, empty where there is none."""
    system, user, long = ("system", "Be brief. " * 30), ("user", "Größe? " * 60), "[" + " " * 400 + "]"
    rows: list[tuple[str, str, list[tuple[str, str]]]] = [
        ("smollm2", "", [system, user]),
        ("smollm2", "", [system, ("user", "Anything else")]),
        ("gemma3", "", [system, user]),
        ("smollm2", "", [system, ("system", "And kind."), user]),
        ("smollm2", long, [system, user]),
        ("smollm2", long, [user]),
        ("smollm2", "", [("system", "é" * 128)]),
        ("smollm2", "", [("system", "é" * 127)]),
        ("smollm2", "", [user, system]),
        ("", "", []),
    ]
    return [
        {
            "model": model,
            "tools": tools,
            "turns": turns,
            "prefix": prefix_of(model, [Turn(role, text) for role, text in turns], tools)[0].hex(),
        }
        for model, tools, turns in rows
    ]
