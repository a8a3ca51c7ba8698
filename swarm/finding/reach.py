"""Whether others can dial this node, where they see it, and which neighbours carry its links if they cannot.

Nobody can tell by itself, so a few neighbours are asked to dial this node at the place where they see it (libp2p's AutoNAT does the
same). One neighbour may lie or see badly, so two must agree where there are more. Who cannot be dialled at one of these places
asks neighbours that relay to carry links to it; a link that is carried is replaced by a direct one as soon as there is a way.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from random import Random
from typing import Literal

from protocol import limits as lim
from protocol.identity import NodeId
from protocol.messages import ReachAnswer, ReachAsk
from swarm.effects import Dial, DialBack, Effect, Send, UseRelays
from swarm.finding.capabilities import CapabilityIndex
from swarm.finding.places import dialable, fits, is_host, is_relayed, moved, place_of
from swarm.finding.roster import Neighbour, Roster
from swarm.settings import Settings
from swarm.values import Contact

SETTLE_S = 1.0  # A link this young may be replaced by another in a moment.
ANSWER_LIMIT_S = 15.0  # Two dials of five seconds, and the way there and back.
ASK_GAP_S = 20.0  # Between two dials for one neighbour: it may ask as often as it likes, not make us dial.
DIAL_BACKS_MAX = 4  # Under way at once.
DIALLED_MAX = 2  # Addresses of one neighbour.
WITNESSES = 2  # Who must agree, where more than so many have answered.
RELAY_WAIT_S = 60.0  # Until a relay that had no room, or was lost, is asked again.
UPGRADE_WAITS_S = (1.0, 15.0, 60.0, 300.0)  # Before each try of a direct way; the last one repeats.

Verdict = Literal["unknown", "open", "closed"]


@dataclass(frozen=True, slots=True)
class Sighting:
    """What one neighbour has said: where it sees this node, and what it could dial there."""

    seen: str
    reached: tuple[str, ...]
    at: float


class Reach:
    """What is known of this node's own reachability, and what it does for that of others."""

    def __init__(self, settings: Settings, dice: Random, roster: Roster, index: CapabilityIndex) -> None:
        self._settings, self._dice, self._roster, self._index = settings, dice, roster, index
        self._own: tuple[str, ...] = ()
        self._suffix = ""  # `/p2p/…` of this node's own addresses.
        self._asked: dict[NodeId, float] = {}
        self._declined_at: dict[NodeId, float] = {}
        self._sightings: dict[NodeId, Sighting] = {}
        self._dialling_back: dict[NodeId, None] = {}
        self._dialled_back_at: dict[NodeId, float] = {}
        self._relays: dict[NodeId, tuple[str, ...]] = {}  # Those asked to carry for us, and the addresses that they gave.
        self._relay_failed_at: dict[NodeId, float] = {}
        self._relay_dialled_at: dict[NodeId, float] = {}
        self.carried: tuple[NodeId, ...] = ()
        """The neighbours that this node carries links for."""

    # --- What is known ------------------------------------------------------------------------------------------------

    @property
    def verdict(self) -> Verdict:
        """`closed` if nobody can dial it at one of the places where it is seen: its home may see it, and the world not."""
        places = self._places()
        if any(failed > reached and self._is_witnessed(failed) for reached, failed in places.values()):
            return "closed"
        return "open" if any(reached for reached, _ in places.values()) else "unknown"

    @property
    def sightings(self) -> dict[NodeId, Sighting]:
        """The latest of each neighbour that was asked."""
        return dict(self._sightings)

    @property
    def relays(self) -> dict[NodeId, tuple[str, ...]]:
        """The neighbours that carry for this node, or were asked to and have not answered yet (without addresses)."""
        return dict(self._relays)

    @property
    def relaying(self) -> bool:
        """Whether this node offers to carry for others: nobody gets to a relay that cannot be dialled itself."""
        return self._settings.carried_max > 0 and self.verdict != "closed"

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where others may dial: what this machine says, what neighbours have proved, and the relays.

        Never a private network that only neighbours say it is in: others would be sent there, and it would let them send it.
        """
        proved: dict[str, int] = {}
        for sighting in self._sightings.values():
            for address in dialable(sighting.reached, self._own):
                proved[address] = proved.get(address, 0) + 1
        found = [*self._own, *(address + self._suffix for address, count in proved.items() if self._is_witnessed(count))]
        told = [address for addresses in self._relays.values() for address in addresses]
        found, circuits = list(filter(fits, dict.fromkeys(found))), list(filter(fits, told))[: lim.ADDRESSES_MAX]
        return (*found[: lim.ADDRESSES_MAX - len(circuits)], *circuits)

    def _places(self) -> dict[str, tuple[int, int]]:
        """Where this node is seen, by how many who could dial it there and how many who could not."""
        places: dict[str, tuple[int, int]] = {}
        for sighting in self._sightings.values():
            reached, failed = places.get(sighting.seen, (0, 0))
            places[sighting.seen] = (reached + bool(sighting.reached), failed + (not sighting.reached))
        return places

    def _is_witnessed(self, count: int) -> bool:
        return count >= WITNESSES or 0 < len(self._sightings) <= WITNESSES

    # --- Asking -------------------------------------------------------------------------------------------------------

    def settle(self, addresses: tuple[str, ...]) -> None:
        """Where this machine says that it can be dialled; what others saw before does not hold any more."""
        self._own = addresses
        self._suffix = f"/p2p/{addresses[0].rpartition('/p2p/')[2]}" if addresses and "/p2p/" in addresses[0] else ""
        self._asked.clear()
        self._sightings.clear()

    def due(self, working: Collection[NodeId], now: float) -> list[Effect]:
        """What a sweep finds to do: neighbours to ask, relays to use, direct ways to try."""
        return [*self._ask(now), *self._choose_relays(now), *self._upgrades(working, now)]

    def _ask(self, now: float) -> list[Effect]:
        period_s = self._settings.reach_period_s
        for node in [node for node, at in self._asked.items() if now - at >= period_s]:
            del self._asked[node]
        for node in [node for node, found in self._sightings.items() if now - found.at >= 2 * period_s]:
            del self._sightings[node]
        for node in [node for node, at in self._declined_at.items() if now - at >= ASK_GAP_S]:
            del self._declined_at[node]
        waiting = sum(node not in self._sightings and now - at < ANSWER_LIMIT_S for node, at in self._asked.items())
        fresh = sum(node in self._asked for node in self._sightings)
        missing = self._settings.reach_asks - fresh - waiting
        if missing <= 0 or not self._own:
            return []
        places = [place_of(known.addresses) for node in self._asked if (known := self._roster.get(node)) is not None]
        able = [
            known
            for known in self._roster
            if known.relay is None and now - known.linked_at >= SETTLE_S
            if known.node not in self._asked and known.node not in self._declined_at
        ]
        able.sort(key=lambda known: places.count(place_of(known.addresses)))
        for known in able[:missing]:
            self._asked[known.node] = now
        direct = tuple(address for address in self._own if not is_relayed(address))
        return [Send(known.node, ReachAsk(direct)) for known in able[:missing]]

    def answered(self, sender: NodeId, answer: ReachAnswer, now: float) -> None:
        if sender not in self._asked:
            return
        if not answer.seen:
            # What is still to come from it answers an earlier question: about an address that this node may have left.
            del self._asked[sender]
            self._declined_at[sender] = now
            return
        # Whatever it says, it was asked for these only.
        offered = _at(answer.seen, self._own)
        if not offered and not is_host(answer.seen):
            return  # No place at all; it is not asked again soon.
        reached = tuple(address for address in answer.reached if address in offered)
        self._sightings.pop(sender, None)
        self._sightings[sender] = Sighting(answer.seen, reached, now)

    # --- For others ---------------------------------------------------------------------------------------------------

    def asked(self, sender: NodeId, ask: ReachAsk, now: float) -> list[Effect]:
        """A neighbour wants to be dialled: only where its link comes from, so that nobody can aim this node at others."""
        neighbour = self._roster.get(sender)
        seen = neighbour.seen if neighbour is not None and neighbour.relay is None else ""
        addresses = tuple(_at(seen, ask.addresses))[:DIALLED_MAX]
        for node in [node for node, at in self._dialled_back_at.items() if now - at >= ASK_GAP_S]:
            del self._dialled_back_at[node]
        crowded = len(self._dialling_back) >= DIAL_BACKS_MAX or sender in self._dialled_back_at
        if not addresses or crowded:
            return [Send(sender, ReachAnswer("", ()))]
        self._dialling_back[sender] = None
        self._dialled_back_at[sender] = now
        return [DialBack(sender, addresses)]

    def dialled_back(self, node: NodeId, reached: tuple[str, ...]) -> list[Effect]:
        """The dial that a neighbour asked for has ended."""
        self._dialling_back.pop(node, None)
        neighbour = self._roster.get(node)
        return [] if neighbour is None else [Send(node, ReachAnswer(neighbour.seen, reached))]

    # --- Relays -------------------------------------------------------------------------------------------------------

    def relay_changed(self, node: NodeId, addresses: tuple[str, ...], now: float) -> list[Effect]:
        """A relay carries for this node at these addresses; none: it does not, or not any more."""
        if node not in self._relays:
            return []
        if addresses:
            self._relays[node] = addresses
            return []
        return self._without(node, now)

    def unlinked(self, node: NodeId, now: float) -> list[Effect]:
        self._asked.pop(node, None)
        self._dialling_back.pop(node, None)
        return self._without(node, now) if node in self._relays else []

    def _without(self, node: NodeId, now: float) -> list[Effect]:
        del self._relays[node]
        self._relay_failed_at[node] = now
        return [UseRelays(tuple(self._relays))]

    def _choose_relays(self, now: float) -> list[Effect]:
        wanted = self._settings.relays_used if self.verdict == "closed" else 0
        if self.verdict == "open" and self._relays:
            self._relays.clear()
            return [UseRelays(())]
        if len(self._relays) >= wanted:
            return []
        for tried in (self._relay_failed_at, self._relay_dialled_at):
            for node in [node for node, at in tried.items() if now - at >= RELAY_WAIT_S]:
                del tried[node]
        able = [known for known in self._roster if self._can_carry(known)]
        able.sort(key=lambda known: (known.rtt_s is None, known.rtt_s))
        chosen = [known.node for known in able[: wanted - len(self._relays)]]
        self._relays.update((node, ()) for node in chosen)
        effects: list[Effect] = [UseRelays(tuple(self._relays))] if chosen else []
        return [*effects, *self._meet_relays(wanted - len(self._relays), now)]

    def _meet_relays(self, missing: int, now: float) -> list[Effect]:
        """Dials to relays that this node has only heard of."""
        missing -= sum(now - at < ANSWER_LIMIT_S for at in self._relay_dialled_at.values())
        if missing <= 0:
            return []
        heard = [
            known
            for known in self._index
            if known.advert.relays
            and known.node not in self._roster
            and known.node not in self._relay_failed_at
            and known.node not in self._relay_dialled_at
        ]
        effects: list[Effect] = []
        for known in self._dice.sample(heard, min(missing, len(heard))):
            self._relay_dialled_at[known.node] = now
            if addresses := dialable(known.advert.addresses, self._own):
                effects.append(Dial(Contact(known.node, addresses)))
        return effects

    def _can_carry(self, known: Neighbour) -> bool:
        advert = self._index.get(known.node)
        if advert is None or not advert.advert.relays or known.relay is not None:
            return False
        return known.node not in self._relays and known.node not in self._relay_failed_at

    def _upgrades(self, working: Collection[NodeId], now: float) -> list[Effect]:
        """Dials that may replace a carried link by a direct one, where no attempt would be broken by it."""
        effects: list[Effect] = []
        for known in self._roster:
            if known.relay is None:
                continue
            wait_s = UPGRADE_WAITS_S[min(known.direct_tries, len(UPGRADE_WAITS_S) - 1)]
            if now - known.direct_tried_at < wait_s:
                continue
            direct = [address for address in self._addresses_of(known) if not is_relayed(address)]
            if known.node not in working and (addresses := dialable(direct, self._own)):
                known.direct_tries += 1
                known.direct_tried_at = now
                effects.append(Dial(Contact(known.node, addresses), upgrade=True))
        return effects

    def _addresses_of(self, known: Neighbour) -> tuple[str, ...]:
        advert = self._index.get(known.node)
        return known.addresses if advert is None else advert.advert.addresses


def _at(seen: str, addresses: Iterable[str]) -> list[str]:
    """These addresses as they would be at the place where somebody is seen."""
    there = (moved(address, seen) for address in addresses if not is_relayed(address))
    return list(dict.fromkeys(address for address in there if address))
