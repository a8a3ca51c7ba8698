"""The links of one node over any byte streams: greeting, one link per peer, order, bounded queues; for every transport.

Nothing here cancels a read or a write that is under way, because a cancelled py-libp2p call can ruin the connection
that it shares with others: what takes too long has its pipe ended instead, and the call then ends by itself.

Which link stays when two nodes dial each other at once: a side greets on a pipe only while it knows no better one, so a
Hello from the peer means that the peer has no other link, or one over a relay where the pipe is direct. Only the side
with the smaller NodeId may have greeted on its own pipe just before; it holds the peer's pipe back until its own is up
or gone. So the link dialled by the smaller NodeId is kept.
"""

import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

import trio

from node.outbox import Outbox
from node.transport import Counts, Post, TransportEvent
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.identity import Identity, NodeId
from protocol.link import Link
from protocol.messages import Goodbye, Hello, Message, TaskRequest
from swarm.events import DialFailed, NeighbourDown, NeighbourUp, Received, Undelivered
from swarm.values import Contact

GREETING_S = 5.0  # Both Hellos; a healthy peer needs two round trips.
HOLD_S = 2.0  # For a peer that comes again while its old link looks alive. Well under GREETING_S, which it waits.
DRAIN_S = 0.5  # For the last words (Goodbye) of a link that we close.
DIALS_MAX = 16  # At once; more wait their turn. A node has 8 to 12 neighbours.
WAITING_MESSAGES_MAX = 64  # For one peer that is being dialled: as many as attempts may be open on one link.

CLOSED_BY_PEER = "The peer closed the connection."
NOT_READING = "The peer does not read what is sent to it."
REPLACED = "The peer opened a new connection."

log = logging.getLogger(__name__)


class PipeBroken(Exception):
    """The pipe has ended in disorder. The message is a sentence for people."""


class Pipe(Protocol):
    """One ordered byte stream with one peer whose identity the transport has proved."""

    @property
    def peer(self) -> NodeId:
        """Who is at the other end."""

    @property
    def seen(self) -> str:
        """Where the other end is, as this machine sees it, without a port; empty if that is not known."""

    @property
    def relay(self) -> NodeId | None:
        """Who carries the pipe, if it is not direct."""

    async def read(self) -> bytes:
        """Some bytes, or none at the orderly end. Raises PipeBroken."""

    async def write(self, data: bytes) -> None:
        """Returns once `data` may be followed by more. Raises PipeBroken."""

    def end(self) -> None:
        """Give this stream up and leave its connection alone. Reads and writes then end; never blocks."""

    def abort(self) -> None:
        """Cut the whole connection, even if the peer is frozen. Reads and writes then end; never blocks."""


Reach = Callable[[Contact], Awaitable[tuple[Pipe, str]]]
"""Opens a pipe to a contact; the text is the address that answered. Raises PipeBroken with a sentence for people."""


@dataclass(eq=False, slots=True)
class Session:
    """One pipe and the link over it. `address` is what was dialled, or None if the peer dialled us."""

    pipe: Pipe
    link: Link
    address: str | None
    outbox: Outbox = field(default_factory=Outbox)
    is_up: bool = False
    hello: Hello | None = None
    cause: str = ""  # Why it ended, a sentence for people.
    settled: trio.Event = field(default_factory=trio.Event)  # Up, or ended before.
    gone: trio.Event = field(default_factory=trio.Event)
    written: trio.Event = field(default_factory=trio.Event)  # Nothing more will be written.


class Links:
    """The table of links. All methods are called from the transport's own trio loop; only `carry` and `close` wait."""

    def __init__(
        self, identity: Identity, swarm: bytes, name: str, agent: str, clock: Callable[[], float], dice: Random
    ) -> None:
        self.node = identity.node
        self.addresses: tuple[str, ...] = ()
        self._offences: Counter[str] = Counter()
        self._sent_bytes: Counter[str] = Counter()
        self._received_bytes = 0
        self._identity, self._swarm, self._name, self._agent = identity, swarm, name, agent
        self._clock, self._dice = clock, dice
        self._post: Post = _ignore
        self._nursery: trio.Nursery | None = None
        self._sessions: list[Session] = []
        self._up: dict[NodeId, Session] = {}
        self._greeting: dict[NodeId, Session] = {}  # Our own dials on which we have said Hello.
        self._dials: dict[NodeId, int] = {}
        self._dial_slots = trio.CapacityLimiter(DIALS_MAX)
        self._waiting: dict[NodeId, list[Message]] = {}
        self._unfit: dict[type[Message], None] = {}  # What was told in the log once.

    def open(self, post: Post, addresses: tuple[str, ...], nursery: trio.Nursery) -> None:
        """Begin to post events; `addresses` are what our Hellos say. `nursery` must not end
        before `close` has."""
        self._post, self.addresses, self._nursery = post, addresses, nursery

    def post(self, event: TransportEvent) -> None:
        """Hand an event to the driver, unless the transport is closing."""
        self._post(event)

    def is_up(self, node: NodeId) -> bool:
        """Whether a link with this peer is up."""
        return node in self._up

    def up(self) -> list[NodeId]:
        """Every peer with a link, the oldest link first."""
        return list(self._up)

    def counts(self, connections: int, streams: int) -> Counts:
        """What was counted so far. The transport itself knows what it holds."""
        return Counts(self._offences, self._sent_bytes, self._received_bytes, connections, streams)

    # --- What the driver asks for -------------------------------------------------------------------------------------

    def send(self, to: NodeId, message: Message) -> None:
        """Queue a message on the peer's link, or keep it while the peer is being dialled."""
        session = self._up.get(to)
        # While messages wait, a new one waits behind them, even in the moment when the link has just come up.
        if session is not None and to not in self._waiting:
            self._put(session, message)
        elif to in self._dials and len(self._waiting.setdefault(to, [])) < WAITING_MESSAGES_MAX:
            self._waiting[to].append(message)
        else:
            self._post(Undelivered(to, message))

    def disconnect(self, node: NodeId, cause: str) -> None:
        """Post NeighbourDown now; what is queued gets DRAIN_S, then the connection is cut."""
        session = self._up.get(node)
        if session is not None:
            self._end(session, cause)

    def dial(self, contact: Contact, reach: Reach, upgrade: bool = False) -> None:
        """Open a link through `reach`. Messages for the peer wait, and are Undelivered if no link comes of it.

        `upgrade`: if there is a link that a relay carries, a direct one takes its place.
        """
        carried = contact.node is not None and upgrade and self._is_carried(contact.node)
        if (contact.node in self._up and not carried) or self._nursery is None:
            return
        if contact.node is not None:
            self._dials[contact.node] = self._dials.get(contact.node, 0) + 1
        self._nursery.start_soon(self._dial, contact, reach, upgrade)

    async def _dial(self, contact: Contact, reach: Reach, upgrade: bool) -> None:
        assert self._nursery is not None
        try:
            async with self._dial_slots:
                pipe, address = await reach(contact)
                cause = await self._nursery.start(self._carry_dialled, pipe, address)
        except PipeBroken as error:
            cause = str(error)
        if cause and contact.node not in self._up and not upgrade:
            self._post(DialFailed(contact, cause))
        if contact.node is not None:
            self._dial_ended(contact.node)

    def _is_carried(self, node: NodeId) -> bool:
        session = self._up.get(node)
        return session is not None and session.pipe.relay is not None

    def _is_better(self, pipe: Pipe) -> bool:
        """Whether it is direct and the link that is up is not. That one stays until the pipe's is up, or there might be none."""
        return pipe.relay is None and self._is_carried(pipe.peer)

    def _dial_ended(self, node: NodeId) -> None:
        self._dials[node] -= 1
        if self._dials[node] == 0:
            del self._dials[node]
            for message in self._waiting.pop(node, []):
                self._post(Undelivered(node, message))

    # --- One pipe, from the greeting to the end -----------------------------------------------------------------------

    async def _carry_dialled(
        self, pipe: Pipe, address: str, *, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Greet on a pipe that we opened and carry its link to the end.

        Reports, once that is settled, why no link came of it, or nothing if the peer is now or was already a neighbour.
        """
        while pipe.peer in self._greeting and (pipe.peer not in self._up or self._is_better(pipe)):
            await self._greeting[pipe.peer].settled.wait()
        if pipe.peer == self.node:
            pipe.abort()
            task_status.started(f"{address} is this node itself.")
        elif pipe.peer in self._up and not self._is_better(pipe):
            pipe.end()
            task_status.started("")
        else:
            session = self._session(pipe, address)
            self._greeting[pipe.peer] = session
            self._say_hello(session)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._carry, session)
                await session.settled.wait()
                task_status.started("" if pipe.peer in self._up else session.cause)

    def accept(self, pipe: Pipe) -> trio.Event:
        """Carry the link of a pipe that the peer opened. The event tells that it is over."""
        if pipe.peer == self.node or self._nursery is None:
            pipe.abort()
            over = trio.Event()
            over.set()
            return over
        session = self._session(pipe, None)
        self._nursery.start_soon(self._carry, session)
        return session.gone

    def _session(self, pipe: Pipe, address: str | None) -> Session:
        link = Link(self._identity, pipe.peer, self._swarm, self._dice)
        session = Session(pipe, link, address)
        self._sessions.append(session)
        return session

    async def _carry(self, session: Session) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write, session)
            nursery.start_soon(self._limit_greeting, session)
            await self._read(session)
            self._end(session, session.cause or CLOSED_BY_PEER)
        self._sessions.remove(session)

    async def _read(self, session: Session) -> None:
        try:
            while chunk := await session.pipe.read():
                self._received_bytes += len(chunk)
                for message in session.link.receive(chunk, self._clock()):
                    self._take(session, message)
                if session.gone.is_set():
                    return
        except PipeBroken as error:
            session.cause = session.cause or str(error)
        except RemoteProtocolError as error:
            self._offended(session, error)

    async def _write(self, session: Session) -> None:
        try:
            while data := await session.outbox.take():
                await session.pipe.write(data)
        except PipeBroken as error:
            self._end(session, str(error))
        session.written.set()
        if session.gone.is_set():
            self._release(session)

    async def _limit_greeting(self, session: Session) -> None:
        with trio.move_on_after(GREETING_S):
            await session.settled.wait()
        if not session.settled.is_set():
            self._end(session, f"{session.address or 'The peer'} answers, but does not greet as a starlings node does.")
        await session.gone.wait()
        with trio.move_on_after(DRAIN_S):
            await session.written.wait()
        self._release(session)

    def _release(self, session: Session) -> None:
        """Let go of the pipe of a link that has ended. A connection that carries a better link of the peer stays."""
        better = self._up.get(session.pipe.peer)
        if better is not None or session.cause == REPLACED:
            session.pipe.end()
        else:
            session.pipe.abort()

    def _take(self, session: Session, message: Message) -> None:
        if session.gone.is_set():
            return
        if isinstance(message, Hello):
            session.hello = message
            self._greeted(session)
        elif isinstance(message, Goodbye) and message.replaced and session.pipe.peer in self._greeting:
            pass  # It was this node itself that has opened another link.
        elif session.is_up:
            self._post(Received(session.pipe.peer, message))
        else:
            raise RemoteProtocolError("disorder", f"{type(message).__name__} before our Hello")

    def _greeted(self, session: Session) -> None:
        """The peer's Hello is here, so the peer has no better link; see the head of this file."""
        peer = session.pipe.peer
        ours = self._greeting.get(peer) or self._up.get(peer)
        better = peer not in self._greeting and self._is_better(session.pipe)
        if session.address is None and ours is not None and ours.address is not None and self.node < peer and not better:
            assert self._nursery is not None
            self._nursery.start_soon(self._hold, session, ours)
        else:
            self._admit(session)

    async def _hold(self, session: Session, ours: Session) -> None:
        with trio.move_on_after(HOLD_S):
            if not ours.is_up:
                await ours.settled.wait()
            if not session.gone.is_set():
                await ours.gone.wait()
        if not session.gone.is_set():
            self._admit(session)

    def _admit(self, session: Session) -> None:
        assert session.hello is not None
        peer = session.pipe.peer
        if session.address is None:
            self._say_hello(session)
        for other in (self._up.get(peer), self._greeting.get(peer)):
            if other is not None and other is not session:
                if other.is_up and session.address is None:
                    # Lost with the old link, unless two nodes have this identity: then one of them hears it.
                    self._put(other, Goodbye(False, "this identity has opened another link", True))
                self._end(other, REPLACED)
        self._greeting.pop(peer, None)
        self._up[peer] = session
        session.is_up = True
        session.settled.set()
        hello, pipe = session.hello, session.pipe
        self._post(NeighbourUp(peer, hello.name, hello.addresses, session.address or "", pipe.seen, pipe.relay))
        for message in self._waiting.pop(peer, []):
            self._put(session, message)

    def _say_hello(self, session: Session) -> None:
        self._queue(session, Hello.__name__, session.link.hello(self._name, self._agent, self.addresses, self._clock()))

    def _queue(self, session: Session, kind: str, frame: bytes) -> bool:
        queued = session.outbox.put(frame)
        self._sent_bytes[kind] += len(frame) if queued else 0
        return queued

    def _put(self, session: Session, message: Message) -> None:
        try:
            frame = session.link.send(message, self._clock())
        except LocalProtocolError as mistake:
            # Ours, but a stranger's words may have led to it: what is lost is the message, not the node.
            frame = b""
            if type(message) not in self._unfit:
                self._unfit[type(message)] = None
                log.warning("a message of this node that breaks the protocol was not sent: %s", mistake)
        if not frame and isinstance(message, TaskRequest):
            self._post(Undelivered(session.pipe.peer, message))  # Too many attempts are open there.
        if frame and not self._queue(session, type(message).__name__, frame):
            self._end(session, NOT_READING)
            session.pipe.abort()

    def _offended(self, session: Session, error: RemoteProtocolError) -> None:
        foreign = error.kind == "foreign"
        if not foreign or session.address is None:
            self._offences[error.kind] += 1
        if foreign and session.address is None and session.hello is None:
            # An empty Hello tells a dialler from another swarm why it gets no link, and nothing else.
            self._queue(session, Hello.__name__, session.link.hello("", self._agent, (), self._clock()))
        if session.address is None or session.is_up:
            session.cause = f"The peer broke the protocol ({error.kind}): {error}."
        elif foreign:
            session.cause = f"{session.address} belongs to another swarm. Both nodes need the same swarm name."
        else:
            session.cause = f"{session.address} answers, but breaks the protocol ({error.kind}): {error}."

    def _end(self, session: Session, cause: str) -> None:
        """The link is over: say so once. Its tasks then let the pipe go."""
        if session.gone.is_set():
            return
        session.cause = session.cause or cause
        peer = session.pipe.peer
        session.outbox.close()
        session.gone.set()
        session.settled.set()
        if self._greeting.get(peer) is session:
            del self._greeting[peer]
        if self._up.get(peer) is session:
            del self._up[peer]
            self._post(NeighbourDown(peer, session.cause))

    async def close(self) -> None:
        """End every link, giving last words DRAIN_S. No event is posted any more. Returns once all pipes are let go."""
        self._post = _ignore
        for session in list(self._sessions):
            self._end(session, "This node is stopping.")
        sessions = list(self._sessions)
        with trio.move_on_after(DRAIN_S):
            for session in sessions:
                await session.written.wait()
        for session in sessions:
            session.pipe.abort()


@asynccontextmanager
async def uninterrupted() -> AsyncIterator[trio.Event]:
    """A block that is not cancelled from outside, and an event that tells that it should have been; then it ends itself."""

    async def set_when_cancelled(stop: trio.Event) -> None:
        try:
            await trio.sleep_forever()
        finally:
            stop.set()

    async with trio.open_nursery() as watching:
        stop = trio.Event()
        watching.start_soon(set_when_cancelled, stop)
        with trio.CancelScope(shield=True):
            yield stop
        watching.cancel_scope.cancel()


def _ignore(event: TransportEvent) -> None:
    """Where events go before the transport runs and after it has closed."""
