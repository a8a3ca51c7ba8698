"""Being carried for: holds reservations at the relays that the member has chosen, and takes the links that come through them."""

import logging
from collections.abc import Callable
from typing import Any

import trio
from libp2p.abc import INetStream
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from node.libp2p.circuits import (
    HOP,
    direct,
    messages,
    open_stream,
    raw_connection,
    read_message,
    status_name,
    write_message,
)
from node.libp2p.connections import wait_closed
from node.libp2p.host import peer_of
from protocol.identity import NodeId
from swarm.events import RelayChanged
from swarm.finding.places import fits

RENEW_S = 600.0  # Well within any relay's reservation; a relay that has forgotten us is noticed.
ANSWER_S = 10.0
ADDRESSES_EACH_MAX = 2  # Of one relay.

log = logging.getLogger(__name__)


class Reservations:
    """One node's places at relays."""

    def __init__(self, network: Swarm, post: Callable[[RelayChanged], None], nursery: trio.Nursery) -> None:
        self._network, self._post, self._nursery = network, post, nursery
        self._released: dict[NodeId, trio.Event] = {}  # Of those in use: when they are not wanted any more.

    def use(self, nodes: tuple[NodeId, ...]) -> None:
        """Hold a place with these, and with no others any more."""
        for node in [node for node in self._released if node not in nodes]:
            self._released.pop(node).set()
        for node in nodes:
            if node not in self._released:
                released = self._released[node] = trio.Event()
                self._nursery.start_soon(self._hold, node, released)

    async def _hold(self, node: NodeId, released: trio.Event) -> None:
        told: tuple[str, ...] = ()
        while not released.is_set():
            addresses = await self._reserve(peer_of(node))
            if released.is_set():
                return
            if addresses != told or not addresses:
                told = addresses
                self._post(RelayChanged(node, addresses))
            if not addresses:
                self._released.pop(node, None)
                return
            with trio.move_on_after(RENEW_S):
                await released.wait()

    async def _reserve(self, relay: ID) -> tuple[str, ...]:
        """Ask for a place; the addresses that lead to this node through it, none if there is none."""
        pb = messages()
        ways = direct(self._network, relay)
        if not ways:
            return ()
        try:
            stream = await open_stream(ways[0], HOP)
            try:
                await write_message(stream, pb.HopMessage(type=pb.HopMessage.RESERVE))
                with trio.fail_after(ANSWER_S):
                    answer = await read_message(stream, pb.HopMessage)
            finally:
                await stream.reset()
        except Exception as error:  # A neighbour may answer anything; then it is no relay.
            log.debug("no reservation at %s: %r", relay, error)
            return ()
        if answer.status != pb.OK:
            log.info("%s does not carry for this node: %s", relay, status_name(answer.status))
            return ()
        return self._circuits(answer.reservation.addrs, relay)

    def _circuits(self, told: Any, relay: ID) -> tuple[str, ...]:
        own = self._network.get_peer_id()
        found = []
        for data in list(told)[:8]:
            try:
                address = str(Multiaddr(bytes(data)))
            except Exception:  # Whatever it says, it must lead somewhere.
                continue
            text = f"{address.partition('/p2p/')[0]}/p2p/{relay}/p2p-circuit/p2p/{own}"
            if "/p2p-circuit" not in address and fits(text):
                found.append(text)
        return tuple(found[:ADDRESSES_EACH_MAX])

    async def accept(self, stream: INetStream) -> None:
        """One STOP stream: a relay leads somebody here. The connection over it proves who it is."""
        pb = messages()
        relay = stream.muxed_conn.peer_id
        try:
            with trio.fail_after(ANSWER_S):
                message = await read_message(stream, pb.StopMessage)
            wanted = [peer_of(node) for node in self._released]
            if message.type != pb.StopMessage.CONNECT or relay not in wanted:
                await write_message(
                    stream, pb.StopMessage(type=pb.StopMessage.STATUS, status=pb.PERMISSION_DENIED)
                )
                return
            await write_message(stream, pb.StopMessage(type=pb.StopMessage.STATUS, status=pb.OK))
            raw = raw_connection(stream, relay, ID(message.peer.id), initiator=False)
            muxed = await self._network.upgrade_inbound_raw_conn(raw, raw.get_transport_addresses()[0])
            await wait_closed(self._network, muxed)
        finally:
            await stream.reset()
