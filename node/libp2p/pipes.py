"""A libp2p stream as a Pipe of `node.links`: reads and writes that are never cancelled, and two ways to end them."""

from typing import Any

import trio
from libp2p.abc import INetStream
from libp2p.io.trio import TrioTCPStream
from libp2p.network.stream.exceptions import StreamEOF

from node.libp2p.circuits import relay_of
from node.libp2p.host import node_of
from node.libp2p.muxer_mends import ALIVE_INTERVAL_S, ALIVE_TIMEOUT_S, abort, ground_of
from node.links import CLOSED_BY_PEER, PipeBroken
from protocol.identity import NodeId

READ_BYTES_MAX = 64 * 1024  # One yamux frame.


class StreamPipe:
    """One end of a wire stream. Noise has proved who `peer` is."""

    def __init__(self, stream: INetStream, nursery: trio.Nursery) -> None:
        """`nursery` runs the reset of a stream that is given up. Raises ValueError for a peer that can be no node."""
        self.peer: NodeId = node_of(stream.muxed_conn.peer_id)
        relay = relay_of(stream.muxed_conn)
        self.relay: NodeId | None = None if relay is None else node_of(relay)
        self.seen = _seen(stream.muxed_conn)
        self._stream, self._nursery = stream, nursery

    async def read(self) -> bytes:
        try:
            data: bytes = await self._stream.read(READ_BYTES_MAX)
            return data
        except StreamEOF as error:
            if self._silent():
                raise PipeBroken(self._cause()) from error
            return b""
        except Exception as error:  # The library has many words for one thing: this stream is over.
            raise PipeBroken(self._cause()) from error

    async def write(self, data: bytes) -> None:
        try:
            await self._stream.write(data)
        except Exception as error:
            raise PipeBroken(self._cause()) from error

    def end(self) -> None:
        self._nursery.start_soon(_reset, self._stream)

    def abort(self) -> None:
        abort(self._stream.muxed_conn)

    def _silent(self) -> bool:
        muxed: Any = self._stream.muxed_conn
        return bool(muxed.was_silent)

    def _cause(self) -> str:
        if self._silent():
            return f"The peer gave no sign of life for {ALIVE_INTERVAL_S + ALIVE_TIMEOUT_S:g} s."
        return CLOSED_BY_PEER


def _seen(muxed: Any) -> str:
    ground = ground_of(muxed)
    if not isinstance(ground, TrioTCPStream):
        return ""
    try:
        host = str(ground.stream.socket.getpeername()[0]).partition("%")[0]  # A zone means something here only.
    except OSError:  # It has closed meanwhile.
        return ""
    return f"/ip6/{host}" if ":" in host else f"/ip4/{host}"


async def _reset(stream: INetStream) -> None:
    """Bounded by the keepalive of the connection, which ends every write to a dead peer."""
    await stream.reset()
