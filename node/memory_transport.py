"""The verified fake: nodes of one process linked through memory, with the same links and bytes as over libp2p."""

from collections.abc import Callable, Iterable
from random import Random

import trio

from node.links import CLOSED_BY_PEER, Links, Pipe, PipeBroken, uninterrupted
from node.transport import Counts, ListenError, Post
from protocol.identity import Identity, NodeId, node_text
from protocol.messages import Message
from swarm.effects import Dial
from swarm.events import ContactsFound, DialledBack, RelayChanged
from swarm.values import MEMBERSHIP, Contact, Subject

PIPE_CHUNKS_MAX = 4  # As much as kernel and muxer would hold; a reader that stops soon stops the writer.

Accept = Callable[[Pipe], object]


class MemoryNetwork:
    """A switchboard of listening nodes, and the provider records that a DHT would hold."""

    def __init__(self) -> None:
        self._listeners: dict[str, tuple[NodeId, Accept]] = {}
        self._providers: dict[tuple[bytes, Subject], dict[NodeId, Contact]] = {}

    def listen(self, address: str, node: NodeId, accept: Accept) -> None:
        """Answer calls to `address` (`/memory/7`). Raises ListenError if somebody does already."""
        if address in self._listeners:
            raise ListenError(f"{address} is taken. Choose another address.")
        self._listeners[address] = (node, accept)

    def answers(self, address: str) -> NodeId | None:
        """Who listens there, if anybody does."""
        return self._listeners.get(address, (None, None))[0]

    def close(self, address: str) -> None:
        """Answer no more."""
        self._listeners.pop(address, None)

    def call(self, address: str, caller: NodeId, expected: NodeId | None, seen: str = "") -> Pipe:
        """A pipe to whoever listens there, who sees the caller at `seen`. Raises PipeBroken with the cause."""
        place = address.split("/p2p/")[0]
        if place not in self._listeners:
            raise PipeBroken(f"Nothing answers at {address}.")
        node, accept = self._listeners[place]
        if expected is not None and node != expected:
            raise PipeBroken(f"{address} answers, but as another node ({node_text(node)}).")
        near, far = pipe_pair(caller, node, seen, place)
        accept(far)
        return near

    def provide(self, swarm: bytes, subjects: Iterable[Subject], contact: Contact) -> None:
        """Replace a node's provider records."""
        assert contact.node is not None
        for records in self._providers.values():
            records.pop(contact.node, None)
        for subject in subjects:
            self._providers.setdefault((swarm, subject), {})[contact.node] = contact

    def providers(self, swarm: bytes, subject: Subject) -> tuple[Contact, ...]:
        """Who provides it."""
        return tuple(self._providers.get((swarm, subject), {}).values())


class MemoryPipe:
    """One end of a pipe pair. `peer` is at the other end, at the address `seen`."""

    relay: NodeId | None = None

    def __init__(
        self,
        peer: NodeId,
        incoming: trio.MemoryReceiveChannel[bytes],
        outgoing: trio.MemorySendChannel[bytes],
        seen: str = "",
    ) -> None:
        self.peer, self.seen = peer, seen
        self._incoming, self._outgoing = incoming, outgoing

    async def read(self) -> bytes:
        try:
            return await self._incoming.receive()
        except trio.EndOfChannel:
            return b""
        except (trio.ClosedResourceError, trio.BrokenResourceError) as error:
            raise PipeBroken(CLOSED_BY_PEER) from error

    async def write(self, data: bytes) -> None:
        try:
            await self._outgoing.send(data)
        except (trio.ClosedResourceError, trio.BrokenResourceError) as error:
            raise PipeBroken(CLOSED_BY_PEER) from error

    def end(self) -> None:
        self._outgoing.close()
        self._incoming.close()

    abort = end


def pipe_pair(
    near: NodeId, far: NodeId, near_seen: str = "", far_seen: str = ""
) -> tuple[MemoryPipe, MemoryPipe]:
    """Two ends of one pipe: that of `near` first. Each is seen by the other at an address."""
    to_far, at_far = trio.open_memory_channel[bytes](PIPE_CHUNKS_MAX)
    to_near, at_near = trio.open_memory_channel[bytes](PIPE_CHUNKS_MAX)
    return MemoryPipe(far, at_near, to_far, far_seen), MemoryPipe(near, at_far, to_near, near_seen)


class MemoryTransport:
    """A Transport whose wire is a MemoryNetwork. Works under any clock, trio's autojump clock too."""

    def __init__(
        self,
        network: MemoryNetwork,
        seed: bytes,
        swarm: bytes,
        name: str,
        listen: str,
        clock: Callable[[], float],
        dice: Random,
    ) -> None:
        identity = Identity(seed)
        self._network, self._swarm, self._listen = network, swarm, listen
        self._links = Links(identity, swarm, name, "starlings/memory", clock, dice)
        self._address = f"{listen}/p2p/{node_text(identity.node)}"
        self._nursery: trio.Nursery | None = None

    @property
    def node(self) -> NodeId:
        """Who this is."""
        return self._links.node

    @property
    def counts(self) -> Counts:
        """See `Counts`; a pipe is a connection and a stream in one."""
        return self._links.counts(len(self._links.up()), len(self._links.up()))

    async def run(self, post: Post, *, task_status: trio.TaskStatus[tuple[str, ...]]) -> None:
        self._network.listen(self._listen, self.node, self._links.accept)
        try:
            async with uninterrupted() as stop, trio.open_nursery() as nursery:
                self._nursery = nursery
                self._links.open(post, (self._address,), nursery)
                task_status.started((self._address,))
                await stop.wait()
                self._nursery = None
                await self._links.close()
                nursery.cancel_scope.cancel()
        finally:
            self._network.close(self._listen)
            self._network.provide(self._swarm, (), Contact(self.node, ()))

    def send(self, to: NodeId, message: Message) -> None:
        self._links.send(to, message)

    def dial(self, dial: Dial) -> None:
        self._links.dial(dial.contact, self._reach, dial.upgrade)

    def disconnect(self, node: NodeId, cause: str) -> None:
        self._links.disconnect(node, cause)

    def dial_back(self, node: NodeId, addresses: tuple[str, ...]) -> None:
        reached = tuple(address for address in addresses if self._network.answers(address) == node)
        self._links.post(DialledBack(node, reached))

    def use_relays(self, nodes: tuple[NodeId, ...]) -> None:
        for node in nodes:
            self._links.post(RelayChanged(node, ()))  # Everybody can be dialled, so nobody carries.

    def announce(self, addresses: tuple[str, ...]) -> None:
        self._links.addresses = addresses

    def provide(self, subjects: tuple[Subject, ...]) -> None:
        self._network.provide(self._swarm, (MEMBERSHIP, *subjects), Contact(self.node, (self._address,)))

    def find_providers(self, subject: Subject) -> None:
        if self._nursery is not None:
            self._nursery.start_soon(self._find, subject)

    async def _reach(self, contact: Contact) -> tuple[Pipe, str]:
        cause = "There is no address to dial."
        for address in contact.addresses:
            await trio.lowlevel.checkpoint()
            try:
                return self._network.call(address, self.node, contact.node, self._listen), address
            except PipeBroken as error:
                cause = str(error)
        raise PipeBroken(cause)

    async def _find(self, subject: Subject) -> None:
        await trio.lowlevel.checkpoint()
        contacts = tuple(c for c in self._network.providers(self._swarm, subject) if c.node != self.node)
        self._links.post(ContactsFound("dht", subject, contacts))
