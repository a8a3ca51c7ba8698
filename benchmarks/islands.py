"""A second network on this machine, joined by a virtual cable that can be cut without a word. Needs Linux, root and `ip`."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

NOBODY = "02:00:00:00:00:01"  # A hardware address that no interface has: frames to it vanish, and nobody is told.


class Island:
    """`here` and `there` are the addresses at the two ends; a command that begins with `inside` runs over there."""

    def __init__(self) -> None:
        number = os.getpid()
        self._name, self._near, self._far = f"starlings-{number}", f"sl{number}a", f"sl{number}b"
        network = f"10.{200 + number % 50}.{number // 50 % 250}"
        self.here, self.there = f"{network}.1", f"{network}.2"
        self.inside = ("ip", "netns", "exec", self._name)

    def build(self) -> None:
        _ip("netns", "add", self._name)
        _ip("link", "add", self._near, "type", "veth", "peer", "name", self._far, "netns", self._name)
        _ip("addr", "add", f"{self.here}/24", "dev", self._near)
        _ip("link", "set", self._near, "up")
        over_there = (*self.inside[1:], "ip")
        _ip(*over_there, "addr", "add", f"{self.there}/24", "dev", self._far)
        _ip(*over_there, "link", "set", self._far, "up")
        _ip(*over_there, "link", "set", "lo", "up")

    def cut(self) -> None:
        """From now on nothing arrives, on either side; no connection is closed, no error comes back."""
        _ip("neigh", "replace", self.there, "lladdr", NOBODY, "dev", self._near, "nud", "permanent")
        _ip(*self.inside[1:], "ip", "neigh", "replace", self.here, "lladdr", NOBODY, "dev", self._far, "nud", "permanent")

    def remove(self) -> None:
        """The cable goes with the namespace."""
        subprocess.run(["ip", "netns", "del", self._name], capture_output=True, check=False)


@contextmanager
def island() -> Iterator[Island | None]:
    """None where it cannot be made."""
    made = Island()
    able = shutil.which("ip") is not None and hasattr(os, "geteuid") and os.geteuid() == 0
    try:
        if able:
            made.build()
    except subprocess.CalledProcessError:
        able = False
    try:
        yield made if able else None
    finally:
        if able:
            made.remove()


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], capture_output=True, check=True)
