"""One dial to a libp2p peer: several addresses, the first that works wins, and a cause for people when none does."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import trio
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.security.noise.transport import Transport as Noise
from multiaddr import Multiaddr

from node.libp2p.addresses import host_and_port

DIAL_S = (
    5.0  # For one address, from the first packet to a muxed connection. Loopback needs 6 ms, a bad mobile link 2 s.
)
STAGGER_S = 0.25  # The next address starts this much later: RFC 8305's connection attempt delay.
ADDRESSES_MAX = 8  # As many as a Hello may name.


@dataclass(frozen=True, slots=True)
class Target:
    """One address, and its text as the user or a peer gave it."""

    text: str
    address: Multiaddr


class DialError(Exception):
    """A dial came to nothing. The message is a sentence for people that names the address."""


async def dial_any(swarm: Swarm, targets: Sequence[Target], expected: ID | None) -> tuple[Any, str]:
    """A connection to the first address that works, in order but staggered, and its text; the others are given up.

    `expected` None takes whoever answers. Raises DialError with the cause of the first address that failed.
    """
    if not targets:
        raise DialError("There is no address to dial.")
    chosen = list(targets)[:ADDRESSES_MAX]
    results: list[tuple[Any, str]] = []
    causes: dict[int, str] = {}

    async def attempt(place: int, settled: trio.Event) -> None:
        try:
            results.append((await dial_one(swarm, chosen[place], expected), chosen[place].text))
            # Attempts that are still under way have a connection of their own at most: cancelling them harms nobody.
            nursery.cancel_scope.cancel()
        except DialError as error:
            causes[place] = str(error)
        finally:
            settled.set()

    async with trio.open_nursery() as nursery:
        for place in range(len(chosen)):
            settled = trio.Event()
            nursery.start_soon(attempt, place, settled)
            with trio.move_on_after(STAGGER_S):
                await settled.wait()
    if not results:
        raise DialError(causes[min(causes)])
    for connection, _ in results[1:]:
        await connection.close()
    return results[0]


async def dial_one(swarm: Swarm, target: Target, expected: ID | None) -> Any:
    """One address: TCP, Noise, yamux. Unlike the library's own dial it need not know the peer id beforehand."""
    try:
        host, port = host_and_port(target.address)
    except ValueError as error:
        raise DialError(f"{target.text} is not an address that this node can dial, such as /ip4/…/tcp/….") from error
    raw = peer = connection = None
    try:
        with trio.fail_after(DIAL_S):
            # The library's TCP dial does the same, but resolves names by a resolver that knows no /etc/hosts.
            raw = RawConnection(TrioTCPStream(await trio.open_tcp_stream(host, port)), True)
            noise = await swarm.upgrader.security_multistream.select_transport(raw, True)
            assert isinstance(noise, Noise)
            secured = await noise.get_pattern().handshake_outbound(raw, None)
            peer = secured.get_remote_peer()
            if expected is not None and peer != expected:
                raise DialError(f"{target.text} answers, but as another node ({peer}).")
            muxed = await swarm.upgrader.upgrade_connection(secured, peer)
            connection = await swarm.add_conn(muxed, "outbound")
    except DialError:
        raise
    except Exception as error:  # A stranger may answer anything; every way to fail is the same to the caller.
        if raw is None:
            raise DialError(f"Nothing answers at {target.text}.") from error
        if peer is None:
            raise DialError(f"{target.text} answers, but is not a starlings node: no libp2p handshake.") from error
        raise DialError(f"{target.text} answers, but closed the connection; it may be full.") from error
    finally:
        if raw is not None and connection is None:
            with trio.CancelScope(shield=True), trio.move_on_after(1):
                await raw.close()
    return connection
