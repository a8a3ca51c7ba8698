"""Circuit relay v2 as all its parties speak it: its messages, and a stream through a relay as the ground of a connection.

The library has this protocol too, but its relay keeps one circuit for each peer and forgets the others, tells of limits in the
middle of what it carries, and comes with a DHT and a relay finder of its own. So its message classes are used, and nothing else.
The protocol: https://github.com/libp2p/specs/blob/master/relay/circuit-v2.md
"""

import importlib.util
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import libp2p
import trio
from libp2p.abc import INetStream
from libp2p.connection_types import ConnectionType
from libp2p.custom_types import TProtocol
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.stream.exceptions import StreamEOF
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.protocol_muxer.multiselect_client import MultiselectClient
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.utils.varint import encode_varint_prefixed, read_varint_prefixed_bytes_limited
from multiaddr import Multiaddr

from node.libp2p.connections import alive
from node.libp2p.muxer_mends import ground_of

HOP = TProtocol("/libp2p/circuit/relay/0.2.0/hop")
STOP = TProtocol("/libp2p/circuit/relay/0.2.0/stop")
MESSAGE_BYTES_MAX = 4_096  # A peer id, some addresses and a voucher.
NEGOTIATE_S = 5

log = logging.getLogger(__name__)


class CircuitRefused(Exception):
    """A relay does not do what it was asked. The message is a sentence for people."""


@dataclass(frozen=True, slots=True)
class Limit:
    """What a relay allows one circuit; 0 is no limit. Seconds, and bytes both ways together."""

    seconds: int
    bytes: int


@cache
def messages() -> ModuleType:
    """The library's message classes of this protocol, without the package around them, which would import its whole relay."""
    path = Path(libp2p.__file__).parent / "relay" / "circuit_v2" / "pb" / "circuit_pb2.py"
    spec = importlib.util.spec_from_file_location("node.libp2p._circuit_pb2", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def write_message(stream: INetStream, message: Any) -> None:
    await stream.write(encode_varint_prefixed(message.SerializeToString()))


async def read_message(stream: INetStream, kind: Callable[[], Any]) -> Any:
    """The next message of a stream. Raises whatever the library does for what is none."""
    message = kind()
    message.ParseFromString(await read_varint_prefixed_bytes_limited(stream, MESSAGE_BYTES_MAX))
    return message


async def open_stream(connection: Any, protocol: TProtocol, patience_s: int = NEGOTIATE_S) -> INetStream:
    """A stream of this protocol on a connection; none is left if it comes to nothing. Raises whatever the library does."""
    stream: INetStream = await connection.new_stream()
    try:
        await MultiselectClient().select_one_of([protocol], MultiselectCommunicator(stream), patience_s)
    except BaseException:  # Whoever waits for it may be cancelled, too.
        await stream.reset()
        raise
    return stream


async def lead_through(relay: Any, peer: ID) -> INetStream:
    """A circuit to a peer over a connection with its relay. Raises CircuitRefused with a sentence for people."""
    pb = messages()
    try:
        stream = await open_stream(relay, HOP)
    except Exception as error:
        raise CircuitRefused("It does not relay.") from error
    status: int | None = None
    try:
        await write_message(
            stream, pb.HopMessage(type=pb.HopMessage.CONNECT, peer=pb.PeerId(id=peer.to_bytes()))
        )
        status = (await read_message(stream, pb.HopMessage)).status
    except Exception as error:
        raise CircuitRefused("It closed the circuit.") from error
    finally:
        if status != pb.OK:
            await stream.reset()
    if status != pb.OK:
        raise CircuitRefused(f"It does not lead there: {status_name(status)}.")
    return stream


def status_name(status: int) -> str:
    """A status in words."""
    try:
        return str(messages().Status.Name(status)).lower().replace("_", " ")
    except ValueError:
        return f"status {status}"


def is_relayed(connection: Any) -> bool:
    """Whether a connection goes through a relay."""
    return bool(connection.muxed_conn.get_connection_type() == ConnectionType.RELAYED)


def direct(network: Swarm, peer: ID) -> list[Any]:
    """The open connections with a peer that no relay carries."""
    return [connection for connection in alive(network, peer) if not is_relayed(connection)]


def relay_of(muxed: Any) -> ID | None:
    """Who carries a connection, if it is not direct."""
    ground = ground_of(muxed)
    return ground.relay if isinstance(ground, CircuitStream) else None


class CircuitStream:
    """Bytes through a relay, in the place of a socket."""

    def __init__(self, stream: INetStream, relay: ID) -> None:
        self._stream, self.relay = stream, relay

    async def write(self, data: bytes) -> None:
        try:
            await self._stream.write(data)
        except Exception as error:  # The library has many words for one thing: this stream is over.
            raise ConnectionClosedError("the circuit is closed", transport="circuit") from error

    async def read(self, n: int | None = None) -> bytes:
        try:
            data: bytes = await self._stream.read(n)
            return data
        except StreamEOF:
            return b""
        except Exception as error:
            raise ConnectionClosedError("the circuit is closed", transport="circuit") from error

    async def close(self) -> None:
        await self._stream.reset()

    def abort(self) -> None:
        """Let go of it without waiting for anybody."""
        trio.lowlevel.spawn_system_task(_reset_quietly, self._stream)

    def get_remote_address(self) -> None:
        """Nobody knows where the other end is."""


def raw_connection(stream: INetStream, relay: ID, peer: ID, *, initiator: bool) -> RawConnection:
    """What a connection is built on: a circuit through `relay` to `peer`."""
    address = Multiaddr(f"/p2p/{relay}/p2p-circuit/p2p/{peer}")
    circuit: Any = CircuitStream(stream, relay)
    return RawConnection(circuit, initiator, ConnectionType.RELAYED, [address])


async def _reset_quietly(stream: INetStream) -> None:
    try:
        await stream.reset()
    except Exception as error:
        log.debug("a circuit could not be reset: %r", error)
