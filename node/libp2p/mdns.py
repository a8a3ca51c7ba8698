"""Finds members of the swarm on the local network by multicast DNS, and lets them find this node.

The service name is a digest of the swarm, so only those who know the swarm know what to look for. zeroconf lives in threads of
its own and starts slowly (it asks three times whether a name is taken); nothing here makes the node wait for it.
"""

import logging
import threading
from collections.abc import Callable
from hashlib import sha256

import trio
import zeroconf
from zeroconf import ServiceBrowser, ServiceInfo, ServiceStateChange, Zeroconf

from node.libp2p.addresses import is_loopback, split
from node.libp2p.host import node_of
from protocol.identity import NodeId, node_text
from protocol.limits import ADDRESSES_MAX
from swarm.values import Contact

DOMAIN = b"starlings/1/mdns\0"
ANSWER_MS = 3_000  # For the details of a name that has been seen.
NAMES_MAX = 256  # Different nodes on one local network; more is somebody playing.
STOP_S = 2.0  # To say goodbye to the local network.

log = logging.getLogger(__name__)


def service_of(swarm: bytes) -> str:
    """The service type of a swarm. DNS-SD allows fifteen characters."""
    return f"_sw{sha256(DOMAIN + swarm).hexdigest()[:12]}._tcp.local."


class Mdns:
    """One node's part in multicast DNS."""

    def __init__(
        self, swarm: bytes, node: NodeId, addresses: tuple[str, ...], found: Callable[[Contact], None]
    ) -> None:
        self._service, self._node, self._addresses, self._found = service_of(swarm), node, addresses, found
        self._seen: set[str] = set()
        self._lock = threading.Lock()
        self._stopped = False
        self._zeroconf: Zeroconf | None = None

    async def run(self) -> None:
        """Announce and listen until cancelled. Returns at once, with a line in the log, where there is no multicast."""
        token = trio.lowlevel.current_trio_token()

        def tell(contact: Contact) -> None:
            try:
                token.run_sync_soon(self._found, contact)
            except trio.RunFinishedError:
                pass  # The node is gone; so is the reason.

        try:
            await trio.to_thread.run_sync(self._start, tell, abandon_on_cancel=True)
            await trio.sleep_forever()
        except (OSError, zeroconf.Error) as error:
            log.info("no discovery on the local network: %s", error)
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(STOP_S):
                await trio.to_thread.run_sync(self._stop, abandon_on_cancel=True)

    def _start(self, tell: Callable[[Contact], None]) -> None:
        places = [split(address)[0] for address in self._addresses]
        # A node that only this machine can reach has no business on the network.
        local = all(is_loopback(place) for place in places)
        zeroconf_ = Zeroconf(interfaces=["127.0.0.1"] if local else zeroconf.InterfaceChoice.All)
        with self._lock:
            self._zeroconf = zeroconf_
            stopped = self._stopped
        if stopped:
            zeroconf_.close()
            return

        def changed(zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
            if state_change is ServiceStateChange.Removed:
                self._seen.discard(name)
            elif len(self._seen) < NAMES_MAX:
                self._seen.add(name)
                contact = self._contact(zeroconf.get_service_info(service_type, name, ANSWER_MS))
                if contact is not None:
                    tell(contact)

        ServiceBrowser(zeroconf_, self._service, handlers=[changed])
        name = node_text(self._node)
        zeroconf_.register_service(
            ServiceInfo(
                self._service,
                f"{name}.{self._service}",
                port=1,  # As is the address below: a record is incomplete without them, and the properties say more.
                addresses=[b"\x7f\0\0\1"],
                properties={f"a{place}": address for place, address in enumerate(self._addresses)},
                server=f"{name}.local.",
            )
        )

    def _stop(self) -> None:
        with self._lock:
            self._stopped = True
            running = self._zeroconf
        if running is not None:
            running.close()

    def _contact(self, info: ServiceInfo | None) -> Contact | None:
        """What a service record says, if it makes sense: anybody on the network may write one."""
        if info is None:
            return None
        texts = [text for key, text in info.decoded_properties.items() if key.startswith("a") and text][:ADDRESSES_MAX]
        try:
            peers = {split(text)[1] for text in texts}
            if len(peers) != 1:
                return None
            peer = peers.pop()
            node = None if peer is None else node_of(peer)
        except ValueError:
            return None
        return None if node is None or node == self._node else Contact(node, tuple(texts))
