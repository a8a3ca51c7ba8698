"""A whole node beside a stranger who keeps to the wire, and whose words would break it if they were repeated."""

import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
import trio

from node.libp2p.pipes import StreamPipe
from node.libp2p.transport import WIRE
from protocol.genesis import swarm_id
from protocol.identity import Identity, node_from_text
from protocol.link import Link
from protocol.messages import Message, Ping, Pong, ReachAnswer, ReachAsk
from tests.node.libp2p.strangers import connected, opened, stranger_host
from tests.processes import RealNode, real_nodes

SEED = b"m" * 32
LIMIT_S = 60.0  # Of a test that fails.
PLACES = ("/ip4/x", "x" * 192, "/ip4/10.0.0.1", "/ip4/" + "9" * 150)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[RealNode]:
    with real_nodes(tmp_path) as starter:
        yield starter.start("victim", **{"swarm.current": "attic"})


@pytest.mark.parametrize("seen", PLACES)
async def test_nothing_that_a_stranger_says_of_addresses_ends_a_node(node: RealNode, seen: str) -> None:
    """[RCH-1] [RCH-2] In questions, and in answers to the node's own."""
    peer = node_from_text(node.addresses[0].rpartition("/")[2])
    with trio.fail_after(LIMIT_S):
        async with stranger_host(SEED) as host, trio.open_nursery() as nursery:
            pipe = StreamPipe(await opened(host, await connected(host, node.addresses[0]), [WIRE]), nursery)
            link = Link(Identity(SEED), peer, swarm_id("attic"), Random())
            await pipe.write(link.hello("mallory", "test", (seen,), time.time()))

            async def hear(kind: type[Message]) -> Message:
                while True:
                    for message in link.receive(await pipe.read(), time.time()):
                        if isinstance(message, Ping):
                            await pipe.write(link.send(Pong(message.nonce), time.time()))
                        if isinstance(message, kind):
                            return message

            asked = await hear(ReachAsk)
            assert isinstance(asked, ReachAsk)
            port = asked.addresses[0].split("/")[4]
            answer, ask = ReachAnswer(seen, (f"{seen}/tcp/{port}"[:192],)), ReachAsk(("/ip4/1/tcp/" + "０" * 50 + port,))
            for message in (answer, ask, Ping(9)):
                await pipe.write(link.send(message, time.time()))
            assert await hear(Pong) == Pong(9)
            nursery.cancel_scope.cancel()
    assert node.process.poll() is None
    assert node.control("GET", "status")["addresses"] == list(node.addresses)
