"""Where in a DHT the providers of a subject are written down, and what to make of answers that may be lies.

Node ids are free, so whoever likes can sit next to any one key and answer there whatever he likes. Each subject therefore has
keys in several regions: a provider is written down in all of them, a seeker asks all of them and takes from each in turn.
"""

from collections.abc import Iterable, Sequence
from hashlib import sha256
from itertools import zip_longest
from typing import TypeVar

from protocol import limits as lim
from protocol.identity import NodeId
from swarm.values import Contact, Subject

DOMAIN = b"starlings/1/provide\0"
REGIONS = 3  # The least with which, one being lost, two are left that bear each other out. Each costs as much as the first.
PROVIDERS_MAX = 20  # Of one answer.

_T = TypeVar("_T")


def key_of(swarm: bytes, subject: Subject, region: int) -> bytes:
    """Where the providers of a subject are written down in one region of the key space."""
    return sha256(DOMAIN + swarm + bytes((region,)) + _kind_and_name(subject)).digest()


def joined(answers: Sequence[Sequence[Contact]]) -> tuple[Contact, ...]:
    """The answers of the regions as one: from each in turn, those that several name before those that only one does.

    However many names one region has to give, it fills no more than its share. Bounded by PROVIDERS_MAX.
    """
    named: dict[NodeId, list[Contact]] = {}
    for answer in answers:
        for node, contact in {contact.node: contact for contact in reversed(answer)}.items():
            if node is not None:
                named.setdefault(node, []).append(contact)
    common = [contacts[0] for contacts in named.values() if len(contacts) > 1]
    taken = dict.fromkeys(contact.node for contact in alternately([common, *answers]) if contact.node is not None)
    return tuple(Contact(node, _addresses(named[node])) for node in list(taken)[:PROVIDERS_MAX])


def alternately(lists: Iterable[Sequence[_T]]) -> Iterable[_T]:
    """The first of each, then the second of each, and so on."""
    return (each for row in zip_longest(*lists) for each in row if each is not None)


def _addresses(contacts: list[Contact]) -> tuple[str, ...]:
    """Likewise: one answer's false addresses do not shut out the true ones of another."""
    told = alternately(contact.addresses for contact in contacts)
    return tuple(dict.fromkeys(told))[: lim.ADDRESSES_MAX]


def _kind_and_name(subject: Subject) -> bytes:
    if subject.skill:
        return b"\1" + subject.skill.encode()
    if subject.model:
        return b"\2" + subject.model.encode()
    return b"\3" + subject.digest if subject.digest else b"\0"
