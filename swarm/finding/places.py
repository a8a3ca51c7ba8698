"""What an address says: whether it can be told to others, where it is, roughly, and whether a stranger's word is reason to dial it.

Whatever comes from outside passes here before it becomes a part of what this node says itself: what no message can hold would be
its own mistake then.
"""

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address

from protocol.limits import ADDRESS_BYTES_MAX

PER_PLACE_MAX = 16  # A household, an office or a laboratory has about that many nodes behind one public address.
_PORT = re.compile("[1-9][0-9]{0,4}", re.ASCII)


def fits(address: str) -> bool:
    """Whether a message can hold it: its bound is one of bytes, and some characters have none."""
    try:
        return len(address.encode()) <= ADDRESS_BYTES_MAX
    except UnicodeEncodeError:
        return False


def place_of(addresses: tuple[str, ...]) -> str:
    """The /24 of an IPv4 multiaddress or the /48 of an IPv6 one, of the first address; other addresses are their own place.

    One operator's machines share a place, so nothing should hang on a single one.
    """
    if not addresses:
        return ""
    parts = addresses[0].split("/")
    if len(parts) > 2 and parts[1] == "ip4":
        return "/ip4/" + ".".join(parts[2].split(".")[:3])
    if len(parts) > 2 and parts[1] == "ip6":
        return "/ip6/" + ":".join(parts[2].split(":")[:3])
    return addresses[0]


def public_place(addresses: tuple[str, ...]) -> str:
    """The place of a public address; empty for all others: at home everybody is at one place."""
    return place_of(addresses) if is_public(addresses) else ""


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

    Otherwise anybody could make others knock at the printers and routers of their homes.
    """
    # Where a relay is says nothing of this node's own network, and is the word of the relay.
    near = [host for text in own if not is_relayed(text) and (host := _host(text)) is not None and not host.is_global]
    return tuple(text for text in addresses if (host := _host(text)) is None or _is_dialable(host, near))


def _is_dialable(host: IPv4Address | IPv6Address, near: list[IPv4Address | IPv6Address]) -> bool:
    if host.is_unspecified or host.is_multicast:
        return False
    if host.is_global:
        return True
    bits = 16 if host.version == 4 else 48
    return any(
        host.version == own.version
        and host.is_loopback == own.is_loopback
        and int(host) >> (host.max_prefixlen - bits) == int(own) >> (own.max_prefixlen - bits)
        for own in near
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
