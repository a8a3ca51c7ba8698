"""What a node has still to tell: which word goes first, to how many neighbours, and how much may be told in a second.

Rumour mongering with a counter (Demers et al., 1987): each version is passed on to `gossip_copies` neighbours by everybody who
hears it. What may be told in a second is bounded: the cost per node does not grow with the swarm. In calm times the bound is far
away, and news is told to all neighbours instead: a rumour with a counter always misses somebody, most often those with few links.

Names cost nothing, so anybody can tell of a thousand new nodes in a second, or have a hundred of them come, change and go. So when
not all can be told, every kind of word has a share of what can, and what one kind leaves goes to the others (start-time fair
queueing, Goyal et al., 1996): whoever floods one of them does not silence the rest.
"""

from collections.abc import Callable
from enum import IntEnum
from random import Random
from typing import NamedTuple

from protocol.identity import NodeId
from protocol.messages import Advert, Message, Signed
from swarm.settings import Settings

BURST_S = 60.0  # What was not told in a calm time may be told at once, this many seconds of it: a swarm that begins.
GENEROUS = 0.5  # Share of that burst that must be left for news to be told to all neighbours.
GONE_COPIES = 6  # Of what makes others forget a node: one in 400 misses it, of other news one in 50.
ADVERT_WEIGHT = 4  # An advert is about that many times as long as a pulse.


class Key(NamedTuple):
    """What a version replaces: the same kind of word about the same node, by the same accuser."""

    subject: NodeId
    accuser: NodeId | None
    kind: type[Message]


class Worth(IntEnum):
    """The kinds of words: among kinds that have had as much of their shares, the first is told first."""

    GONE = 0  # It makes others forget a node.
    CHANGE = 1  # It changes what a node can do, or where it is.
    LOAD = 2  # It says how busy a node is.
    STRANGER = 3  # A node never heard of before, or one that changes again and again.
    RENEWAL = 4  # It says nothing new.


# While there is more of every kind than may be told. With fewer for changes gossip.toml tells them in 1.8 s instead of 0.9 (p95).
SHARES = {Worth.GONE: 16.0, Worth.CHANGE: 16.0, Worth.LOAD: 4.0, Worth.STRANGER: 12.0, Worth.RENEWAL: 0.5}
NEWEST_FIRST = (Worth.GONE, Worth.CHANGE, Worth.STRANGER)  # Of the others the oldest, because no later word may come.


class Backlog:
    """The words that wait to be passed on."""

    def __init__(self, settings: Settings, dice: Random) -> None:
        self._settings, self._dice = settings, dice
        # By worth, the oldest first: the word and who has told it here.
        self._waiting: dict[Worth, dict[Key, tuple[Signed[Message], list[NodeId]]]] = {worth: {} for worth in Worth}
        self._told_at = float("-inf")
        self._allowance = 0.0
        self._had = dict.fromkeys(Worth, 0.0)  # What was told of each kind, by its share,
        self._served = 0.0  # and how much that was of the kind that was told last.

    def __bool__(self) -> bool:
        return any(self._waiting.values())

    @property
    def is_urgent(self) -> bool:
        """Whether there is more than renewals."""
        return any(waiting for worth, waiting in self._waiting.items() if worth is not Worth.RENEWAL)

    def add(self, key: Key, signed: Signed[Message], sender: NodeId, worth: Worth) -> None:
        """A version that replaces those before it. A renewal of what was not told yet is as much news as that."""
        before = [each for each, waiting in self._waiting.items() if waiting.pop(key, None) is not None]
        if before and worth is Worth.RENEWAL:
            worth = before[0]
        waiting = self._waiting[worth]
        if not waiting:
            self._had[worth] = max(self._had[worth], self._served)  # Having had nothing to tell saves nothing.
        waiting[key] = (signed, [sender])
        if len(waiting) > self._settings.adverts_max:
            del waiting[next(iter(waiting))]

    def knows(self, sender: NodeId, key: Key, signed: Signed[Message]) -> None:
        """A neighbour has told what was known here already; it need not be told in turn."""
        for waiting in self._waiting.values():
            found = waiting.get(key)
            if found is not None and found[0].issued_at_ms == signed.issued_at_ms and sender not in found[1]:
                found[1].append(sender)

    def take(
        self, neighbours: list[NodeId], now: float, is_known: Callable[[NodeId], bool]
    ) -> dict[NodeId, list[Signed[Message]]]:
        """What to tell now, and to whom, within what may be told. Adverts of nodes that are not known any more are dropped."""
        settings = self._settings
        burst = BURST_S * settings.gossip_budget
        self._allowance = min(burst, self._allowance + max(0.0, (now - self._told_at) * settings.gossip_budget))
        self._told_at = now
        # Drawn once for all that is told now, so that it travels in few messages; the next round draws others.
        listeners = self._dice.sample(neighbours, len(neighbours))
        told: dict[NodeId, list[Signed[Message]]] = {}
        while self._allowance >= 1 and (worth := self._next()) is not None:
            key, signed, tellers = self._pop(worth)
            if key.kind is Advert and not is_known(key.subject):
                continue
            is_for_all = worth is not Worth.RENEWAL and self._allowance >= GENEROUS * burst
            asked = listeners if is_for_all else listeners[: GONE_COPIES + 1]
            others = [node for node in asked if node not in key and node not in tellers]
            copies = settings.gossip_renewals if worth is Worth.RENEWAL else settings.gossip_copies
            listening = others if is_for_all else others[: GONE_COPIES if worth is Worth.GONE else copies]
            for node in listening:
                told.setdefault(node, []).append(signed)
            cost = len(listening) * (ADVERT_WEIGHT if key.kind is Advert else 1)
            self._allowance -= cost
            self._served = self._had[worth]
            self._had[worth] += cost / SHARES[worth]
        return told

    def _next(self) -> Worth | None:
        """The kind whose turn it is."""
        waiting = [worth for worth in Worth if self._waiting[worth]]
        return min(waiting, key=lambda worth: (self._had[worth], worth)) if waiting else None

    def _pop(self, worth: Worth) -> tuple[Key, Signed[Message], list[NodeId]]:
        waiting = self._waiting[worth]
        key = next(reversed(waiting)) if worth in NEWEST_FIRST else next(iter(waiting))
        signed, tellers = waiting.pop(key)
        return key, signed, tellers
