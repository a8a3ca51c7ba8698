"""What a user wants of single nodes: to join one by its address, and to hear how far away one is."""

from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from node.neighbourhood import path_to, peer_views
from node.views import PeerView, PingView
from protocol.identity import NodeId, node_from_text, node_text
from swarm.effects import JoinFailed, PeerJoined, PingAnswered, PingFailed
from swarm.events import ContactsFound, Event, PingAsked
from swarm.member import Member
from swarm.values import MEMBERSHIP, Contact

JOIN_LIMIT_S = 15.0  # A dial tries every address once; the slowest transport gives up after 8 s.
PING_LIMIT_S = 10.0  # A dial, and the answer of a neighbour that is about to be given up.


class JoinError(Exception):
    """An address does not lead to a node of this swarm. The message names it and the next step."""


@dataclass(eq=False, slots=True)
class _Join:
    contact: Contact
    ended: trio.Event = field(default_factory=trio.Event)
    node: NodeId | None = None
    cause: str = ""


class PingError(Exception):
    """A node does not answer. The message names it and the cause."""


@dataclass(eq=False, slots=True)
class _Ping:
    node: NodeId
    ended: trio.Event = field(default_factory=trio.Event)
    rtt_s: float | None = None
    cause: str = ""


class Meetings:
    """The joins and pings under way. All methods are called from the node's own trio loop."""

    def __init__(self, member: Member, clock: Callable[[], float], post: Callable[[Event], None]) -> None:
        self._member, self._clock, self._post = member, clock, post
        self._joins: list[_Join] = []
        self._pings: list[_Ping] = []

    def heard(self, notice: PeerJoined | JoinFailed | PingAnswered | PingFailed) -> None:
        """What became of one of them, perhaps."""
        match notice:
            case PeerJoined(node):
                self._settle_joins(node)
            case JoinFailed(address, cause):
                for join in self._joins:
                    if address in join.contact.addresses:
                        join.cause = cause
                        join.ended.set()
            case PingAnswered(node, rtt_s):
                for ping in self._pings:
                    if ping.node == node:
                        ping.rtt_s = rtt_s
                        ping.ended.set()
            case PingFailed(node, cause):
                for ping in self._pings:
                    if ping.node == node:
                        ping.cause = cause
                        ping.ended.set()

    async def join(self, address: str) -> PeerView:
        """Dial an address; raises JoinError with a sentence for people if it is not a node of this swarm."""
        contact = contact_of(address)
        if contact.node == self._member.node:
            raise JoinError(f"{address} is this node itself")
        join = _Join(contact, node=self._neighbour_at(contact))
        self._joins.append(join)
        try:
            if join.node is None:
                self._post(ContactsFound("join", MEMBERSHIP, (contact,)))
                with trio.move_on_after(JOIN_LIMIT_S):
                    await join.ended.wait()
        finally:
            self._joins.remove(join)
        if join.node is None:
            raise JoinError(join.cause or f"{address} has not answered within {JOIN_LIMIT_S:.0f} s")
        node = node_text(join.node)
        found = next((view for view in peer_views(self._member, self._clock()) if view.node == node), None)
        if found is None:
            raise JoinError(f"{address} was reached, and has left again")
        return found

    async def ping(self, node: NodeId) -> PingView:
        """How far away a node is, dialling it if there is no link; raises PingError with a sentence for people."""
        known = self._member.index.get(node)
        name = known.advert.name if known is not None else node_text(node)
        if node == self._member.node:
            raise PingError(f"{name} is this node itself")
        ping = _Ping(node)
        self._pings.append(ping)
        try:
            self._post(PingAsked(node))
            with trio.move_on_after(PING_LIMIT_S):
                await ping.ended.wait()
        finally:
            self._pings.remove(ping)
        neighbour = self._member.roster.get(node)
        if ping.rtt_s is None or neighbour is None:
            raise PingError(f"{name} does not answer: {ping.cause or f'not a word for {PING_LIMIT_S:.0f} s'}")
        rtt_ms = round(ping.rtt_s * 1000, 1)
        return PingView(node_text(node), neighbour.name, rtt_ms, path_to(self._member, neighbour), neighbour.dialled)

    def _neighbour_at(self, contact: Contact) -> NodeId | None:
        """Who of the neighbours can be reached there: a dial to somebody linked already has no other end."""
        for neighbour in self._member.roster:
            places = [address.partition("/p2p/")[0] for address in (neighbour.dialled, *neighbour.addresses)]
            if contact.node == neighbour.node or (contact.node is None and contact.addresses[0] in places):
                return neighbour.node
        return None

    def _settle_joins(self, node: NodeId) -> None:
        neighbour = self._member.roster.get(node)
        for join in self._joins:
            dialled = neighbour.dialled if neighbour else ""
            if join.contact.node == node or (join.contact.node is None and dialled in join.contact.addresses):
                join.node = node
                join.ended.set()


def contact_of(address: str) -> Contact:
    """The contact that a multiaddr names; without `/p2p/…` whoever answers there. Raises JoinError."""
    head, _, peer = address.partition("/p2p/")
    if not head.startswith("/"):
        raise JoinError(f'"{address}" is not a multiaddr; write it like /ip4/192.168.1.20/tcp/4976')
    if not peer:
        return Contact(None, (address,))
    try:
        return Contact(node_from_text(peer), (address,))
    except ValueError as error:
        raise JoinError(f'"{address}": {error}') from None
