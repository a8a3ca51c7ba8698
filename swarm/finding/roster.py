"""Who is near: the peers with an open link, when they were last heard, and how far away they are."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from protocol.identity import NodeId
from protocol.messages import Goodbye, Ping
from swarm.effects import Disconnect, Effect, Notify, PingAnswered, PongOverdue, Send, SetTimer
from swarm.finding.places import place_of
from swarm.settings import Settings

RTT_WEIGHT = 0.25  # Of the newest sample; TCP takes 1/8 (RFC 6298), but pings are rarer than segments.
NONCE_LIMIT = 2**32


@dataclass(slots=True)
class Neighbour:
    """One open link. `rtt_s` is None until the first Pong; `used_at` is when a task last went over it."""

    node: NodeId
    name: str
    addresses: tuple[str, ...]
    dialled: str
    heard_at: float
    used_at: float
    linked_at: float
    rtt_s: float | None = None
    ping_nonce: int | None = None
    ping_sent_at: float = 0.0
    parting: bool = False  # One side only closes the link; the peer is not gone.
    seen: str = ""  # Where the link comes from, without a port.
    relay: NodeId | None = None  # Who carries the link, if it is not direct.
    direct_tries: int = 0  # Of replacing such a link by a direct one,
    direct_tried_at: float = 0.0  # and when the last was.
    asked: bool = False  # A user waits for the next Pong.


class Roster:
    """The open links, in the order of their arrival, so that every walk over them is the same in every run."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._neighbours: dict[NodeId, Neighbour] = {}
        self._nonce = 0
        self._excused_until = float("-inf")

    def __len__(self) -> int:
        return len(self._neighbours)

    def __contains__(self, node: NodeId) -> bool:
        return node in self._neighbours

    def __iter__(self) -> Iterator[Neighbour]:
        return iter(self._neighbours.values())

    def get(self, node: NodeId) -> Neighbour | None:
        return self._neighbours.get(node)

    def nodes(self) -> list[NodeId]:
        return list(self._neighbours)

    def add(
        self, node: NodeId, name: str, addresses: tuple[str, ...], dialled: str, now: float, *, seen: str = "",
        relay: NodeId | None = None,
    ) -> list[Effect]:  # fmt: skip
        """A link has opened. Its first ping measures the distance."""
        neighbour = Neighbour(
            node, name, addresses, dialled, now, now, now, seen=seen, relay=relay, direct_tried_at=now
        )
        self._neighbours[node] = neighbour
        return self._ping(neighbour, now)

    def remove(self, node: NodeId) -> Neighbour | None:
        return self._neighbours.pop(node, None)

    def heard(self, node: NodeId, now: float) -> None:
        """Any message is a sign of life."""
        neighbour = self._neighbours.get(node)
        if neighbour is not None:
            neighbour.heard_at = now

    def pong(self, node: NodeId, nonce: int, now: float) -> list[Effect]:
        neighbour = self._neighbours.get(node)
        if neighbour is None or neighbour.ping_nonce != nonce:
            return []  # Late, or never asked for: tells nothing.
        neighbour.ping_nonce = None
        sample_s = now - neighbour.ping_sent_at
        old_s = neighbour.rtt_s
        neighbour.rtt_s = sample_s if old_s is None else old_s + RTT_WEIGHT * (sample_s - old_s)
        asked, neighbour.asked = neighbour.asked, False
        return [Notify(PingAnswered(node, sample_s))] if asked else []

    def ask(self, node: NodeId, now: float) -> list[Effect]:
        """A user wants to know how far away a neighbour is: PingAnswered follows, unless the link ends."""
        neighbour = self._neighbours[node]
        neighbour.asked = True
        return self.rouse(node, now)

    def excuse(self, until: float) -> None:
        """Until then silence proves nothing: this node itself was late (Lifeguard, Dadgar 2018)."""
        self._excused_until = max(self._excused_until, until)

    def excused(self, now: float) -> bool:
        return now < self._excused_until

    def silent_s(self, node: NodeId, now: float) -> float | None:
        """How long nothing has come from a neighbour; None for one without a link."""
        neighbour = self._neighbours.get(node)
        return None if neighbour is None else now - neighbour.heard_at

    def rouse(self, node: NodeId, now: float) -> list[Effect]:
        """Ask a neighbour for a sign of life, unless it has been asked already."""
        neighbour = self._neighbours.get(node)
        return [] if neighbour is None or neighbour.ping_nonce is not None else self._ping(neighbour, now)

    def pong_overdue(self, timer: PongOverdue, now: float) -> list[Effect]:
        neighbour = self._neighbours.get(timer.node)
        if neighbour is None or neighbour.ping_nonce != timer.nonce:
            return []
        if neighbour.heard_at > neighbour.ping_sent_at or self.excused(now):
            neighbour.ping_nonce = None  # Alive, though this answer is missing; the next sweep asks again.
            return []
        return [Disconnect(timer.node, f"no sign of life for {now - neighbour.heard_at:.0f} s")]

    def sweep(self, now: float, working: Iterable[NodeId]) -> list[Effect]:
        """Pings the silent, and closes the links that are too many, the longest unused first.

        `working` are the peers that an attempt is under way with; their links stay.
        """
        effects: list[Effect] = []
        for neighbour in self._neighbours.values():
            if neighbour.ping_nonce is None and now - neighbour.heard_at >= self._settings.ping_after_s:
                effects += self._ping(neighbour, now)
        surplus = len(self._neighbours) - self._settings.neighbours_max
        if surplus > 0:
            for neighbour in self._least_needed(working)[:surplus]:
                neighbour.parting = True
                effects += [
                    Send(neighbour.node, Goodbye(False, "too many links")),
                    Disconnect(neighbour.node, "too many links"),
                ]
        return effects

    def oldest(self) -> list[Neighbour]:
        """The links in the order in which they were opened."""
        return sorted(self._neighbours.values(), key=lambda known: known.linked_at)

    def _least_needed(self, working: Iterable[NodeId]) -> list[Neighbour]:
        """The links to close first. Whoever comes in numbers cannot displace those that were chosen, or have lasted."""
        kept = dict.fromkeys(working)
        count = self._settings.neighbours_kept
        kept.update(dict.fromkeys(known.node for known in self.oldest()[:count]))
        near = [known for known in self._neighbours.values() if known.rtt_s is not None]
        kept.update(dict.fromkeys(known.node for known in sorted(near, key=lambda known: known.rtt_s or 0.0)[:count]))
        places: dict[str, int] = {}
        for known in self._neighbours.values():
            place = place_of(known.addresses)
            places[place] = places.get(place, 0) + 1
        idle = [known for known in self._neighbours.values() if known.node not in kept]
        return sorted(
            idle, key=lambda known: (bool(known.dialled), -places[place_of(known.addresses)], known.used_at, known.node)
        )

    def _ping(self, neighbour: Neighbour, now: float) -> list[Effect]:
        self._nonce = (self._nonce + 1) % NONCE_LIMIT
        neighbour.ping_nonce, neighbour.ping_sent_at = self._nonce, now
        overdue = PongOverdue(neighbour.node, self._nonce)
        return [Send(neighbour.node, Ping(self._nonce)), SetTimer(self._settings.pong_limit_s, overdue)]
