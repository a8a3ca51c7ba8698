"""Asks the home router, by UPnP, to let others in at this node's port. Whether they get in, they say themselves (`reach`).

The library's own manager takes a port for ever and calls it "py-libp2p"; this one takes it for an hour at a time, renews it, and
gives it back. miniupnpc does the talking, in a thread, since it blocks.
"""

import logging
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import Any, Literal

import trio

LEASE_S = 3600
RENEW_S = 1800.0  # Also after a failure: somebody may have switched it on.
SEARCH_MS = 2000  # For a router to answer.
CLOSE_S = 2.0  # For giving the port back.
NAME = "starlings"

State = Literal["off", "searching", "none", "refused", "mapped"]

log = logging.getLogger(__name__)


class RouterPort:
    """One port of the router, as long as `run` runs. `state` is for people."""

    def __init__(self, places: Sequence[tuple[str, int]], opened: Callable[[], None]) -> None:
        """`places` are where this node listens; only a private address of IPv4 is behind a router of this kind.

        `opened` is called when the router has begun to let others in.
        """
        self._opened = opened
        self._port = next((port for host, port in places if _is_private(host)), None)
        self.state: State = "off" if self._port is None else "searching"

    async def run(self) -> None:
        """Hold the port until cancelled, then give it back."""
        if self._port is None:
            return
        gateway: Any = None
        try:
            while True:
                before = self.state
                # A lease that was not renewed now goes on for half an hour.
                gateway = await trio.to_thread.run_sync(self._map, self._port, abandon_on_cancel=True) or gateway
                if self.state == "mapped" != before:
                    log.info("the router forwards port %d to this node", self._port)
                    self._opened()
                await trio.sleep(RENEW_S)
        finally:
            if gateway is not None:
                with trio.CancelScope(shield=True), trio.move_on_after(CLOSE_S):
                    await trio.to_thread.run_sync(_unmap, gateway, self._port, abandon_on_cancel=True)

    def _map(self, port: int) -> Any:
        """The gateway that has given the port, None if there is none or it has not."""
        import miniupnpc  # Here, since most nodes never ask a router.

        gateway = miniupnpc.UPnP()
        gateway.discoverdelay = SEARCH_MS
        try:
            if not gateway.discover():
                self.state = "none"
                return None
            gateway.selectigd()
        except Exception as error:  # It raises plain exceptions, some of which say "Success".
            log.info("no router that speaks UPnP: %s", error)
            self.state = "none"
            return None
        try:
            gateway.addportmapping(port, "TCP", gateway.lanaddr, port, NAME, "", LEASE_S)
        except Exception as error:
            log.info("the router does not forward port %d: %s", port, error)
            self.state = "refused"
            return None
        self.state = "mapped"
        return gateway


def _unmap(gateway: Any, port: int) -> None:
    try:
        gateway.deleteportmapping(port, "TCP")
    except Exception as error:
        log.info("the router keeps port %d until its lease ends: %s", port, error)


def _is_private(host: str) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return address.version == 4 and address.is_private and not address.is_loopback
