"""The DHT leads a node that knows one other to workers that it was never told of, and only to those of its own swarm."""

from contextlib import AsyncExitStack

import trio

from node.libp2p import rendezvous
from node.transport_contract import OTHER_SWARM, SWARM, Watched, running
from protocol.identity import NodeId
from swarm.events import ContactsFound, NeighbourUp
from tests.node.libp2p.strangers import LoopbackBench

WORKERS = 4


async def _providers(node: Watched, skill: str) -> dict[NodeId, tuple[str, ...]]:
    node.transport.find_providers(skill)
    found = await node.next(ContactsFound)
    assert (found.source, found.skill) == ("dht", skill)
    return {contact.node: contact.addresses for contact in found.contacts if contact.node is not None}


async def test_workers_are_found_through_one_bootstrap_node() -> None:
    async with AsyncExitStack() as stack:
        bootstrap, seeker, foreign, *workers = [
            await stack.enter_async_context(
                running(LoopbackBench(), bytes((n,)) * 32, OTHER_SWARM if n == 2 else SWARM)
            )
            for n in range(3 + WORKERS)
        ]
        for worker in workers:
            worker.transport.provide(("chat",) if worker is not workers[0] else ("chat", "x-rare"))
            worker.dial(bootstrap)
            await worker.next(NeighbourUp)
        foreign.transport.provide(("chat",))
        foreign.dial(bootstrap)
        seeker.dial(bootstrap)
        await seeker.next(NeighbourUp)
        found: dict[NodeId, tuple[str, ...]] = {}
        while len(found) < WORKERS:
            found = await _providers(seeker, "chat")
            await trio.sleep(0.1)
        assert found == {worker.node: worker.addresses for worker in workers}
        members: dict[NodeId, tuple[str, ...]] = {}
        while not {bootstrap.node, *found} <= set(members):
            members = await _providers(seeker, "")
        assert foreign.node not in members
        while list(await _providers(seeker, "x-rare")) != [workers[0].node]:
            await trio.sleep(0.1)
        assert await _providers(seeker, "no such skill") == {}


async def test_nobody_to_ask_finds_nobody() -> None:
    async with running(LoopbackBench(), b"a" * 32) as alone:
        assert await _providers(alone, "chat") == {}


async def test_lookups_are_bounded() -> None:
    async with running(LoopbackBench(), b"a" * 32) as alone:
        for _ in range(50):
            alone.transport.find_providers("chat")
        for _ in range(50):
            await alone.next(ContactsFound)
        assert alone.transport._rendezvous._lookups == 0  # type: ignore[attr-defined]


def test_keys_differ_by_swarm_and_skill() -> None:
    keys = {rendezvous.key_of(swarm, skill) for swarm in (SWARM, OTHER_SWARM) for skill in ("", "chat", "embed")}
    assert len(keys) == 6
    assert rendezvous.key_of(SWARM, "chat") == rendezvous.key_of(SWARM, "chat")
