"""Which swarm a node belongs to: 32 bytes that every envelope carries."""

from hashlib import sha256

DOMAIN = b"starlings/1/genesis\0"


def swarm_id(name: str) -> bytes:
    """The id of the open swarm of this name. Anyone who knows the name may join it."""
    return sha256(DOMAIN + name.encode()).digest()
