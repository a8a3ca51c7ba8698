"""Who this node was linked with, kept over restarts: a file of JSON for each swarm, replaced whole."""

import json
from collections.abc import Iterable
from pathlib import Path

from node.exits import Failure
from node.store.atomic import write_atomically
from protocol.identity import node_from_text, node_text
from protocol.limits import ADDRESSES_MAX
from swarm.finding.places import fits
from swarm.values import Contact

VERSION = 1
FILE_BYTES_MAX = 1_000_000  # Sixty-four contacts take less than 100 KB.
CONTACTS_MAX = 64


def read_peers(path: Path) -> tuple[Contact, ...]:
    """What was written, or nothing: a file that is missing or makes no sense costs an address, not the start."""
    try:
        with open(path, "rb") as opened:
            data = json.loads(opened.read(FILE_BYTES_MAX))
        if data["version"] != VERSION:
            return ()
        return tuple(_contact(peer) for peer in data["peers"][:CONTACTS_MAX])
    except (OSError, ValueError, KeyError, TypeError):
        return ()


def write_peers(path: Path, contacts: Iterable[Contact]) -> str:
    """Replace the file. Returns why that did not work, or nothing."""
    peers = [
        {"node": node_text(contact.node), "addresses": list(contact.addresses)}
        for contact in contacts
        if contact.node is not None
    ]
    try:
        write_atomically(path, json.dumps({"version": VERSION, "peers": peers}, indent=1).encode() + b"\n")
    except Failure as failure:
        return failure.message
    return ""


def _contact(peer: dict[str, object]) -> Contact:
    addresses = peer["addresses"]
    if not isinstance(addresses, list):
        raise TypeError("addresses")
    texts = [text for text in addresses if isinstance(text, str) and fits(text)]
    return Contact(node_from_text(str(peer["node"])), tuple(texts[:ADDRESSES_MAX]))
