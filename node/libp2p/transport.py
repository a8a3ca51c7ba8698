"""The Transport over libp2p: one warm stream per peer on a host with explicit options, the DHT and mDNS as finders."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from random import Random
from typing import Any

import trio
from libp2p.host.basic_host import BasicHost
from libp2p.network.stream.net_stream import NetStream
from libp2p.peer.id import ID
from libp2p.protocol_muxer.exceptions import MultiselectClientError
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from multiaddr import Multiaddr

from node.libp2p import addresses
from node.libp2p.connections import Connections, close_all
from node.libp2p.dialling import DialError, Target, dial_any
from node.libp2p.host import HANDSHAKE_S, HUSHED, alive, build_host, network_of, node_of, peer_of
from node.libp2p.pipes import StreamPipe
from node.libp2p.rendezvous import Rendezvous
from node.links import Links, Pipe, PipeBroken, uninterrupted
from node.transport import Counts, ListenError, Post, TransportEvent
from protocol.identity import Identity, NodeId, node_text
from protocol.messages import Message
from swarm.effects import Dial
from swarm.events import ContactsFound, NeighbourUp
from swarm.values import Contact

WIRE = "/starlings/wire/1"
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
    ) -> None:
        """`clock` gives Unix seconds that never step back. `announce` replaces the addresses that others are told."""
        identity = Identity(identity_seed)
        self._seed, self._listen, self._announce, self._mdns = identity_seed, listen, announce, mdns
        self._swarm = swarm
        self._links = Links(identity, swarm, name, agent, clock, dice)
        self._reachable: list[Multiaddr] = []
        self._dice = dice
        self._host: BasicHost | None = None
        self._rendezvous: Rendezvous | None = None
        self._provided: tuple[str, ...] = ()
        self._nursery: trio.Nursery | None = None

    @property
    def node(self) -> NodeId:
        """Who this is."""
        return self._links.node

    @property
    def counts(self) -> Counts:
        """See `Counts`; streams are those of all protocols."""
        connections = alive(network_of(self._host)) if self._host is not None else []
        return self._links.counts(len(connections), sum(len(each.get_streams()) for each in connections))

    async def run(self, post: Post, *, task_status: trio.TaskStatus[tuple[str, ...]]) -> None:
        wanted = addresses.parse_listen(self._listen)
        self._reachable = addresses.parse_announce(self._announce)
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
        own = node_text(self.node)
        rendezvous = Rendezvous(host, self._swarm, self.node, self._dice, self._links.post, nursery)
        rendezvous.provide(self._provided)

        def post_and_note(event: TransportEvent) -> None:
            if isinstance(event, NeighbourUp):
                nursery.start_soon(rendezvous.met, event.node, event.addresses)
            post(event)

        self._rendezvous = rendezvous
        self._links.open(post_and_note, tuple(f"{address}/p2p/{own}" for address in self._reachable), nursery)
        host.set_stream_handler(WIRE, self._accept)
        nursery.start_soon(rendezvous.run)
        nursery.start_soon(Connections(network_of(host), self._is_neighbour).run)
        if self._mdns:
            nursery.start_soon(self._run_mdns)

    async def _run_mdns(self) -> None:
        from node.libp2p.mdns import Mdns  # Five megabytes that a node without it need not spend.

        def found(contact: Contact) -> None:
            self._links.post(ContactsFound("mdns", "", (contact,)))

        await Mdns(self._swarm, self.node, self._links.addresses, found).run()

    def send(self, to: NodeId, message: Message) -> None:
        self._links.send(to, message)

    def dial(self, dial: Dial) -> None:
        self._links.dial(dial.contact, self._reach)

    def disconnect(self, node: NodeId, cause: str) -> None:
        self._links.disconnect(node, cause)

    def provide(self, skills: tuple[str, ...]) -> None:
        self._provided = skills
        if self._rendezvous is not None:
            self._rendezvous.provide(skills)

    def find_providers(self, skill: str) -> None:
        if self._rendezvous is not None and self._nursery is not None:
            self._rendezvous.find(skill)

    def _is_neighbour(self, peer: ID) -> bool:
        try:
            return self._links.is_up(node_of(peer))
        except ValueError:
            return False

    async def _accept(self, stream: NetStream) -> None:
        if self._nursery is None:
            await stream.reset()
            return
        await self._links.accept(StreamPipe(stream, self._nursery)).wait()

    async def _reach(self, contact: Contact) -> tuple[Pipe, str]:
        assert self._host is not None and self._nursery is not None
        network = network_of(self._host)
        try:
            targets, expected = _targets(contact)
            for connection in alive(network, expected) if expected is not None else []:
                with suppress(PipeBroken):  # It may be dying unnoticed; then a fresh one is dialled.
                    return await self._open_wire(connection, targets[0].text), targets[0].text
            connection, text = await dial_any(network, targets, expected)
        except (DialError, ValueError) as error:
            raise PipeBroken(str(error)) from error
        return await self._open_wire(connection, text), text

    async def _open_wire(self, connection: Any, address: str) -> Pipe:
        assert self._host is not None and self._nursery is not None
        try:
            stream = await connection.new_stream()
            try:
                await self._host.multiselect_client.select_one_of([WIRE], MultiselectCommunicator(stream), HANDSHAKE_S)
            except BaseException:
                await stream.reset()
                raise
            return StreamPipe(stream, self._nursery)
        except (MultiselectClientError, ValueError) as error:
            raise PipeBroken(f"{address} answers, but is not a starlings node.") from error
        except Exception as error:
            raise PipeBroken(f"{address} answers, but closed the connection.") from error


def _targets(contact: Contact) -> tuple[list[Target], ID | None]:
    """What to dial, and whom to expect there, if known. Raises ValueError with a sentence for people."""
    expected = None if contact.node is None else peer_of(contact.node)
    targets = []
    for text in contact.addresses:
        address, named = addresses.split(text)
        if expected is not None and named is not None and named != expected:
            raise ValueError(f"{text} names another node than {expected}.")
        expected = expected or named
        targets.append(Target(text, address))
    if not targets:
        raise ValueError("There is no address to dial.")
    return targets, expected
