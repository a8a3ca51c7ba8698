"""What the checks of `node.transport_contract` stand on: nodes that run, and every event that they have posted."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol, TypeVar

import trio

from node.links import Pipe
from node.transport import Transport, TransportEvent
from protocol.identity import Identity, NodeId
from swarm.effects import Dial
from swarm.events import NeighbourUp
from swarm.values import Contact

PATIENCE_S = 30.0  # A safety net for a transport that hangs, never part of a check.
SWARM, OTHER_SWARM = b"\1" * 32, b"\2" * 32
ALICE, BOB, CAROL = b"a" * 32, b"b" * 32, b"c" * 32

Event = TypeVar("Event", bound=TransportEvent)


class Bench(Protocol):
    """What the author of a transport supplies, so that the checks can build nodes and strangers."""

    def transport(self, seed: bytes, swarm: bytes, name: str, listen: str | None = None) -> Transport:
        """A node that is not running yet and listens on `listen`, or else on an address of its own."""

    def nowhere(self) -> str:
        """An address where nothing listens."""

    def clock(self) -> float:
        """The clock that the transports were given."""

    def stranger(self, seed: bytes, address: str) -> AbstractAsyncContextManager[Pipe]:
        """A bare pipe to a running node, dialled by somebody who says and reads only what the check wants."""


class Watched:
    """A running transport and every event that it has posted."""

    def __init__(self, transport: Transport, node: NodeId) -> None:
        self.transport, self.node = transport, node
        self.addresses: tuple[str, ...] = ()
        self.events: list[TransportEvent] = []
        self._changed = trio.Event()
        self._read = 0

    def post(self, event: TransportEvent) -> None:
        self.events.append(event)
        self._changed.set()

    async def next(self, kind: type[Event]) -> Event:
        """The next event of this kind; others before it are skipped."""
        while True:
            while self._read < len(self.events):
                event = self.events[self._read]
                self._read += 1
                if isinstance(event, kind):
                    return event
            self._changed = trio.Event()
            await self._changed.wait()

    def all(self, kind: type[Event]) -> list[Event]:
        """Every event of this kind so far."""
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def contact(self) -> Contact:
        return Contact(self.node, self.addresses)

    def dial(self, other: "Watched") -> None:
        self.transport.dial(Dial(other.contact, trusted=other.addresses))


@asynccontextmanager
async def running(
    bench: Bench, seed: bytes, swarm: bytes = SWARM, name: str = "", listen: str | None = None
) -> AsyncIterator[Watched]:
    """One node, from start to stop."""
    watched = Watched(bench.transport(seed, swarm, name, listen), Identity(seed).node)
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            watched.addresses = await nursery.start(watched.transport.run, watched.post)
            yield watched
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def linked(bench: Bench) -> AsyncIterator[tuple[Watched, Watched]]:
    """Two nodes, the first of which has dialled the second."""
    async with running(bench, ALICE, name="alice") as alice, running(bench, BOB, name="bob") as bob:
        alice.dial(bob)
        up = await alice.next(NeighbourUp)
        assert (up.node, up.name, up.addresses, up.dialled) == (bob.node, "bob", bob.addresses, bob.addresses[0])
        up = await bob.next(NeighbourUp)
        assert (up.node, up.name, up.addresses, up.dialled) == (alice.node, "alice", alice.addresses, "")
        yield alice, bob
