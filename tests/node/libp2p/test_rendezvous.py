"""The DHT leads a node that knows one other to workers that it was never told of, and only to those of its own swarm."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest
import trio
import varint
from libp2p.kad_dht.pb.kademlia_pb2 import Message
from libp2p.kad_dht.provider_store import ProviderRecord
from libp2p.peer.peerinfo import PeerInfo
from multiaddr import Multiaddr

from node.libp2p.dht_mends import KAD
from node.libp2p.host import peer_of
from node.libp2p.rendezvous import Rendezvous
from node.transport_bench import OTHER_SWARM, SWARM, Watched, running
from protocol.identity import Identity, NodeId
from swarm.events import ContactsFound, NeighbourUp
from swarm.finding.regions import PROVIDERS_MAX, REGIONS, key_of
from swarm.values import MEMBERSHIP, Contact, Subject
from tests.node.libp2p.strangers import LoopbackBench, connected, opened, stranger_host

pytestmark = pytest.mark.usefixtures("hurried")

WORKERS = 4
CHAT, RARE = Subject("chat"), Subject("x-rare")
MODEL, FILE = Subject(model="mistral"), Subject(digest=b"f" * 32)


def dht(node: Watched) -> Rendezvous:
    found: Rendezvous | None = node.transport._rendezvous  # type: ignore[attr-defined]
    assert found is not None
    return found


async def found(node: Watched, subject: Subject) -> tuple[Contact, ...]:
    """The next answer to a question about a subject; there may be more about what was asked before."""
    node.transport.find_providers(subject)
    while True:
        event = await node.next(ContactsFound)
        assert event.source == "dht"
        if event.subject == subject:
            return event.contacts


async def providers(node: Watched, subject: Subject) -> dict[NodeId, tuple[str, ...]]:
    return {contact.node: contact.addresses for contact in await found(node, subject) if contact.node is not None}


async def found_at_last(node: Watched, subject: Subject, provider: NodeId) -> tuple[Contact, ...]:
    """Records take a moment to be written, and a loaded machine a few more."""
    while True:
        contacts = await found(node, subject)
        if provider in [contact.node for contact in contacts]:
            return contacts
        await trio.sleep(0.1)


@asynccontextmanager
async def meeting(*workers: tuple[Subject, ...]) -> AsyncIterator[tuple[Watched, Watched, list[Watched]]]:
    """A bootstrap node, a seeker, and workers that provide these; all know only the first."""
    async with AsyncExitStack() as stack:
        nodes = [
            await stack.enter_async_context(running(LoopbackBench(), bytes((n,)) * 32)) for n in range(2 + len(workers))
        ]
        bootstrap, seeker, *providing = nodes
        for worker, subjects in zip(providing, workers, strict=True):
            worker.transport.provide(subjects)
        for node in (seeker, *providing):
            node.dial(bootstrap)
            await node.next(NeighbourUp)
        yield bootstrap, seeker, providing


async def test_workers_are_found_through_one_bootstrap_node() -> None:
    async with AsyncExitStack() as stack:
        bootstrap, seeker, foreign, *workers = [
            await stack.enter_async_context(
                running(LoopbackBench(), bytes((n,)) * 32, OTHER_SWARM if n == 2 else SWARM)
            )
            for n in range(3 + WORKERS)
        ]
        for worker in workers:
            worker.transport.provide((CHAT,) if worker is not workers[0] else (CHAT, RARE))
            worker.dial(bootstrap)
            await worker.next(NeighbourUp)
        foreign.transport.provide((CHAT,))
        foreign.dial(bootstrap)
        seeker.dial(bootstrap)
        await seeker.next(NeighbourUp)
        met: dict[NodeId, tuple[str, ...]] = {}
        while len(met) < WORKERS:
            met = await providers(seeker, CHAT)
            await trio.sleep(0.1)
        assert met == {worker.node: worker.addresses for worker in workers}
        members: dict[NodeId, tuple[str, ...]] = {}
        while not {bootstrap.node, *met} <= set(members):
            members = await providers(seeker, MEMBERSHIP)
            await trio.sleep(0.1)
        assert foreign.node not in members
        while list(await providers(seeker, RARE)) != [workers[0].node]:
            await trio.sleep(0.1)
        assert await providers(seeker, Subject("no such skill")) == {}


async def test_a_model_is_found_by_its_name_and_by_its_file() -> None:
    """[DHT-2]"""
    async with meeting((CHAT, FILE, MODEL), (CHAT,)) as (_, seeker, [holder, _]):
        for subject in (FILE, MODEL):
            assert [contact.node for contact in await found_at_last(seeker, subject, holder.node)] == [holder.node]
        assert await providers(seeker, Subject(digest=b"g" * 32)) == {}


async def test_records_are_written_in_every_region_until_they_are_withdrawn() -> None:
    """[DHT-2]"""
    async with meeting((CHAT, RARE)) as (bootstrap, _, [worker]):
        held = dht(bootstrap)._dht.provider_store
        for region in range(REGIONS):
            for subject in (CHAT, RARE, MEMBERSHIP):
                while not held.get_providers(key_of(SWARM, subject, region)):
                    await trio.sleep(0.05)
        own = dht(worker)._dht.provider_store
        while len(own.providing_keys) < 3 * REGIONS:
            await trio.sleep(0.05)
        worker.transport.provide((CHAT,))
        assert len(own.providing_keys) == 2 * REGIONS
        assert not any(own.get_providers(key_of(SWARM, RARE, region)) for region in range(REGIONS))


async def test_a_young_node_renews_soon_and_then_ever_more_rarely() -> None:
    """[DHT-2] It has met few servers yet. The rarest wait is a third of a record's life."""
    async with running(LoopbackBench(), b"a" * 32) as alone:
        young, waits = dht(alone), []
        for _ in range(7):
            before = trio.current_time()
            await young._publish((0, CHAT))
            waits.append(young._due_at[0, CHAT] - before)
        assert 45 < waits[0] < 61 and all(later > 1.2 * sooner for sooner, later in pairwise(waits[:4]))
        assert all(470 < wait < 601 for wait in waits[4:])
        await young._publish((0, MEMBERSHIP))
        assert young._due_at[0, MEMBERSHIP] - trio.current_time() > 470, "of members there are many"
        young.provide((RARE,))
        assert young._next_record() == ((0, RARE), 0.0), "what is new comes first"


def invented(number: int) -> NodeId:
    return Identity(number.to_bytes(32, "big")).node


def poison(node: Watched, subject: Subject, region: int, count: int = 20) -> None:
    """What so many identities could write into a node's store, newer than what is there."""
    records = dht(node)._dht.provider_store.providers.setdefault(key_of(SWARM, subject, region), {})
    records.clear()
    for number in range(count):
        peer = peer_of(invented(10_000 * (region + 1) + number))
        records[str(peer)] = ProviderRecord(PeerInfo(peer, [Multiaddr(f"/ip4/5.5.5.5/tcp/{number + 1}")]))


@pytest.mark.parametrize("poisoned", [(0,), (1,), (2,), (0, 2)], ids=str)
async def test_a_provider_is_found_though_regions_are_full_of_lies(poisoned: tuple[int, ...]) -> None:
    """[DHT-6] Nobody in those knows it any more, and there are more lies than an answer has room for."""
    async with meeting((RARE,)) as (bootstrap, seeker, [worker]):
        for region in range(REGIONS):
            while not dht(bootstrap)._dht.provider_store.get_providers(key_of(SWARM, RARE, region)):
                await trio.sleep(0.05)
        for region in poisoned:
            for node in (bootstrap, seeker, worker):
                poison(node, RARE, region)
        contacts = await found_at_last(seeker, RARE, worker.node)
        places = [contact.node for contact in contacts].index(worker.node)
        assert places <= len(poisoned), "before all but as many lies as there are such regions"
        assert len(contacts) == PROVIDERS_MAX


async def test_nobody_to_ask_finds_nobody() -> None:
    async with running(LoopbackBench(), b"a" * 32) as alone:
        assert await providers(alone, CHAT) == {}


async def test_lookups_are_bounded() -> None:
    async with running(LoopbackBench(), b"a" * 32) as alone:
        for _ in range(50):
            alone.transport.find_providers(CHAT)
        for _ in range(50):
            await alone.next(ContactsFound)
        assert dht(alone)._lookups == 0


async def test_nobody_writes_others_down() -> None:
    """[DHT-3] Of a hundred providers in one message only the sender itself is kept, with a few of its addresses."""
    key, places = key_of(SWARM, RARE, 0), [Multiaddr(f"/ip4/127.0.0.1/tcp/{port}").to_bytes() for port in range(1, 1_000)]
    async with running(LoopbackBench(), b"b" * 32) as server, stranger_host(b"s" * 32) as host:
        message = Message(type=Message.MessageType.ADD_PROVIDER, key=key)
        for identity in (*(peer_of(invented(number)) for number in range(99)), host.get_id()):
            peer = message.providerPeers.add()
            peer.id = identity.to_bytes()
            peer.addrs.extend(places[:5] if identity != host.get_id() else places)
        body = message.SerializeToString()
        stream = await opened(host, await connected(host, server.addresses[0]), [KAD])
        await stream.write(varint.encode(len(body)) + body)
        await stream.read(1)
        [kept] = dht(server)._dht.provider_store.get_providers(key)
        assert kept.peer_id == host.get_id() and len(kept.addrs) <= 8


async def test_newer_records_replace_older_ones_and_all_of_them_expire() -> None:
    """[DHT-3] A server keeps twenty for a key."""
    async with running(LoopbackBench(), b"b" * 32) as server:
        store: Any = dht(server)._dht.provider_store
        key = key_of(SWARM, RARE, 0)
        for number in range(30):
            store.add_provider(key, PeerInfo(peer_of(invented(number)), [Multiaddr("/ip4/5.5.5.5/tcp/1")] * 1_000))
        held = store.get_providers(key)
        assert len(held) == 20 and all(len(each.addrs) <= 8 for each in held)
        assert held[-1].peer_id == peer_of(invented(29))
        records = store.providers[key]
        for record in records.values():
            record.timestamp -= 31 * 60
        assert store.get_providers(key) == [], "half an hour is over"


async def test_who_asks_in_the_moment_in_which_it_joins_is_answered() -> None:
    """The first link is told of before the DHT knows of it."""
    async with meeting((RARE,)) as (bootstrap, seeker, [worker]):
        await found_at_last(seeker, RARE, worker.node)
        for number in range(6):
            async with running(LoopbackBench(), bytes((100 + number,)) * 32) as newcomer:
                newcomer.dial(bootstrap)
                await newcomer.next(NeighbourUp)
                assert list(await providers(newcomer, RARE)) == [worker.node]
