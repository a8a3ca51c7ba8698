"""A second reader of the wire, written from SPEC.md alone: imports nothing of `protocol/` and reads SPEC.md's tables.

It exists to find what the document leaves open. Where the two readers differ, one of them or the document is wrong.
"""

import math
import re
import struct
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from tests.independent_signatures import holds

Fields = dict[str, Any]


class Refused(Exception):
    """Bytes were refused; `kind` is one of section 16."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


# --- The document's tables --------------------------------------------------------------------------------------------

_TEXT = (Path(__file__).parent.parent / "SPEC.md").read_text(encoding="utf-8")


def _rows(section: str) -> list[list[str]]:
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines[2:]]


def _generated(name: str) -> str:
    return _TEXT.split(f"<!-- generated: {name} -->")[1].split("<!-- end -->")[0]


LIMITS = {row[0]: float(row[1]) if "." in row[1] else int(row[1]) for row in _rows(_generated("limits"))}
EXCHANGE = {(row[0], row[1], row[2]): row[3] for row in _rows(_generated("exchange"))}
LAYOUTS: dict[str, list[list[str]]] = {}
KINDS: dict[int, tuple[str, bool]] = {}
for _section in _generated("messages").split("#### ")[1:]:
    _heading = _section.splitlines()[0].split()
    if _heading[0].isdigit():
        KINDS[int(_heading[0])] = (_heading[1], _heading[2] == "(sealed)")
    LAYOUTS[_heading[-2] if _heading[0].isdigit() else _heading[0]] = _rows(_section)


# --- Section 3: identity ----------------------------------------------------------------------------------------------

_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_PREFIX = bytes.fromhex("002408011220")


def peer_id(node: bytes) -> str:
    """The text of a node id."""
    number, text = int.from_bytes(_PREFIX + node, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = _ALPHABET[digit] + text
    return "1" + text  # One leading zero byte.


def node_of(text: str) -> bytes | None:
    """The node id of a text, or None."""
    if not text.startswith("1") or len(text) > 60 or any(letter not in _ALPHABET for letter in text):
        return None
    number = 0
    for letter in text:
        number = number * 58 + _ALPHABET.index(letter)
    node = (number % 2**256).to_bytes(32, "big")
    return node if peer_id(node) == text else None


# --- Sections 4 and 14: names that are hashed -------------------------------------------------------------------------


def swarm_of(name: str) -> bytes:
    """SWM-1."""
    return sha256(b"starlings/1/genesis\0" + name.encode()).digest()


def provider_key(swarm: bytes, skill: str, model: str, digest: bytes, region: int) -> bytes:
    """DHT-1."""
    kinds = [(1, skill.encode()), (2, model.encode()), (3, digest)]
    kind, name = next((pair for pair in kinds if pair[1]), (0, b""))
    return sha256(b"starlings/1/provide\0" + swarm + bytes([region, kind]) + name).digest()


def prefix(model: str, tools: str, turns: list[tuple[str, str]]) -> bytes:
    """ADV-11."""
    texts = [tools.encode()]
    for role, text in turns:
        if role != "system":
            break
        texts.append(text.encode())
    if len(b"".join(texts)) < LIMITS["PREFIX_TEXT_BYTES_MIN"]:
        return b""
    whole = b"".join(len(text).to_bytes(8, "big") + text for text in (model.encode(), *texts))
    return sha256(b"starlings/1/prefix\0" + whole).digest()[: LIMITS["PREFIX_BYTES"]]


# --- Section 6: frames ------------------------------------------------------------------------------------------------


def frames(stream: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """The whole frames of a stream, and what is left."""
    found = []
    while len(stream) >= 5:
        size, form = int.from_bytes(stream[:4], "big"), stream[4]
        if size > LIMITS["FRAME_BYTES_MAX"]:
            raise Refused("oversized")
        if form not in (1, 2):
            raise Refused("garbage")
        if len(stream) < 5 + size:
            break
        found.append((form, stream[5 : 5 + size]))
        stream = stream[5 + size :]
    return found, stream


# --- Section 7: bodies ------------------------------------------------------------------------------------------------

_DEPTH_MAX = 6  # Deeper than any field.


def unpack(data: bytes) -> Any:
    """One value in its shortest encoding, and nothing after it."""
    value, at = _value(data, 0, 0)
    if at != len(data):
        raise Refused("garbage")
    return value


def _value(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    if at >= len(data) or depth > _DEPTH_MAX:
        raise Refused("garbage")
    head, at = data[at], at + 1
    if head < 0x80:
        return head, at
    if head == 0xC0:
        return None, at
    if head in (0xC2, 0xC3):
        return head == 0xC3, at
    if 0xCC <= head <= 0xCF:
        number, at = _number(data, at, 1 << head - 0xCC)
        if number < (128, 2**8, 2**16, 2**32)[head - 0xCC]:
            raise Refused("garbage")
        return number, at
    if head == 0xCB:
        raw, at = _bytes(data, at, 8)
        real = struct.unpack(">d", raw)[0]
        if not math.isfinite(real) or (real == 0 and raw != bytes(8)):
            raise Refused("garbage")
        return real, at
    if 0xA0 <= head <= 0xBF or 0xD9 <= head <= 0xDB:
        size, at = (head - 0xA0, at) if head <= 0xBF else _size(data, at, head - 0xD9, (32, 2**8, 2**16))
        raw, at = _bytes(data, at, size)
        try:
            return raw.decode("utf-8", "strict"), at
        except UnicodeDecodeError:
            raise Refused("garbage") from None
    if 0xC4 <= head <= 0xC6:
        size, at = _size(data, at, head - 0xC4, (0, 2**8, 2**16))
        return _bytes(data, at, size)
    if 0x90 <= head <= 0x9F or head == 0xDC:
        size, at = (head - 0x90, at) if head <= 0x9F else _size(data, at, 1, (0, 16))
        items = []
        for _ in range(size):
            item, at = _value(data, at, depth + 1)
            items.append(item)
        return items, at
    raise Refused("garbage")


def _bytes(data: bytes, at: int, size: int) -> tuple[bytes, int]:
    if at + size > len(data):
        raise Refused("garbage")
    return data[at : at + size], at + size


def _number(data: bytes, at: int, width: int) -> tuple[int, int]:
    raw, at = _bytes(data, at, width)
    return int.from_bytes(raw, "big"), at


def _size(data: bytes, at: int, step: int, least: tuple[int, ...]) -> tuple[int, int]:
    size, at = _number(data, at, 1 << step)
    if size < least[step]:
        raise Refused("garbage")
    return size, at


def decode(body: bytes, only: str = "") -> tuple[str, Fields]:
    """The name and the fields of a message."""
    if len(body) > LIMITS["BODY_BYTES_MAX"]:
        raise Refused("oversized")
    parts = unpack(body)
    if not isinstance(parts, list) or not parts or type(parts[0]) is not int or parts[0] not in KINDS:
        raise Refused("garbage")
    name, _ = KINDS[parts[0]]
    if only not in ("", name):
        raise Refused("garbage")
    return name, _fields(name, parts[1:])


def _fields(name: str, parts: Any) -> Fields:
    layout = LAYOUTS[name]
    if not isinstance(parts, list) or len(parts) != len(layout):
        raise Refused("garbage")
    return {row[0]: _typed(row[1], part) for row, part in zip(layout, parts, strict=True)}


def _typed(rule: str, value: Any) -> Any:
    numbers = [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", rule.split(" of ")[0])]
    fits = False
    if rule == "boolean":
        fits = type(value) is bool
    elif rule.startswith("list up to"):
        if not isinstance(value, list) or len(value) > numbers[0]:
            raise Refused("garbage")
        return [_typed(rule.split(" of ", 1)[1], item) for item in value]
    elif rule.startswith("text up to"):
        fits = type(value) is str and len(value.encode()) <= numbers[0]
    elif rule.startswith("bytes"):
        fits = type(value) is bytes and numbers[0] <= len(value) <= numbers[-1]
    elif rule.startswith("whole number up to"):
        fits = type(value) is int and value <= numbers[0]
    elif rule.startswith("real number"):
        fits = type(value) is float and numbers[0] <= value <= numbers[1]
    elif rule.startswith("sealed "):
        fits = type(value) is bytes and len(value) <= numbers[0]
        if fits:
            read_sealed(value, rule.split()[1])
    elif rule in LAYOUTS:
        return _fields(rule, value)
    if not fits:
        raise Refused("garbage")
    return value


# --- Section 8: envelopes ---------------------------------------------------------------------------------------------

_HEADER = ("version", "swarm", "issuer", "audience", "nonce", "sent_at_ms", "lifetime_ms")


def split(sealed: bytes) -> tuple[Fields, bytes]:
    """Header and body of an envelope: ENV-1 to ENV-5."""
    if len(sealed) > LIMITS["FRAME_BYTES_MAX"]:
        raise Refused("oversized")
    parts = unpack(sealed)
    if not isinstance(parts, list) or [type(part) for part in parts] != [bytes] * 3 or len(parts[2]) != 64:
        raise Refused("garbage")
    if len(parts[0]) > LIMITS["HEADER_BYTES_MAX"]:
        raise Refused("garbage")
    first, version = (parts[0] + bytes(2))[:2]
    if len(parts[0]) >= 2 and first in range(0x91, 0xA0) and version <= 0x7F and version != 1:
        raise Refused("foreign")
    values = unpack(parts[0])
    if not isinstance(values, list) or len(values) != len(_HEADER) or type(values[0]) is not int or values[0] != 1:
        raise Refused("garbage")
    header: Fields = dict(zip(_HEADER, values, strict=True))
    if not (
        _is_bytes(header["swarm"], 32)
        and _is_bytes(header["issuer"], 32)
        and (header["audience"] is None or _is_bytes(header["audience"], 32))
        and _is_bytes(header["nonce"], 16)
        and type(header["sent_at_ms"]) is int
        and header["sent_at_ms"] < 2**53
        and type(header["lifetime_ms"]) is int
        and 1 <= header["lifetime_ms"] <= LIMITS["LIFETIME_MS_MAX"]
    ):
        raise Refused("garbage")
    return header, parts[1]


def _is_bytes(value: Any, size: int) -> bool:
    return type(value) is bytes and len(value) == size


def judge(header: Fields, swarm: bytes, audience: bytes | None, now_ms: int) -> None:
    """ENV-6 to ENV-8."""
    if header["swarm"] != swarm:
        raise Refused("foreign")
    if header["audience"] != audience:
        raise Refused("forged")
    skew = LIMITS["CLOCK_SKEW_MS_MAX"]
    if not header["sent_at_ms"] - skew <= now_ms <= header["sent_at_ms"] + header["lifetime_ms"] + skew:
        raise Refused("stale")


def prove(sealed: bytes) -> None:
    """ENV-3 and ENV-9."""
    header, body, signature = unpack(sealed)
    issuer = unpack(header)[2]
    if not holds(issuer, b"starlings/1/envelope\0" + len(header).to_bytes(4, "big") + header + body, signature):
        raise Refused("forged")


PASSED_ON = {"Advert": "ADVERT_BYTES_MAX", "Pulse": "RUMOUR_BYTES_MAX", "Suspicion": "RUMOUR_BYTES_MAX"}


def read_sealed(sealed: bytes, name: str) -> tuple[Fields, Fields]:
    """Header and fields of a sealed message of one kind, unproven: ADV-1 and ADV-2."""
    if len(sealed) > LIMITS[PASSED_ON[name]]:
        raise Refused("oversized")
    header, body = split(sealed)
    return header, decode(body, only=name)[1]


def advert_holds(sealed: bytes, swarm: bytes, now_ms: int, name: str = "Advert") -> bool:
    """ADV-3."""
    try:
        header, _ = read_sealed(sealed, name)
        judge(header, swarm, None, now_ms)
        prove(sealed)
    except Refused:
        return False
    return True


# --- Sections 9, 10 and 12: a link as one end hears it ----------------------------------------------------------------


@dataclass
class Attempts:
    """Section 12, for one end of a link."""

    stages: dict[bytes, tuple[str, str]] = field(default_factory=dict)  # Attempt to our side and the stage.

    def note(self, name: str, attempt: bytes, ours: str, sender: str) -> bool:
        """Whether the message counts; False: it is late."""
        if sender != ("requester" if name in ("TaskRequest", "TaskCancelled") else "worker"):
            raise Refused("disorder")
        side, stage = self.stages.get(attempt, (ours, "idle"))
        if stage == "idle" and name == "TaskCancelled":
            return False
        same = [known for known, _ in self.stages.values() if known == ours]
        if stage == "idle" and name == "TaskRequest" and len(same) >= LIMITS["EXCHANGES_PER_LINK_MAX"]:
            raise Refused("crowded")
        after = EXCHANGE.get((stage, sender, name)) if side == ours else None
        if after is None:
            raise Refused("disorder")
        self.stages.pop(attempt, None)
        if after != "closed":
            self.stages[attempt] = (ours, after)
        return True


@dataclass
class Listener:
    """One end of a link, hearing."""

    swarm: bytes
    own: bytes
    peer: bytes
    token: bytes
    greeted: bool = False
    counter: int = 0
    attempts: Attempts = field(default_factory=Attempts)
    rest: bytes = b""

    def say(self, name: str, attempt: bytes) -> None:
        """Our own message of an attempt is on its way."""
        side = "requester" if name in ("TaskRequest", "TaskCancelled") else "worker"
        self.attempts.note(name, attempt, side, side)

    def hear(self, chunk: bytes, now_ms: int) -> list[tuple[str, Fields]]:
        """The messages that a chunk completes."""
        whole, self.rest = frames(self.rest + chunk)
        heard = []
        for form, payload in whole:
            name, fields = self._sealed(payload, now_ms) if form == 1 else self._bare(payload)
            if name.startswith("Task"):
                theirs = "requester" if name in ("TaskRequest", "TaskCancelled") else "worker"
                ours = "worker" if theirs == "requester" else "requester"
                if not self.attempts.note(name, fields["attempt"], ours, theirs):
                    continue
            heard.append((name, fields))
        return heard

    def _bare(self, body: bytes) -> tuple[str, Fields]:
        if not self.greeted:
            raise Refused("disorder")
        name, fields = decode(body)
        if (name, True) in KINDS.values():
            raise Refused("forged")
        return name, fields

    def _sealed(self, payload: bytes, now_ms: int) -> tuple[str, Fields]:
        header, body = split(payload)
        judge(header, self.swarm, self.own, now_ms)
        if header["issuer"] != self.peer:
            raise Refused("forged")
        counter = int.from_bytes(header["nonce"][8:], "big")
        if self.greeted and (header["nonce"][:8] != self.token or counter <= self.counter):
            raise Refused("replayed")
        name, fields = decode(body)
        if (name == "Hello") is self.greeted:
            raise Refused("disorder")
        if (name, True) not in KINDS.values() or name in PASSED_ON:
            raise Refused("garbage")
        prove(payload)
        if name == "Hello":
            self.greeted = True
        else:
            self.counter = counter
        return name, fields
