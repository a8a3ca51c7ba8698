"""What carries messages between nodes: the Transport protocol that libp2p and the verified fake both keep."""

from collections.abc import Callable
from typing import Protocol

import trio

from protocol.identity import NodeId
from protocol.messages import Message
from swarm.effects import Dial
from swarm.events import (
    AddressesChanged,
    CarriedChanged,
    ContactsFound,
    DialFailed,
    DialledBack,
    NeighbourDown,
    NeighbourUp,
    Received,
    RelayChanged,
    Undelivered,
)

TransportEvent = (
    NeighbourUp
    | NeighbourDown
    | DialFailed
    | DialledBack
    | AddressesChanged
    | RelayChanged
    | CarriedChanged
    | ContactsFound
    | Received
    | Undelivered
)
Post = Callable[[TransportEvent], None]
"""Hands an event to the driver's inbox. Never blocks."""


class Transport(Protocol):
    """Links to other nodes. The methods other than `run` never wait and never raise for what a peer does.

    For every peer the posted events keep this order: NeighbourUp, then Received in the order sent, then one NeighbourDown;
    then perhaps NeighbourUp again. A message passed to `send` is delivered, or its link goes down, or Undelivered is posted.
    At most one link per peer is up; when two nodes dial each other at once, both keep the same one.
    """

    async def run(self, post: Post, *, task_status: trio.TaskStatus[tuple[str, ...]]) -> None:
        """Listen until cancelled. Reports, once ready, the addresses (multiaddr text with /p2p/) where this node can be dialled.

        Raises `ListenError` if an address cannot be bound. On cancellation closes every link and leaves nothing running.
        """

    def send(self, to: NodeId, message: Message) -> None:
        """Queue a message. A peer without a link, and not being dialled, makes Undelivered."""

    def dial(self, dial: Dial) -> None:
        """Open a link: NeighbourUp or DialFailed follows. A link that is up already makes neither.

        An upgrade that works makes NeighbourDown and NeighbourUp; one that does not makes nothing.
        """

    def disconnect(self, node: NodeId, cause: str) -> None:
        """Close the link at once, even if the peer is frozen. NeighbourDown follows."""

    def dial_back(self, node: NodeId, addresses: tuple[str, ...]) -> None:
        """Dial a peer anew at each of these addresses, prove who answers, and hang up: DialledBack follows."""

    def use_relays(self, nodes: tuple[NodeId, ...]) -> None:
        """Have these peers, and no others any more, carry links to this node; RelayChanged follows for each."""

    def announce(self, addresses: tuple[str, ...]) -> None:
        """Tell these addresses of this node from now on: in Hellos, and in provider records."""

    def provide(self, skills: tuple[str, ...]) -> None:
        """Publish provider records for these skills, and for membership of the swarm."""

    def find_providers(self, skill: str) -> None:
        """Look providers up; ContactsFound(source="dht", …) follows, perhaps with no contacts."""


class ListenError(Exception):
    """An address cannot be listened on. The message names it and the next step; nothing is left bound."""
