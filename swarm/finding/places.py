"""What an address says: whether it can be told to others, where it is, roughly, and whether a stranger's word is reason to dial it.

Whatever comes from outside passes here before it becomes a part of what this node says itself: what no message can hold would be
its own mistake then.
"""

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address

from protocol.limits import ADDRESS_BYTES_MAX

PER_PLACE_MAX = 16  # A household, an office or a laboratory has about that many nodes behind one public address.
NAMES = ("/dns/", "/dns4/", "/dns6/", "/dnsaddr/")
_PORT = re.compile("[1-9][0-9]{0,4}", re.ASCII)


def fits(address: str) -> bool:
    """Whether a message can hold it: its bound is one of bytes, and some characters have none."""
    try:
        return len(address.encode()) <= ADDRESS_BYTES_MAX
    except UnicodeEncodeError:
        return False


def place_of(addresses: tuple[str, ...]) -> str:
    """The /24 of an IPv4 multiaddress, the /48 of an IPv6 one, or the end of a name, of the first address; others are their own.

    One operator's machines share a place, so nothing should hang on a single one.
    """
    if not addresses:
        return ""
    parts = addresses[0].split("/")
    if len(parts) > 2 and parts[1] == "ip4":
        return "/ip4/" + ".".join(parts[2].split(".")[:3])
    if len(parts) > 2 and parts[1] == "ip6":
        return "/ip6/" + ":".join(parts[2].split(":")[:3])
    if is_name(addresses[0]):
        return "/dns/" + ".".join(parts[2].lower().rstrip(".").split(".")[-2:])  # Below it, names are free.
    return addresses[0]


def public_place(addresses: tuple[str, ...]) -> str:
    """The place of a public address or of a name; empty for all others: at home everybody is at one place."""
    return place_of(addresses) if is_public(addresses) or (addresses and is_name(addresses[0])) else ""


class Crowd:
    """How many strangers at each public place are remembered: an identity costs nothing, a network does."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def is_full(self, addresses: tuple[str, ...]) -> bool:
        place = public_place(addresses)
        return bool(place) and self._counts.get(place, 0) >= PER_PLACE_MAX

    def add(self, addresses: tuple[str, ...]) -> None:
        place = public_place(addresses)
        if place:
            self._counts[place] = self._counts.get(place, 0) + 1

    def remove(self, addresses: tuple[str, ...]) -> None:
        place = public_place(addresses)
        left = self._counts.pop(place, 0) - 1
        if left > 0:
            self._counts[place] = left


def is_public(addresses: tuple[str, ...]) -> bool:
    """Whether the first address is one of the public internet."""
    host = _host(addresses[0]) if addresses else None
    return host is not None and host.is_global


def is_name(address: str) -> bool:
    """Whether it has to be resolved."""
    return address.startswith(NAMES)


def is_relayed(address: str) -> bool:
    """Whether a multiaddress leads through a relay."""
    return "/p2p-circuit" in address


def moved(address: str, seen: str) -> str:
    """The port of one address at the host of another, as in `/ip4/1.2.3.4/tcp/4976`; empty if the two do not go together.

    Both are read in their one spelling only: strangers write them, and others are told what comes of it.
    """
    direct = address.partition("/p2p/")[0]
    if not is_host(seen):
        return seen if direct == seen else ""
    parts = direct.split("/")
    if parts[:2] != seen.split("/")[:2] or len(parts) != 5 or parts[3] != "tcp":
        return ""
    return f"{seen}/tcp/{parts[4]}" if _PORT.fullmatch(parts[4]) and int(parts[4]) < 65536 else ""


def is_host(text: str) -> bool:
    """Whether it is the address of a machine without a port, such as `/ip4/1.2.3.4`."""
    host = _host(text)
    return host is not None and text == f"/ip{host.version}/{host}"


def dialable(addresses: Iterable[str], own: Iterable[str]) -> tuple[str, ...]:
    """Those that a stranger may send this node to: not into its machine or its network, unless it is itself announced there.

    Otherwise anybody could make others knock at the printers and routers of their homes. What a name means nobody knows yet:
    whoever resolves it asks again about what comes of that.
    """
    # Where a relay is says nothing of this node's own network, and is the word of the relay.
    near = [host for text in own if not is_relayed(text) and (host := _host(text)) is not None and not host.is_global]
    return tuple(text for text in addresses if _is_dialable(text, near))


def local(addresses: Iterable[str], own: Iterable[str]) -> tuple[str, ...]:
    """Those that may be in a network of this node: private ones, and public ones beside its own. No names."""
    beside = [host for text in own if not is_relayed(text) and (host := _host(text)) is not None]
    return tuple(text for text in addresses if _is_local(text, beside))


def _is_local(text: str, beside: list[IPv4Address | IPv6Address]) -> bool:
    host = _host(text)
    if host is None or is_relayed(text):
        return host is None and not is_name(text)
    if host.is_unspecified or host.is_multicast:
        return False
    return (not host.is_global and not host.is_loopback) or any(_are_near(host, own) for own in beside)


def _is_dialable(text: str, near: list[IPv4Address | IPv6Address]) -> bool:
    host = _host(text)
    if host is None:
        return not text.startswith(("/ip4/", "/ip6/"))
    if host.is_unspecified or host.is_multicast:
        return False
    if host.is_global:
        return True
    return any(_are_near(host, own) for own in near)


def _are_near(host: IPv4Address | IPv6Address, own: IPv4Address | IPv6Address) -> bool:
    bits = 16 if host.version == 4 else 48
    return (
        host.version == own.version
        and host.is_loopback == own.is_loopback
        and int(host) >> (host.max_prefixlen - bits) == int(own) >> (own.max_prefixlen - bits)
    )


def _host(text: str) -> IPv4Address | IPv6Address | None:
    """The IP address that a multiaddress is dialled at, its relay's if there is one; None for names and for what is none."""
    parts = text.split("/")
    if len(parts) < 3 or parts[1] not in ("ip4", "ip6") or "%" in parts[2]:  # A zone means something on one machine only.
        return None
    try:
        return ip_address(parts[2])
    except ValueError:
        return None
