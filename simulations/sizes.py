"""How many bytes a message takes on a link, in worlds whose messages never become bytes.

One message of each kind and size is encoded, sealed and framed as `protocol.link` does it; the others are counted by that table.
What is passed on has the length of its envelope with it (`simulations.notary`). The addresses of a world are shorter than real
ones: an advert with two addresses of libp2p is about 150 bytes longer.
"""

from protocol import codec, envelope, framing
from protocol import limits as lim
from protocol.envelope import NONCE_BYTES, Header
from protocol.framing import Form
from protocol.identity import Identity
from protocol.messages import AdvertDigest, AdvertPush, AdvertWant, Message, Rumours, TaskPiece, TaskRequest

SOMEBODY, SOMEBODY_ELSE = Identity(bytes(31) + b"1"), Identity(bytes(31) + b"2")
NOW_MS = 1_800_000_000_000
LENGTH_BYTES = 3  # What msgpack puts before an envelope: its kind and its length.


class Sizes:
    """A table of kinds and sizes, filled as they come."""

    def __init__(self, swarm: bytes) -> None:
        self._swarm = swarm
        self._known: dict[tuple[type[Message], int], int] = {}

    def of(self, message: Message) -> int:
        """Bytes of this message, or of the first of its kind whose texts and lists were as long."""
        if isinstance(message, Rumours):
            passed_on = sum([len(each.sealed) + LENGTH_BYTES for each in (*message.pulses, *message.suspicions)])
            return passed_on + self._size(Rumours((), ()), 0)
        if isinstance(message, AdvertPush):
            return sum([len(each.sealed) + LENGTH_BYTES for each in message.adverts]) + self._size(AdvertPush(()), 0)
        return self._size(message, _length(message))

    def _size(self, message: Message, length: int) -> int:
        key = message.__class__, length
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._framed(message)
        return found

    def _framed(self, message: Message) -> int:
        body = codec.encode(message)
        if not message.SEALED:
            return len(framing.frame(Form.BARE, body))
        return len(framing.frame(Form.SEALED, sealed(self._swarm, body, lim.MESSAGE_LIFETIME_MS, to_all=False)))


def sealed(swarm: bytes, body: bytes, lifetime_ms: int, to_all: bool) -> bytes:
    """An envelope as long as that of anybody."""
    audience = None if to_all else SOMEBODY_ELSE.node
    header = Header(swarm, SOMEBODY.node, audience, bytes(NONCE_BYTES), NOW_MS, lifetime_ms)
    return envelope.seal(SOMEBODY, header, body)


def _length(message: Message) -> int:
    match message:
        case TaskPiece():
            return len(message.text)
        case TaskRequest():
            return sum(len(turn.text) for turn in message.turns) + len(message.delivered) + 4 * len(message.delivered_tokens)
        case AdvertDigest():
            return len(message.known)
        case AdvertWant():
            return len(message.nodes)
    return 0
