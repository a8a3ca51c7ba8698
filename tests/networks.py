"""A network of namespaces that a test makes for itself: a world where everybody can be dialled, and homes behind real routers."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count

_numbers = count(os.getpid() % 10_000 * 10)

ROUTER = """
table ip home {
  chain in {
    type nat hook prerouting priority dstnat; policy accept;
  }
  chain out {
    type nat hook postrouting priority srcnat; policy accept;
    oifname "wan" masquerade
  }
  chain pass {
    type filter hook forward priority filter; policy drop;
    ct state established,related accept
    ct status dnat accept
    iifname "lan" accept
  }
}
"""


def can_make_networks() -> bool:
    """Whether this machine lets us: Linux, root, iproute2, and nftables with its kernel part."""
    if os.name != "posix" or os.geteuid() != 0 or not (shutil.which("ip") and shutil.which("nft")):
        return False
    probe = f"swarm-probe-{os.getpid()}"
    if not _try(f"ip netns add {probe}"):
        return False
    works = _try(f"ip netns exec {probe} nft -f -", ROUTER)
    return _try(f"ip netns del {probe}") and works


def _try(command: str, text: str = "") -> bool:
    return subprocess.run(command.split(), input=text, text=True, capture_output=True, check=False).returncode == 0


def _do(command: str, text: str = "") -> None:
    done = subprocess.run(command.split(), input=text, text=True, capture_output=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"


class Network:
    """Places by name. Those in the world are at 5.5.N.1; each home has 192.168.N.0/24 behind a router that is there."""

    def __init__(self) -> None:
        self._prefix = f"sw{next(_numbers)}"
        self._spaces: list[str] = []
        self._places: dict[str, str] = {}
        self._routers: dict[str, str] = {}
        self._world = self._space("w")
        self._in(self._world, "ip link add br0 type bridge")
        self._in(self._world, "ip link set br0 up")

    def place(self, name: str) -> str:
        """A place in the world; its address."""
        return self._attach(name, self._space(str(len(self._spaces))), "eth0")

    def home(self, name: str) -> str:
        """A place in a home whose router lets nobody in; its address there."""
        router, inside = self._space(f"r{len(self._spaces)}"), self._space(str(len(self._spaces)))
        self._attach(name, router, "wan")
        self._routers[name], self._places[name] = router, inside
        subnet = f"192.168.{len(self._spaces)}"
        _do(f"ip link add {router} type veth peer name {inside}")
        _do(f"ip link set {router} netns {router} name lan")
        _do(f"ip link set {inside} netns {inside} name eth0")
        self._set_up(router, "lan", f"{subnet}.1")
        self._set_up(inside, "eth0", f"{subnet}.20")
        self._in(inside, f"ip route add default via {subnet}.1")
        self._in(router, "sysctl -qw net.ipv4.ip_forward=1")
        self._in(router, "nft -f -", ROUTER)
        return f"{subnet}.20"

    def forward(self, name: str, address: str, port: int) -> None:
        """The router of a home lets others in at one port from now on."""
        self._in(self._routers[name], f"nft add rule ip home in iifname wan tcp dport {port} dnat to {address}:{port}")

    def cut(self, name: str) -> None:
        """Take the cable of a place out: packets vanish, and nobody is told."""
        self._in(self._world, f"ip link set {self._routers.get(name) or self._places[name]}o down")

    def plug(self, name: str) -> None:
        """Put it back in."""
        self._in(self._world, f"ip link set {self._routers.get(name) or self._places[name]}o up")

    def inside(self, name: str) -> tuple[str, ...]:
        """What a command begins with to run at a place."""
        return ("ip", "netns", "exec", self._places[name])

    def at_router(self, name: str) -> tuple[str, ...]:
        """What a command begins with to run on the router of a home."""
        return ("ip", "netns", "exec", self._routers[name])

    def close(self) -> None:
        for space in self._spaces:
            with suppress(AssertionError):
                _do(f"ip netns del {space}")

    def _space(self, suffix: str) -> str:
        space = f"{self._prefix}{suffix}"
        _do(f"ip netns add {space}")
        self._spaces.append(space)
        self._in(space, "ip link set lo up")
        return space

    def _attach(self, name: str, space: str, interface: str) -> str:
        """Put a cable from a space to the world."""
        self._places[name] = space
        address = f"5.5.{len(self._spaces)}.1"
        _do(f"ip link add {space}o type veth peer name {space}i")
        _do(f"ip link set {space}o netns {self._world}")
        _do(f"ip link set {space}i netns {space} name {interface}")
        self._in(self._world, f"ip link set {space}o master br0 up")
        self._set_up(space, interface, address, 16)
        return address

    def _set_up(self, space: str, interface: str, address: str, bits: int = 24) -> None:
        self._in(space, f"ip addr add {address}/{bits} dev {interface}")
        self._in(space, f"ip link set {interface} up")

    def _in(self, space: str, command: str, text: str = "") -> None:
        _do(f"ip netns exec {space} {command}", text)


@contextmanager
def network() -> Iterator[Network]:
    made = Network()
    try:
        yield made
    finally:
        made.close()
