"""Multiaddresses: what to listen on, what to tell others, and what a contact's text means."""

import errno
import socket
from collections.abc import Iterable, Sequence

import ifaddr
from libp2p.peer.id import ID
from multiaddr import Multiaddr
from multiaddr.exceptions import Error as MultiaddrError

from node.transport import ListenError
from protocol.identity import NodeId, node_text
from protocol.limits import ADDRESS_BYTES_MAX, ADDRESSES_MAX
from swarm.finding.places import fits

_UNSPECIFIED = ("0.0.0.0", "::")
_HOSTS = ("ip4", "ip6", "dns", "dns4", "dns6")


def split(text: str) -> tuple[Multiaddr, ID | None]:
    """An address without its `/p2p/…`, and the peer that this names. Raises ValueError with a sentence for people."""
    if not fits(text):
        raise ValueError(f"An address of {len(text)} characters is too long: {ADDRESS_BYTES_MAX} bytes of UTF-8 are allowed.")
    try:
        address = Multiaddr(text)
        names = [protocol.name for protocol in address.protocols()]
        if "p2p" not in names:
            return address, None
        peer = ID.from_base58(str(address.value_for_protocol("p2p")))
        return address.decapsulate(Multiaddr(f"/p2p/{peer}")), peer
    except (MultiaddrError, ValueError, TypeError, LookupError) as error:
        raise ValueError(f"{text} is not a multiaddress such as /ip4/192.0.2.7/tcp/4976/p2p/12D3Koo….") from error


def split_circuit(text: str) -> tuple[Multiaddr, ID, ID | None]:
    """The address of a relay, the relay, and the peer that it leads to, if the text says.

    Raises ValueError with a sentence for people.
    """
    before, _, behind = text.partition("/p2p-circuit")
    address, relay = split(before)
    if relay is None or not fits(text):
        raise ValueError(f"{text} is not the address of a circuit such as /ip4/…/tcp/…/p2p/RELAY/p2p-circuit/p2p/NODE.")
    return address, relay, split(behind)[1] if behind else None


def parse_listen(texts: Sequence[str]) -> list[Multiaddr]:
    """The addresses to listen on. Raises ListenError for anything that is not /ip4|ip6/…/tcp/…."""
    addresses = []
    for text in texts:
        try:
            address, _ = split(text)
        except ValueError as error:
            raise ListenError(str(error)) from error
        if [protocol.name for protocol in address.protocols()] not in (["ip4", "tcp"], ["ip6", "tcp"]):
            raise ListenError(f"{text} cannot be listened on. Use /ip4/ADDRESS/tcp/PORT or /ip6/ADDRESS/tcp/PORT.")
        addresses.append(address)
    return addresses


def parse_announce(texts: Sequence[str], node: NodeId) -> list[Multiaddr]:
    """The addresses that others are told instead of those bound, with this node's id behind them.

    Raises ListenError for what nobody could dial or no message could hold.
    """
    try:
        addresses = [split(text)[0] for text in texts]
        for address in addresses:
            host_and_port(address)
            split(f"{address}/p2p/{node_text(node)}")
    except ValueError as error:
        raise ListenError(f"{error} It cannot be announced.") from error
    return addresses[:ADDRESSES_MAX]


def check_free(addresses: Iterable[Multiaddr]) -> None:
    """Bind each address once and let it go. The library only logs why it cannot listen; this raises ListenError."""
    for address in addresses:
        host, port = host_and_port(address)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind((host, port))
                probe.listen(1)
        except OSError as error:
            raise ListenError(_why_not(address, port, error)) from error


def _why_not(address: Multiaddr, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} is taken ({address}). Stop the other program, or choose another port with --port."
    if error.errno == errno.EACCES:
        return f"Port {port} needs more rights ({address}). Choose a port over 1023 with --port."
    return f"{address} cannot be listened on: {error.strerror}. Choose another address with --listen."


def host_and_port(address: Multiaddr) -> tuple[str, int]:
    """The parts of an /ip4|ip6|dns|dns4|dns6/…/tcp/… address. Raises ValueError for any other."""
    parts = [protocol.name for protocol in address.protocols()]
    if len(parts) != 2 or parts[0] not in _HOSTS or parts[1] != "tcp":
        raise ValueError(f"{address} is not a TCP address.")
    return str(address.value_for_protocol(parts[0])), int(str(address.value_for_protocol("tcp")))


def reachable(bound: Iterable[Multiaddr]) -> list[Multiaddr]:
    """Where others can dial what is bound: `0.0.0.0` and `::` become the addresses of the interfaces.

    Loopback is told only if there is nothing else. At most as many as a Hello may name.
    """
    found: list[Multiaddr] = []
    for address in bound:
        host, port = host_and_port(address)
        kind = "ip6" if ":" in host else "ip4"
        hosts = _interface_addresses(kind) if host in _UNSPECIFIED else [host]
        found += [Multiaddr(f"/{kind}/{each}/tcp/{port}") for each in hosts]
    unique = list(dict.fromkeys(found))
    beyond = [address for address in unique if not is_loopback(address)]
    return (beyond or unique)[:ADDRESSES_MAX]


def _interface_addresses(kind: str) -> list[str]:
    found = []
    for adapter in ifaddr.get_adapters():
        for ip in adapter.ips:
            if kind == "ip4" and isinstance(ip.ip, str):
                found.append(ip.ip)
            elif kind == "ip6" and not isinstance(ip.ip, str) and not ip.ip[0].lower().startswith("fe80"):
                found.append(ip.ip[0])  # Link-local addresses need a zone that only this machine knows.
    return found


def is_loopback(address: Multiaddr) -> bool:
    """Whether only this machine can dial it."""
    host, _ = host_and_port(address)
    return host.startswith("127.") or host == "::1"
