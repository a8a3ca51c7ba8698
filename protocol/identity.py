"""Who somebody is: a node id is an Ed25519 public key, written as a libp2p peer id; what it signs, PyNaCl verifies."""

from typing import NewType

from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

NodeId = NewType("NodeId", bytes)
"""An Ed25519 public key, 32 bytes."""

NODE_ID_BYTES = 32
SIGNATURE_BYTES = 64

# A libp2p peer id of an Ed25519 key is the identity multihash (0x00, length 0x24) of its protobuf (type 1, 32 bytes of key).
# https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md
_PEER_ID_PREFIX = bytes.fromhex("002408011220")
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_PEER_ID_CHARS_MAX = 64


class Identity:
    """A node's key pair. The seed never leaves this object."""

    def __init__(self, seed: bytes) -> None:
        self._key = SigningKey(seed)
        self.node = NodeId(bytes(self._key.verify_key))

    def sign(self, data: bytes) -> bytes:
        """The 64-byte signature of `data`. Callers put the domain in front; see `envelope`."""
        return self._key.sign(data).signature


def verify(node: NodeId, data: bytes, signature: bytes) -> bool:
    """Whether `node` signed `data`.

    PyNaCl alone decides: OpenSSL accepts forgeries under small-order keys that libsodium refuses, and two verifiers that
    differ split a swarm.
    """
    try:
        VerifyKey(bytes(node)).verify(data, signature)
    except (BadSignatureError, ValueError, TypeError):
        return False
    return True


def node_text(node: NodeId) -> str:
    """The libp2p peer id of a node in base58, as people see it: `12D3KooW…`."""
    raw = _PEER_ID_PREFIX + node
    number = int.from_bytes(raw, "big")
    digits = []
    while number:
        number, digit = divmod(number, 58)
        digits.append(_BASE58[digit])
    zeros = len(raw) - len(raw.lstrip(b"\0"))
    return "1" * zeros + "".join(reversed(digits))


def node_from_text(text: str) -> NodeId:
    """The node behind a peer id in base58. Raises ValueError for anything but an Ed25519 peer id."""
    if len(text) > _PEER_ID_CHARS_MAX:
        raise ValueError("not a peer id: too long")
    number = 0
    for character in text:
        digit = _BASE58.find(character)
        if digit < 0:
            raise ValueError(f"not a peer id: {character!r} is not a base58 character")
        number = number * 58 + digit
    zeros = len(text) - len(text.lstrip("1"))
    raw = b"\0" * zeros + number.to_bytes((number.bit_length() + 7) // 8, "big")
    if not raw.startswith(_PEER_ID_PREFIX) or len(raw) != len(_PEER_ID_PREFIX) + NODE_ID_BYTES:
        raise ValueError("not the peer id of an Ed25519 key")
    return NodeId(raw[len(_PEER_ID_PREFIX) :])


def short_text(node: NodeId) -> str:
    """A peer id for narrow columns: `12D3…f9Qc`. Not unique; never parsed."""
    text = node_text(node)
    return f"{text[:4]}…{text[-4:]}"
