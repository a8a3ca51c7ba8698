"""The public contract of every Transport, as checks to run: `for check in CHECKS: await check(bench)`.

In the spirit of `trio.testing.check_two_way_stream`: the fake is worth something because it passes what the real one
passes.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from random import Random
from typing import Protocol, TypeVar

import trio

from node.links import OUTBOX_BYTES_MAX, WAITING_MESSAGES_MAX, Pipe, PipeBroken
from node.transport import ListenError, Transport, TransportEvent
from protocol import codec, framing
from protocol.identity import Identity, NodeId
from protocol.link import Link
from protocol.messages import AdvertPull, Hello, Ping, TaskPiece, TaskRequest, Turn
from protocol.replay import ReplayWindow
from swarm.effects import Dial
from swarm.events import (
    ContactsFound,
    DialFailed,
    DialledBack,
    NeighbourDown,
    NeighbourUp,
    Received,
    RelayChanged,
    Undelivered,
)
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
        self.transport.dial(Dial(other.contact))


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


# --- Links that work --------------------------------------------------------------------------------------------------


async def check_messages_arrive_in_order(bench: Bench) -> None:
    async with linked(bench) as (alice, bob):
        attempt = b"\7" * 16
        request = TaskRequest(attempt, attempt, "chat", "", (Turn("user", "x" * 60_000),), 9, 0.0, 1.0, 0, (), 9_000)
        sent = [Ping(0), request, *map(Ping, range(1, 600)), AdvertPull("chat", 3)]
        for message in sent:
            alice.transport.send(bob.node, message)
            if isinstance(message, Ping):
                bob.transport.send(alice.node, message)
        assert [(await bob.next(Received)).message for _ in sent] == sent
        assert [(await alice.next(Received)).message for _ in range(600)] == [Ping(n) for n in range(600)]


async def check_a_dial_without_an_id_tells_who_answers(bench: Bench) -> None:
    async with running(bench, ALICE) as alice, running(bench, BOB) as bob:
        address = bob.addresses[0].split("/p2p/")[0]
        alice.transport.dial(Dial(Contact(None, (address,))))
        up = await alice.next(NeighbourUp)
        assert (up.node, up.dialled) == (bob.node, address)


async def check_messages_wait_for_the_dial(bench: Bench) -> None:
    async with running(bench, ALICE) as alice, running(bench, BOB) as bob:
        alice.dial(bob)
        for n in range(WAITING_MESSAGES_MAX):
            alice.transport.send(bob.node, Ping(n))
        received = [(await bob.next(Received)).message for _ in range(WAITING_MESSAGES_MAX)]
        assert received == [Ping(n) for n in range(WAITING_MESSAGES_MAX)]
        assert not alice.all(Undelivered)


async def check_dialling_a_neighbour_makes_no_event(bench: Bench) -> None:
    async with linked(bench) as (alice, bob):
        alice.dial(bob)
        alice.transport.dial(Dial(Contact(None, bob.addresses)))
        bob.dial(alice)
        alice.transport.dial(Dial(Contact(None, (bench.nowhere(),))))
        await alice.next(DialFailed)
        await _echo(alice, bob)
        assert len(alice.all(NeighbourUp)) == len(bob.all(NeighbourUp)) == 1
        assert not alice.all(NeighbourDown) and not bob.all(NeighbourDown)


async def check_simultaneous_dials_keep_one_link(bench: Bench) -> None:
    async with running(bench, ALICE) as alice, running(bench, BOB) as bob:
        for _ in range(20):
            alice.dial(bob)
            bob.dial(alice)
            first, second = await alice.next(NeighbourUp), await bob.next(NeighbourUp)
            assert bool(first.dialled) is not bool(second.dialled), "they keep different links"
            await _echo(alice, bob)
            assert len(alice.all(NeighbourUp)) - len(alice.all(NeighbourDown)) == 1
            alice.transport.disconnect(bob.node, "next round")
            await bob.next(NeighbourDown)
        assert not alice.all(DialFailed) and not bob.all(DialFailed)


async def check_a_peer_that_comes_again_gets_its_link(bench: Bench) -> None:
    async with running(bench, BOB) as bob, bench.stranger(ALICE, bob.addresses[0]) as first:
        await _greeted(bench, first, ALICE)
        await bob.next(NeighbourUp)
        async with bench.stranger(ALICE, bob.addresses[0]) as second:
            link = await _greeted(bench, second, ALICE)
            await bob.next(NeighbourDown)
            await bob.next(NeighbourUp)
            await second.write(link.send(Ping(4), bench.clock()))
            assert (await bob.next(Received)).message == Ping(4)


# --- Ends of links ----------------------------------------------------------------------------------------------------


async def check_disconnect_is_told_on_both_sides(bench: Bench) -> None:
    async with linked(bench) as (alice, bob):
        alice.transport.send(bob.node, Ping(1))
        alice.transport.disconnect(bob.node, "because")
        down = alice.all(NeighbourDown)
        assert [(event.node, event.cause) for event in down] == [(bob.node, "because")], "told at once"
        assert (await bob.next(Received)).message == Ping(1), "last words arrive"
        assert (await bob.next(NeighbourDown)).node == alice.node
        alice.transport.send(bob.node, Ping(2))
        assert alice.all(Undelivered) == [Undelivered(bob.node, Ping(2))]
        bob.dial(alice)
        await alice.next(NeighbourUp)
        await _echo(alice, bob)


async def check_stopping_tells_the_peer_and_frees_the_address(bench: Bench) -> None:
    async with running(bench, ALICE) as alice:
        for _ in range(2):
            async with running(bench, BOB, listen=bench.nowhere()) as bob:
                place = bob.addresses[0].split("/p2p/")[0]
                alice.dial(bob)
                await alice.next(NeighbourUp)
                bob.transport.send(alice.node, Ping(9))
            assert (await alice.next(Received)).message == Ping(9), "last words arrive"
            assert (await alice.next(NeighbourDown)).node == bob.node
            async with running(bench, CAROL, listen=place):
                pass


async def check_a_peer_that_does_not_read_is_dropped(bench: Bench) -> None:
    """The queue is bounded in bytes: what a frozen reader costs is that bound and what kernel and muxer hold."""
    async with running(bench, BOB) as bob, bench.stranger(ALICE, bob.addresses[0]) as pipe:
        link = await _greeted(bench, pipe, ALICE)
        alice = (await bob.next(NeighbourUp)).node
        attempt = b"\5" * 16
        ask = TaskRequest(attempt, attempt, "chat", "", (Turn("user", "?"),), 9, 0.0, 1.0, 0, (), 9_000)
        await pipe.write(link.send(ask, bench.clock()))
        await bob.next(Received)
        sent = 0
        while not bob.all(NeighbourDown):
            bob.transport.send(alice, Ping(sent % 2**32))
            sent += 1
            assert sent * 8 < 64 * OUTBOX_BYTES_MAX, "nothing bounds the queue"
            if sent % 1_000 == 0:
                await trio.lowlevel.checkpoint()
        assert "does not read" in bob.all(NeighbourDown)[0].cause


# --- Dials that fail --------------------------------------------------------------------------------------------------


async def check_nobody_there_is_said_with_the_address(bench: Bench) -> None:
    async with running(bench, ALICE) as alice:
        contact = Contact(Identity(BOB).node, (bench.nowhere(),))
        alice.transport.dial(Dial(contact))
        alice.transport.send(Identity(BOB).node, Ping(1))
        failed = await alice.next(DialFailed)
        assert failed.contact == contact
        assert failed.cause == f"Nothing answers at {contact.addresses[0]}."
        assert await alice.next(Undelivered) == Undelivered(Identity(BOB).node, Ping(1))


async def check_another_identity_is_refused(bench: Bench) -> None:
    async with running(bench, ALICE) as alice, running(bench, BOB) as bob:
        place = bob.addresses[0].split("/p2p/")[0]
        alice.transport.dial(Dial(Contact(Identity(CAROL).node, (place,))))
        assert "answers, but as another node" in (await alice.next(DialFailed)).cause
        alice.transport.dial(Dial(Contact(None, (alice.addresses[0].split("/p2p/")[0],))))
        assert "is this node itself" in (await alice.next(DialFailed)).cause
        assert not bob.all(NeighbourUp)


async def check_another_swarm_is_named(bench: Bench) -> None:
    async with running(bench, ALICE) as alice, running(bench, BOB, swarm=OTHER_SWARM) as bob:
        alice.dial(bob)
        failed = await alice.next(DialFailed)
        assert failed.cause.startswith(f"{bob.addresses[0]} belongs to another swarm.")
        assert not bob.all(NeighbourUp)


async def check_a_second_address_is_tried(bench: Bench) -> None:
    async with running(bench, ALICE) as alice, running(bench, BOB) as bob:
        alice.transport.dial(Dial(Contact(bob.node, (bench.nowhere(), bob.addresses[0]))))
        assert (await alice.next(NeighbourUp)).dialled == bob.addresses[0]


async def check_a_taken_address_is_an_error(bench: Bench) -> None:
    async with running(bench, ALICE) as alice:
        place = alice.addresses[0].split("/p2p/")[0]
        try:
            async with running(bench, BOB, listen=place):
                raise AssertionError("two nodes listen on one address")
        except* ListenError as errors:
            assert "taken" in str(errors.exceptions[0])


# --- Peers that break rules -------------------------------------------------------------------------------------------


async def check_a_broken_rule_ends_the_link(bench: Bench) -> None:
    rules: dict[str, Callable[[Link], bytes]] = {
        "oversized": lambda link: b"\xff\xff\xff\xff\1" + bytes(100),
        "garbage": lambda link: b"\0\0\0\4\2" + b"\xc1\xc1\xc1\xc1",
        "disorder": lambda link: framing.frame(framing.Form.BARE, codec.encode(TaskPiece(b"\1" * 16, 0, "?"))),
    }
    for kind, bad in rules.items():
        async with running(bench, BOB) as bob, bench.stranger(ALICE, bob.addresses[0]) as pipe:
            link = await _greeted(bench, pipe, ALICE)
            await pipe.write(bad(link))
            cause = (await bob.next(NeighbourDown)).cause
            assert kind in cause, (kind, cause)
            assert not bob.all(Received)


async def check_a_replayed_greeting_gets_no_link(bench: Bench) -> None:
    async with running(bench, BOB) as bob:
        async with bench.stranger(ALICE, bob.addresses[0]) as pipe:
            link = Link(Identity(ALICE), bob.node, SWARM, ReplayWindow(), Random(1))
            recorded = link.hello("alice", "test", (), bench.clock())
            await pipe.write(recorded)
            await bob.next(NeighbourUp)
        await bob.next(NeighbourDown)
        async with bench.stranger(ALICE, bob.addresses[0]) as pipe:
            await pipe.write(recorded)
            await _read_to_the_end(pipe)
        async with bench.stranger(CAROL, bob.addresses[0]) as pipe:
            await pipe.write(recorded)
            await _read_to_the_end(pipe)
        assert len(bob.all(NeighbourUp)) == 1


# --- Being reached ----------------------------------------------------------------------------------------------------


async def check_links_say_where_the_peer_is(bench: Bench) -> None:
    """Its addresses lie there."""
    async with linked(bench) as (alice, bob):
        for node, other in ((alice, bob), (bob, alice)):
            (up,) = node.all(NeighbourUp)
            assert up.seen and other.addresses[0].startswith(up.seen)
            assert up.relay is None


async def check_a_dial_back_tells_who_answers(bench: Bench) -> None:
    async with running(bench, ALICE) as alice, running(bench, BOB) as bob, running(bench, CAROL) as carol:
        there, elsewhere = (node.addresses[0].partition("/p2p/")[0] for node in (bob, carol))
        alice.transport.dial_back(bob.node, (bench.nowhere(), there, elsewhere))
        assert await alice.next(DialledBack) == DialledBack(bob.node, (there,))
        assert not alice.all(NeighbourUp) and not bob.all(NeighbourUp)


async def check_an_announced_address_is_told_to_new_neighbours(bench: Bench) -> None:
    async with running(bench, ALICE) as alice, running(bench, BOB) as bob:
        moved = (*bob.addresses, *alice.addresses)
        bob.transport.announce(moved)
        alice.dial(bob)
        assert (await alice.next(NeighbourUp)).addresses == moved


async def check_whoever_does_not_relay_is_told(bench: Bench) -> None:
    async with linked(bench) as (alice, bob):
        alice.transport.use_relays((bob.node,))
        assert await alice.next(RelayChanged) == RelayChanged(bob.node, ())


# --- The DHT ----------------------------------------------------------------------------------------------------------


async def check_providers_are_found_through_the_network(bench: Bench) -> None:
    """Alice and Carol know only Bob; Carol finds that Alice offers a skill."""
    async with running(bench, BOB) as bob, running(bench, ALICE) as alice, running(bench, CAROL) as carol:
        for node in (alice, carol):
            node.dial(bob)
            await node.next(NeighbourUp)
        alice.transport.provide(("chat",))
        for skill in ("chat", ""):
            while True:
                carol.transport.find_providers(skill)
                found = await carol.next(ContactsFound)
                assert (found.source, found.skill) == ("dht", skill)
                if alice.node in {contact.node for contact in found.contacts}:
                    break
                await trio.sleep(0.05)
        contact = next(contact for contact in found.contacts if contact.node == alice.node)
        carol.transport.dial(Dial(contact))
        assert (await carol.next(NeighbourUp)).node == alice.node
        carol.transport.find_providers("no such skill")
        assert not (await carol.next(ContactsFound)).contacts


async def _echo(first: Watched, second: Watched) -> None:
    for sender, receiver in ((first, second), (second, first)):
        sender.transport.send(receiver.node, Ping(77))
        assert await receiver.next(Received) == Received(sender.node, Ping(77))


async def _greeted(bench: Bench, pipe: Pipe, seed: bytes) -> Link:
    """Greet Bob over a bare pipe."""
    link = Link(Identity(seed), Identity(BOB).node, SWARM, ReplayWindow(), Random())
    await pipe.write(link.hello("stranger", "test", (), bench.clock()))
    received: list[object] = []
    while not received:
        received += link.receive(await pipe.read(), bench.clock())
    assert isinstance(received[0], Hello)
    return link


async def _read_to_the_end(pipe: Pipe) -> None:
    try:
        while await pipe.read():
            pass
    except PipeBroken:
        pass


CHECKS: tuple[Callable[[Bench], Awaitable[None]], ...] = (
    check_messages_arrive_in_order,
    check_a_dial_without_an_id_tells_who_answers,
    check_messages_wait_for_the_dial,
    check_dialling_a_neighbour_makes_no_event,
    check_simultaneous_dials_keep_one_link,
    check_a_peer_that_comes_again_gets_its_link,
    check_disconnect_is_told_on_both_sides,
    check_stopping_tells_the_peer_and_frees_the_address,
    check_a_peer_that_does_not_read_is_dropped,
    check_nobody_there_is_said_with_the_address,
    check_another_identity_is_refused,
    check_another_swarm_is_named,
    check_a_second_address_is_tried,
    check_a_taken_address_is_an_error,
    check_a_broken_rule_ends_the_link,
    check_a_replayed_greeting_gets_no_link,
    check_links_say_where_the_peer_is,
    check_a_dial_back_tells_who_answers,
    check_an_announced_address_is_told_to_new_neighbours,
    check_whoever_does_not_relay_is_told,
    check_providers_are_found_through_the_network,
)
