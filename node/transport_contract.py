"""The public contract of every Transport, as checks to run: `for check in CHECKS: await check(bench)`.

In the spirit of `trio.testing.check_two_way_stream`: the fake is worth something because it passes what the real one
passes.
"""

from collections.abc import Awaitable, Callable
from random import Random

import trio

from node.links import WAITING_MESSAGES_MAX, Pipe, PipeBroken
from node.outbox import OUTBOX_BYTES_MAX
from node.transport import ListenError
from node.transport_bench import ALICE, BOB, CAROL, OTHER_SWARM, SWARM, Bench, Watched, linked, running
from protocol import codec, framing
from protocol.identity import Identity
from protocol.link import Link
from protocol.messages import AdvertPull, Hello, Ping, ReachAnswer, TaskPiece, TaskRequest
from protocol.parts import AttemptId, Sampling, TaskId, Turn
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
from swarm.values import MEMBERSHIP, Contact, Subject

# --- Links that work --------------------------------------------------------------------------------------------------


async def check_messages_arrive_in_order(bench: Bench) -> None:
    async with linked(bench) as (alice, bob):
        attempt, task = AttemptId(b"\7" * 16), TaskId(b"\7" * 16)
        request = TaskRequest(attempt, task, "chat", "", (Turn("user", "x" * 60_000),), 9, Sampling(), (), 9_000)
        sent = [Ping(0), request, *map(Ping, range(1, 600)), AdvertPull("chat", 3)]
        for message in sent:
            alice.transport.send(bob.node, message)
            if isinstance(message, Ping):
                bob.transport.send(alice.node, message)
        assert [(await bob.next(Received)).message for _ in sent] == sent
        assert [(await alice.next(Received)).message for _ in range(600)] == [Ping(n) for n in range(600)]


async def check_what_crosses_a_link_is_counted(bench: Bench) -> None:
    async with linked(bench) as (alice, bob):
        await _echo(alice, bob)
        alices, bobs = alice.transport.counts, bob.transport.counts
        assert set(alices.sent_bytes) == set(bobs.sent_bytes) == {"Hello", "Ping"}
        assert alices.received_bytes == sum(bobs.sent_bytes.values())
        assert bobs.received_bytes == sum(alices.sent_bytes.values())
        assert alices.connections >= 1 and alices.streams >= 1
        alice.transport.disconnect(bob.node, "enough")
        while bob.transport.counts.streams:
            await trio.sleep(0.01)
        assert not bob.transport.counts.connections


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
        attempt, task = AttemptId(b"\5" * 16), TaskId(b"\5" * 16)
        ask = TaskRequest(attempt, task, "chat", "", (Turn("user", "?"),), 9, Sampling(), (), 9_000)
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
        "disorder": lambda link: framing.frame(framing.Form.BARE, codec.encode(TaskPiece(AttemptId(b"\1" * 16), 0, "?"))),
    }
    for kind, bad in rules.items():
        async with running(bench, BOB) as bob, bench.stranger(ALICE, bob.addresses[0]) as pipe:
            link = await _greeted(bench, pipe, ALICE)
            await pipe.write(bad(link))
            cause = (await bob.next(NeighbourDown)).cause
            assert kind in cause, (kind, cause)
            assert not bob.all(Received)


async def check_the_greeting_of_another_gets_no_link(bench: Bench) -> None:
    """Whoever has recorded it: the transport has proved who the peer is, and that is not its issuer."""
    async with running(bench, BOB) as bob:
        async with bench.stranger(ALICE, bob.addresses[0]) as pipe:
            link = Link(Identity(ALICE), bob.node, SWARM, Random(1))
            recorded = link.hello("alice", "test", (), bench.clock())
            await pipe.write(recorded)
            await bob.next(NeighbourUp)
        await bob.next(NeighbourDown)
        async with bench.stranger(CAROL, bob.addresses[0]) as pipe:
            await pipe.write(recorded)
            await _read_to_the_end(pipe)
        assert len(bob.all(NeighbourUp)) == 1


async def check_a_message_that_cannot_be_sent_costs_nothing_else(bench: Bench) -> None:
    """A member that was led to a message out of bounds: the link stays, and a task goes elsewhere."""
    async with linked(bench) as (alice, bob):
        request = TaskRequest(AttemptId(b"\7" * 16), TaskId(b"\7" * 16), "x" * 99, "", (), 9, Sampling(), (), 9_000)
        for message in (ReachAnswer("é" * 100, ()), request, Ping(1)):
            alice.transport.send(bob.node, message)
        assert (await alice.next(Undelivered)).message == request
        assert (await bob.next(Received)).message == Ping(1)


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
        file = Subject(digest=b"f" * 32)
        alice.transport.provide((Subject("chat"), file))
        for subject in (Subject("chat"), file, MEMBERSHIP):
            while True:
                carol.transport.find_providers(subject)
                found = await _found(carol, subject)
                if alice.node in {contact.node for contact in found.contacts}:
                    break
                await trio.sleep(0.05)
        contact = next(contact for contact in found.contacts if contact.node == alice.node)
        carol.transport.dial(Dial(contact))
        assert (await carol.next(NeighbourUp)).node == alice.node
        carol.transport.find_providers(nobodys := Subject("no such skill"))
        assert not (await _found(carol, nobodys)).contacts


async def _found(node: Watched, subject: Subject) -> ContactsFound:
    """The next answer about this; there may be more about what was asked before."""
    while True:
        found = await node.next(ContactsFound)
        assert found.source == "dht"
        if found.subject == subject:
            return found


async def _echo(first: Watched, second: Watched) -> None:
    for sender, receiver in ((first, second), (second, first)):
        sender.transport.send(receiver.node, Ping(77))
        assert await receiver.next(Received) == Received(sender.node, Ping(77))


async def _greeted(bench: Bench, pipe: Pipe, seed: bytes) -> Link:
    """Greet Bob over a bare pipe."""
    link = Link(Identity(seed), Identity(BOB).node, SWARM, Random())
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
    check_what_crosses_a_link_is_counted,
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
    check_the_greeting_of_another_gets_no_link,
    check_a_message_that_cannot_be_sent_costs_nothing_else,
    check_links_say_where_the_peer_is,
    check_a_dial_back_tells_who_answers,
    check_an_announced_address_is_told_to_new_neighbours,
    check_whoever_does_not_relay_is_told,
    check_providers_are_found_through_the_network,
)
