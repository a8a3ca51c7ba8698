"""One dial to a libp2p peer: several addresses, the first that works wins, and a cause for people when none does."""

import logging
from collections.abc import Sequence
from contextlib import suppress
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
from node.libp2p.circuits import CircuitRefused, direct, lead_through, raw_connection
from protocol.limits import ADDRESSES_MAX
from swarm.finding.places import dialable

log = logging.getLogger(__name__)

DIAL_S = (
    5.0  # For one address, from the first packet to a muxed connection. Loopback needs 6 ms, a bad mobile link 2 s.
)
STAGGER_S = 0.25  # The next address starts this much later: RFC 8305's connection attempt delay.


@dataclass(frozen=True, slots=True)
class Target:
    """One address, and its text as the user or a peer gave it. `relay` is who leads to the peer, from that address.

    `near`: if a stranger gave it, the addresses of this node, in whose networks alone it may lead to a private one. None: anywhere.
    """

    text: str
    address: Multiaddr
    relay: ID | None = None
    near: tuple[str, ...] | None = None


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
    """One address: TCP or a circuit, Noise, yamux. Unlike the library's own dial it need not know the peer id beforehand."""
    raw = peer = connection = None
    try:
        with trio.fail_after(DIAL_S):
            raw = await _ground(swarm, target, expected)
            secured, peer = await _secured(swarm, raw, target, expected)
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
            await _let_go(raw)
    return connection


async def answers(swarm: Swarm, target: Target, expected: ID) -> bool:
    """Whether a peer can be dialled at an address, by the handshake that proves who it is. No connection stays."""
    raw = None
    try:
        with trio.move_on_after(DIAL_S):
            raw = await _ground(swarm, target, expected)
            await _secured(swarm, raw, target, expected)
            return True
    except Exception as error:  # A stranger may answer anything.
        log.debug("%s cannot be dialled: %r", target.text, error)
    finally:
        if raw is not None:
            await _let_go(raw)
    return False


async def _ground(swarm: Swarm, target: Target, expected: ID | None) -> RawConnection:
    """What the handshake goes over: a socket, or a circuit over a connection with the relay."""
    if target.relay is not None:
        return await _circuit(swarm, target, target.relay, expected)
    try:
        host, port = host_and_port(target.address)
    except ValueError as error:
        raise DialError(f"{target.text} is not an address that this node can dial, such as /ip4/…/tcp/….") from error
    # The library's TCP dial does the same, but resolves names by a resolver that knows no /etc/hosts.
    return RawConnection(TrioTCPStream(await _open(target, host, port)), True)


async def _open(target: Target, host: str, port: int) -> trio.SocketStream:
    """A socket to a host, or to what a stranger's name means if a stranger may send this node there."""
    if target.near is None:
        return await trio.open_tcp_stream(host, port)
    found = await trio.socket.getaddrinfo(host, port, type=trio.socket.SOCK_STREAM)
    ips = dict.fromkeys(str(each[4][0]) for each in found)
    allowed = [ip for ip in ips if dialable((f"/ip6/{ip}" if ":" in ip else f"/ip4/{ip}",), target.near)]
    if not allowed:
        raise DialError(f"{target.text} leads into a network that this node is not in, and only strangers have named it.")
    for ip in allowed[:-1]:
        with suppress(OSError):
            return await trio.open_tcp_stream(ip, port)
    return await trio.open_tcp_stream(allowed[-1], port)


async def _circuit(swarm: Swarm, target: Target, relay: ID, expected: ID | None) -> RawConnection:
    if expected is None:
        raise DialError(f"{target.text} does not say which node the relay should lead to.")
    ways = direct(swarm, relay)
    way = ways[0] if ways else await dial_one(swarm, Target(target.text, target.address, near=target.near), relay)
    try:
        return raw_connection(await lead_through(way, expected), relay, expected, initiator=True)
    except CircuitRefused as error:
        raise DialError(f"The relay of {target.text} answers. {error}") from error


async def _secured(swarm: Swarm, raw: RawConnection, target: Target, expected: ID | None) -> tuple[Any, ID]:
    """The handshake, and whom it has proved to be there."""
    noise = await swarm.upgrader.security_multistream.select_transport(raw, True)
    assert isinstance(noise, Noise)
    secured = await noise.get_pattern().handshake_outbound(raw, None)
    peer = secured.get_remote_peer()
    if expected is not None and peer != expected:
        raise DialError(f"{target.text} answers, but as another node ({peer}).")
    return secured, peer


async def _let_go(raw: RawConnection) -> None:
    with trio.CancelScope(shield=True), trio.move_on_after(1):
        await raw.close()
