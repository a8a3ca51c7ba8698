"""The Transport over libp2p: one warm stream per peer on a host with explicit options, the DHT and mDNS as finders."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from random import Random
from typing import Any

import trio
from libp2p.abc import INetStream
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.peer.id import ID
from libp2p.protocol_muxer.exceptions import MultiselectClientError
from multiaddr import Multiaddr

from node.libp2p import addresses
from node.libp2p.addresses import host_and_port
from node.libp2p.circuits import HOP, STOP, is_relayed, open_stream
from node.libp2p.connections import Connections, alive, close_all
from node.libp2p.dialling import DialError, Target, answers, dial_any
from node.libp2p.host import HANDSHAKE_S, HUSHED, build_host, network_of, node_of, peer_of
from node.libp2p.pipes import StreamPipe
from node.libp2p.relaying import Relay
from node.libp2p.rendezvous import Rendezvous
from node.libp2p.reserving import Reservations
from node.libp2p.router import RouterPort
from node.links import Links, Pipe, PipeBroken, uninterrupted
from node.transport import Counts, ListenError, Post, TransportEvent
from protocol.identity import Identity, NodeId, node_text
from protocol.messages import Message
from swarm.effects import Dial
from swarm.events import AddressesChanged, CarriedChanged, ContactsFound, DialledBack, NeighbourDown, NeighbourUp
from swarm.finding.places import fits
from swarm.finding.places import is_relayed as is_relayed_address
from swarm.values import MEMBERSHIP, Contact, Subject

WIRE = TProtocol("/starlings/wire/1")
NETWORKS_S = 20.0  # Between looks at which networks this machine is in.
log = logging.getLogger(__name__)

CLOSE_S = 3.0  # For the library to take its own tasks down; then they are cancelled.


class Libp2pTransport:
    """See `node.transport.Transport`. One instance runs once."""

    def __init__(
        self,
        identity_seed: bytes,
        swarm: bytes,
        name: str,
        agent: str,
        listen: Sequence[str],
        announce: Sequence[str],
        mdns: bool,
        clock: Callable[[], float],
        dice: Random,
        carried_max: int = 0,
        upnp: bool = False,
    ) -> None:
        """`clock` gives Unix seconds that never step back. `announce` replaces the addresses that others are told.

        `carried_max` neighbours are carried for, as a relay; `upnp` asks the router to let others in.
        """
        identity = Identity(identity_seed)
        self._seed, self._listen, self._announce, self._mdns = identity_seed, listen, announce, mdns
        self._swarm = swarm
        self._links = Links(identity, swarm, name, agent, clock, dice)
        self._reachable: list[Multiaddr] = []
        self._local: list[Multiaddr] = []  # Where this machine says that it can be dialled, whatever others have found out.
        self._moved = trio.Event()  # Into other networks.
        self._carried_max = carried_max
        self._relay: Relay | None = None
        self._reservations: Reservations | None = None
        self._upnp = upnp
        self._port: RouterPort | None = None
        self._dice = dice
        self._host: BasicHost | None = None
        self._rendezvous: Rendezvous | None = None
        self._provided: tuple[Subject, ...] = ()
        self._nursery: trio.Nursery | None = None

    @property
    def node(self) -> NodeId:
        """Who this is."""
        return self._links.node

    @property
    def counts(self) -> Counts:
        """See `Counts`; streams are those of all protocols."""
        connections = alive(network_of(self._host)) if self._host is not None else []
        counts = self._links.counts(len(connections), sum(len(each.get_streams()) for each in connections))
        refused = self._rendezvous.refused if self._rendezvous is not None else {}
        router = self._port.state if self._port is not None else "off"
        return replace(counts, offences={**counts.offences, **refused}, router=router)

    async def run(self, post: Post, *, task_status: trio.TaskStatus[tuple[str, ...]]) -> None:
        wanted = addresses.parse_listen(self._listen)
        self._reachable = addresses.parse_announce(self._announce, self.node)
        addresses.check_free(wanted)
        host = build_host(self._seed, lambda: self._reachable)
        missing: list[Multiaddr] = []
        with HUSHED:
            async with uninterrupted() as stop, host.run(wanted):
                missing = [address for address in wanted if str(address) not in network_of(host).listeners]
                if not missing:
                    async with trio.open_nursery() as nursery:
                        self._open(host, nursery, post)
                        task_status.started(self._links.addresses)
                        await stop.wait()
                        self._nursery = None
                        await self._links.close()
                        nursery.cancel_scope.cancel()  # Or lookups would go on dialling while the host closes.
                with trio.move_on_after(CLOSE_S):
                    await close_all(network_of(host))
                    await host.close()  # Left to `host.run`, sockets leak.
        if missing:
            raise ListenError(f"{missing[0]} cannot be listened on. Choose another address with --listen.")

    def _open(self, host: BasicHost, nursery: trio.Nursery, post: Post) -> None:
        self._host, self._nursery = host, nursery
        self._reachable = self._reachable or addresses.reachable(host.get_transport_addrs())
        self._local = self._reachable
        rendezvous = Rendezvous(host, self._swarm, self.node, self._dice, self._links.post, nursery)
        rendezvous.provide(self._provided)

        network = network_of(host)

        def post_and_note(event: TransportEvent) -> None:
            if isinstance(event, NeighbourUp):
                nursery.start_soon(rendezvous.met, event.node, event.addresses)
            elif isinstance(event, NeighbourDown) and self._relay is not None:
                self._relay.unlinked(peer_of(event.node))
            post(event)

        self._rendezvous = rendezvous
        self._links.open(post_and_note, self._named(self._local), nursery)
        host.set_stream_handler(WIRE, self._accept)
        self._reservations = Reservations(network, self._links.post, nursery)
        host.set_stream_handler(STOP, self._reservations.accept)
        if self._carried_max:
            self._relay = Relay(
                network,
                lambda: [address for address in self._reachable if not is_relayed_address(str(address))],
                self._is_neighbour,
                lambda nodes: self._links.post(CarriedChanged(nodes)),
                self._carried_max,
            )
            host.set_stream_handler(HOP, self._relay.serve)
        nursery.start_soon(rendezvous.run)
        nursery.start_soon(Connections(network, self._is_neighbour).run)
        if not self._announce:
            nursery.start_soon(self._watch_networks, host)
        if self._upnp:
            nursery.start_soon(self._in_each_network, self._hold_port)
        if self._mdns:
            nursery.start_soon(self._in_each_network, self._run_mdns)

    async def _in_each_network(self, run: Callable[[], Awaitable[None]]) -> None:
        """Run it anew whenever this machine has moved: what it has found out, and told others, was about another network."""
        while True:
            moved = self._moved
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run)
                await moved.wait()
                nursery.cancel_scope.cancel()

    async def _hold_port(self) -> None:
        self._port = RouterPort([host_and_port(address) for address in self._local], self._tell_local)
        await self._port.run()

    async def _run_mdns(self) -> None:
        from node.libp2p.mdns import Mdns  # Five megabytes that a node without it need not spend.

        def found(contact: Contact) -> None:
            self._links.post(ContactsFound("mdns", MEMBERSHIP, (contact,)))

        await Mdns(self._swarm, self.node, self._named(self._local), found).run()

    async def _watch_networks(self, host: BasicHost) -> None:
        """A laptop is carried from one network to another, and nobody tells this process."""
        while True:
            await trio.sleep(NETWORKS_S)
            found = addresses.reachable(host.get_transport_addrs())
            if found != self._local:
                self._local = found
                self._moved.set()
                self._moved = trio.Event()
                self._tell_local()

    def _tell_local(self) -> None:
        """Whatever was found out about being reached does not hold any more."""
        self._links.post(AddressesChanged(self._named(self._local)))

    def _named(self, reachable: Sequence[Multiaddr]) -> tuple[str, ...]:
        return tuple(f"{address}/p2p/{node_text(self.node)}" for address in reachable)

    def send(self, to: NodeId, message: Message) -> None:
        self._links.send(to, message)

    def dial(self, dial: Dial) -> None:
        self._links.dial(dial.contact, partial(self._reach, trusted=dial.trusted, directly=dial.upgrade), dial.upgrade)

    def dial_back(self, node: NodeId, addresses: tuple[str, ...]) -> None:
        if self._nursery is not None:
            self._nursery.start_soon(self._dial_back, node, addresses)

    async def _dial_back(self, node: NodeId, texts: tuple[str, ...]) -> None:
        assert self._host is not None
        reached = []
        for text in texts:
            try:
                target = Target(text, addresses.split(text)[0])
            except ValueError:  # A peer may claim anything to be its address.
                continue
            if await answers(network_of(self._host), target, peer_of(node)):
                reached.append(text)
        self._links.post(DialledBack(node, tuple(reached)))

    def use_relays(self, nodes: tuple[NodeId, ...]) -> None:
        if self._reservations is not None:
            self._reservations.use(nodes)

    def announce(self, addresses: tuple[str, ...]) -> None:
        told: dict[str, Multiaddr] = {}
        for text in filter(fits, addresses):
            try:
                told[text] = Multiaddr(_without_own(text))
            except Exception as error:  # Neighbours and relays have named some, and the library raises whatever it meets.
                log.warning("not announced, for it is no address: %r (%r)", text, error)
        self._links.addresses, self._reachable = tuple(told), list(told.values())
        if self._rendezvous is not None:
            self._rendezvous.moved()

    def disconnect(self, node: NodeId, cause: str) -> None:
        self._links.disconnect(node, cause)

    def provide(self, subjects: tuple[Subject, ...]) -> None:
        self._provided = subjects
        if self._rendezvous is not None:
            self._rendezvous.provide(subjects)

    def find_providers(self, subject: Subject) -> None:
        if self._rendezvous is not None and self._nursery is not None:
            self._rendezvous.find(subject)

    def _is_neighbour(self, peer: ID) -> bool:
        try:
            return self._links.is_up(node_of(peer))
        except ValueError:
            return False

    async def _accept(self, stream: INetStream) -> None:
        if self._nursery is None:
            await stream.reset()
            return
        await self._links.accept(StreamPipe(stream, self._nursery)).wait()

    async def _reach(self, contact: Contact, trusted: tuple[str, ...], directly: bool) -> tuple[Pipe, str]:
        """A pipe to a node; `directly`: one that no relay carries."""
        assert self._host is not None and self._nursery is not None
        network = network_of(self._host)
        try:
            targets, expected = _targets(contact, trusted, tuple(map(str, self._reachable)))
            if directly:
                targets = [target for target in targets if target.relay is None]
            there = sorted(alive(network, expected), key=is_relayed) if expected is not None else []
            for connection in there:
                if directly and is_relayed(connection):
                    continue
                with suppress(PipeBroken):  # It may be dying unnoticed; then a fresh one is dialled.
                    return await self._open_wire(connection, targets[0].text), targets[0].text
            connection, text = await dial_any(network, targets, expected)
        except (DialError, ValueError) as error:
            raise PipeBroken(str(error)) from error
        return await self._open_wire(connection, text), text

    async def _open_wire(self, connection: Any, address: str) -> Pipe:
        assert self._nursery is not None
        try:
            stream = await open_stream(connection, WIRE, HANDSHAKE_S)
            try:
                return StreamPipe(stream, self._nursery)
            except ValueError:
                await stream.reset()
                raise
        except (MultiselectClientError, ValueError) as error:
            raise PipeBroken(f"{address} answers, but is not a starlings node.") from error
        except Exception as error:
            raise PipeBroken(f"{address} answers, but closed the connection.") from error


def _without_own(address: str) -> str:
    """What provider records say: the node is named beside it, except behind a relay."""
    return address if is_relayed_address(address) else address.partition("/p2p/")[0]


def _targets(contact: Contact, trusted: tuple[str, ...], near: tuple[str, ...]) -> tuple[list[Target], ID | None]:
    """What to dial, and whom to expect there, if known. Raises ValueError with a sentence for people if nothing is left.

    What cannot be dialled is left out: strangers may have named it beside what can.
    """
    expected = None if contact.node is None else peer_of(contact.node)
    targets, wrong = [], ValueError("There is no address to dial.")
    for text in sorted(contact.addresses, key=is_relayed_address):
        try:
            address, relay, named = _read(text)
            if expected is not None and named is not None and named != expected:
                raise ValueError(f"{text} names another node than {expected}.")
        except ValueError as error:
            wrong = error
            continue
        expected = expected or named
        targets.append(Target(text, address, relay, None if text in trusted else near))
    if not targets:
        raise wrong
    return targets, expected


def _read(text: str) -> tuple[Multiaddr, ID | None, ID | None]:
    """An address, the relay that it leads through, and the peer that it names."""
    if is_relayed_address(text):
        return addresses.split_circuit(text)
    address, named = addresses.split(text)
    return address, None, named
