"""What a node has still to tell: which word goes first, to how many neighbours, and how much may be told in a second.

Rumour mongering with a counter (Demers et al., 1987): each version is passed on to `gossip_copies` neighbours by everybody who
hears it. What may be told in a second is bounded: the cost per node does not grow with the swarm. In calm times the bound is far
away, and news is told to all neighbours instead: a rumour with a counter always misses somebody, most often those with few links.

Names cost nothing, so anybody can tell of a thousand new nodes in a second. Words that are as cheap as that share what may be told
with all others half and half, so that they do not silence these.
"""

from collections.abc import Callable
from enum import IntEnum
from random import Random
from typing import NamedTuple

from protocol.identity import NodeId
from protocol.messages import Advert, Message, Pulse, Signed, Suspicion
from swarm.settings import Settings

BURST_S = 60.0  # What was not told in a calm time may be told at once, this many seconds of it: a swarm that begins.
GENEROUS = 0.5  # Share of that burst that must be left for news to be told to all neighbours.
GONE_COPIES = 6  # Of what makes others forget a node: one in 400 misses it, of other news one in 50.
ADVERT_WEIGHT = 4  # An advert is about that many times as long as a pulse.
LEAD_MAX = 64.0  # By which the cheap words and the others may be ahead of each other: a few adverts, told to a few neighbours.


class Key(NamedTuple):
    """What a version replaces: the same kind of word about the same node, by the same accuser."""

    subject: NodeId
    accuser: NodeId | None
    kind: type[Message]


class Worth(IntEnum):
    """Of a word: the lower is told first."""

    NEWS = 0  # It changes who is there and what they can do.
    LOAD = 1  # It says how busy somebody is.
    RENEWAL = 2  # It says nothing new.
    CHEAP = 3  # Anybody can make it up, as often as they like. These take turns with the others.


class Backlog:
    """The words that wait to be passed on."""

    def __init__(self, settings: Settings, dice: Random) -> None:
        self._settings, self._dice = settings, dice
        # By worth, the oldest first: the word and who has told it here.
        self._waiting: dict[Worth, dict[Key, tuple[Signed[Message], list[NodeId]]]] = {worth: {} for worth in Worth}
        self._told_at = float("-inf")
        self._allowance = 0.0
        self._lead = 0.0  # How much more of the cheap words than of the others was told.

    def __bool__(self) -> bool:
        return any(self._waiting.values())

    @property
    def is_urgent(self) -> bool:
        """Whether there is more than renewals."""
        return any(waiting for worth, waiting in self._waiting.items() if worth is not Worth.RENEWAL)

    def add(self, key: Key, signed: Signed[Message], sender: NodeId, worth: Worth) -> None:
        """A version that replaces those before it. A renewal of what was not told yet is as much news as that."""
        before = [each for each, waiting in self._waiting.items() if waiting.pop(key, None) is not None]
        waiting = self._waiting[before[0] if before and worth is Worth.RENEWAL else worth]
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
            count = len(others) if is_for_all else GONE_COPIES if is_of_the_gone(signed.body) else copies
            for node in others[:count]:
                told.setdefault(node, []).append(signed)
            cost = len(others[:count]) * (ADVERT_WEIGHT if key.kind is Advert else 1)
            self._allowance -= cost
            lead = self._lead + (cost if worth is Worth.CHEAP else -cost)
            self._lead = max(-LEAD_MAX, min(LEAD_MAX, lead))
        return told

    def _next(self) -> Worth | None:
        """What is told next: news before all, and what is cheap in turn with the rest."""
        waiting = [worth for worth in Worth if self._waiting[worth]]
        if not waiting:
            return None
        is_turn = self._lead <= 0 and waiting[0] is not Worth.NEWS
        return waiting[-1] if waiting[-1] is Worth.CHEAP and is_turn else waiting[0]

    def _pop(self, worth: Worth) -> tuple[Key, Signed[Message], list[NodeId]]:
        """The newest of what is news. Of loads the oldest, because no later word may come."""
        waiting = self._waiting[worth]
        key = next(reversed(waiting)) if worth in (Worth.NEWS, Worth.CHEAP) else next(iter(waiting))
        signed, tellers = waiting.pop(key)
        return key, signed, tellers


def is_of_the_gone(told: Message) -> bool:
    """Whether it makes others forget a node."""
    return isinstance(told, Suspicion) or (isinstance(told, Pulse) and told.leaving)
