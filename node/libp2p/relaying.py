"""The relay: carries links to neighbours that others cannot dial. What it carries is encrypted between the two ends.

Only neighbours may be carried for, so few and as much as the limits say; anybody may be led to them.
"""

import logging
import time
from collections.abc import Callable
from typing import Any

import trio
from libp2p.abc import INetStream
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from node.libp2p.circuits import (
    STOP,
    Limit,
    direct,
    messages,
    open_stream,
    read_message,
    relay_of,
    write_message,
)
from node.libp2p.host import node_of
from protocol.identity import NodeId

RESERVATION_S = 3600  # Its holder renews it at half of that.
LIMIT = Limit(2 * 3600, 256 * 1024 * 1024)  # Of one circuit. Two hours of a busy stream of text are about 20 MB.
CIRCUITS_EACH_MAX = 16  # To one neighbour at once.
CIRCUITS_FROM_MAX = 4  # By one peer at once: two nodes need one, and a second while the first dies.
CIRCUITS_MAX = 64
READ_BYTES_MAX = 64 * 1024
ANSWER_S = 10.0  # For the next message of a peer.
LINGER_S = 0.5  # For an answer to be read before its stream is reset.

log = logging.getLogger(__name__)


class Relay:
    """One node's relay."""

    def __init__(
        self,
        network: Swarm,
        addresses: Callable[[], list[Multiaddr]],
        is_neighbour: Callable[[ID], bool],
        promised: Callable[[tuple[NodeId, ...]], None],
        reservations_max: int,
    ) -> None:
        """`addresses` are where this node can be dialled; `promised` hears whom it carries for, whenever that changes."""
        self._network, self._addresses, self._is_neighbour = network, addresses, is_neighbour
        self._promised, self._reservations_max = promised, reservations_max
        self._until: dict[ID, float] = {}
        self._to: dict[ID, int] = {}
        self._from: dict[ID, int] = {}
        self.circuits = 0

    async def serve(self, stream: INetStream) -> None:
        """One HOP stream: a neighbour that wants to be carried for, or somebody who wants to be led to one."""
        peer = stream.muxed_conn.peer_id
        try:
            pb = messages()
            with trio.move_on_after(ANSWER_S) as patience:
                message = await read_message(stream, pb.HopMessage)
            if patience.cancelled_caught:
                return
            if relay_of(stream.muxed_conn) is not None:
                await self._answer(stream, pb.PERMISSION_DENIED)  # No circuits through circuits.
            elif message.type == pb.HopMessage.RESERVE:
                await self._reserve(stream, peer)
            elif message.type == pb.HopMessage.CONNECT:
                await self._connect(stream, peer, ID(message.peer.id))
            else:
                await self._answer(stream, pb.UNEXPECTED_MESSAGE)
        finally:
            await stream.reset()

    def unlinked(self, node: ID) -> None:
        """A neighbour is gone; nobody is led to it any more."""
        if self._until.pop(node, None) is not None:
            self._tell()

    async def _reserve(self, stream: INetStream, peer: ID) -> None:
        pb = messages()
        now = trio.current_time()
        for late in [late for late, until in self._until.items() if until <= now]:
            del self._until[late]
        if not self._is_neighbour(peer):
            await self._answer(stream, pb.PERMISSION_DENIED)
        elif peer not in self._until and len(self._until) >= self._reservations_max:
            await self._answer(stream, pb.RESERVATION_REFUSED)
        else:
            self._until[peer] = now + RESERVATION_S
            self._tell()
            own = Multiaddr(f"/p2p/{self._network.get_peer_id()}")
            addresses = [address.encapsulate(own).to_bytes() for address in self._addresses()]
            # Seconds of the clock on the wall, as the protocol has it; our own holders count from when they asked.
            reservation = pb.Reservation(expire=int(time.time()) + RESERVATION_S, addrs=addresses)
            await self._answer(stream, pb.OK, reservation=reservation)

    async def _connect(self, stream: INetStream, peer: ID, wanted: ID) -> None:
        pb = messages()
        ways = direct(self._network, wanted)
        if self._until.get(wanted, 0.0) <= trio.current_time() or not ways:
            await self._answer(stream, pb.NO_RESERVATION)
            return
        full = self.circuits >= CIRCUITS_MAX or self._to.get(wanted, 0) >= CIRCUITS_EACH_MAX
        if full or self._from.get(peer, 0) >= CIRCUITS_FROM_MAX:
            await self._answer(stream, pb.RESOURCE_LIMIT_EXCEEDED)
            return
        self.circuits += 1
        _count(self._to, wanted, 1)
        _count(self._from, peer, 1)
        try:
            onward = await self._lead(ways[0], peer)
            if onward is None:
                await self._answer(stream, pb.CONNECTION_FAILED)
                return
            try:
                await self._answer(stream, pb.OK, linger=False)
                await _carry(stream, onward)
            finally:
                await onward.reset()
        finally:
            self.circuits -= 1
            _count(self._to, wanted, -1)
            _count(self._from, peer, -1)

    async def _lead(self, way: Any, peer: ID) -> INetStream | None:
        """A stream to a neighbour that has agreed to be connected with a peer."""
        pb = messages()
        try:
            onward = await open_stream(way, STOP)
        except Exception as error:
            log.debug("a neighbour does not let itself be led to: %r", error)
            return None
        agreed = False
        try:
            limit = pb.Limit(duration=LIMIT.seconds, data=LIMIT.bytes)
            await write_message(
                onward, pb.StopMessage(type=pb.StopMessage.CONNECT, peer=pb.PeerId(id=peer.to_bytes()), limit=limit)
            )
            with trio.move_on_after(ANSWER_S):
                answer = await read_message(onward, pb.StopMessage)
                agreed = answer.type == pb.StopMessage.STATUS and answer.status == pb.OK
        except Exception as error:  # Whatever it says, it does not agree.
            log.debug("a neighbour was not led to: %r", error)
        finally:
            if not agreed:
                await onward.reset()
        return onward if agreed else None

    async def _answer(self, stream: INetStream, status: int, *, reservation: Any = None, linger: bool = True) -> None:
        pb = messages()
        answer = pb.HopMessage(type=pb.HopMessage.STATUS, status=status)
        if status == pb.OK:
            answer.limit.CopyFrom(pb.Limit(duration=LIMIT.seconds, data=LIMIT.bytes))
        if reservation is not None:
            answer.reservation.CopyFrom(reservation)
        await write_message(stream, answer)
        if linger:
            await trio.sleep(LINGER_S)

    def _tell(self) -> None:
        self._promised(tuple(node_of(peer) for peer in self._until))


async def _carry(one: INetStream, two: INetStream) -> None:
    """Bring bytes from each to the other until either ends, or the limit is reached."""
    left = LIMIT.bytes
    over = trio.Event()

    async def copy(source: INetStream, sink: INetStream) -> None:
        nonlocal left
        try:
            while left > 0 and (data := await source.read(READ_BYTES_MAX)):
                left -= len(data)
                await sink.write(data)
        except Exception as error:  # Either end may go at any time.
            log.debug("a circuit ended: %r", error)
        finally:
            over.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(copy, one, two)
        nursery.start_soon(copy, two, one)
        with trio.move_on_after(LIMIT.seconds):
            await over.wait()
        # A read that is under way is not cancelled: the reset of its stream ends it.
        await one.reset()
        await two.reset()


def _count(table: dict[ID, int], peer: ID, change: int) -> None:
    table[peer] = table.get(peer, 0) + change
    if not table[peer]:
        del table[peer]
