"""A stream that comes to nothing is let go, however it did."""

from typing import Any

import pytest
import trio
from libp2p.protocol_muxer.multiselect_client import MultiselectClient

from node.libp2p import transport
from node.libp2p.circuits import HOP, open_stream
from node.libp2p.host import peer_of
from node.libp2p.pipes import StreamPipe
from node.transport_bench import ALICE, BOB, running
from swarm.effects import Dial
from swarm.events import DialFailed
from swarm.values import Contact
from tests.node.libp2p.scenarios import pair
from tests.node.libp2p.strangers import LoopbackBench


async def test_a_stream_whose_protocol_is_never_agreed_on_goes_with_whoever_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting: list[Any] = []
    select = MultiselectClient.select_one_of

    async def wait(self: Any, protocols: Any, communicator: Any, *rest: Any) -> Any:
        if HOP not in protocols:
            return await select(self, protocols, communicator, *rest)
        waiting.append(communicator.read_writer.muxed_stream)
        await trio.sleep_forever()

    monkeypatch.setattr(MultiselectClient, "select_one_of", wait)
    async with pair() as both:
        with trio.move_on_after(0.05):
            await open_stream(both.outgoing, HOP)
        assert waiting[0].closed


async def test_a_wire_to_a_peer_that_can_be_no_node_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    refused: list[Any] = []

    def refuse(stream: Any, nursery: trio.Nursery) -> StreamPipe:
        if stream.muxed_conn.peer_id != peer_of(bob.node):
            return StreamPipe(stream, nursery)
        refused.append(stream.muxed_stream)
        raise ValueError("not an Ed25519 key")

    async with running(LoopbackBench(), ALICE) as alice, running(LoopbackBench(), BOB) as bob:
        monkeypatch.setattr(transport, "StreamPipe", refuse)
        alice.transport.dial(Dial(Contact(bob.node, bob.addresses)))
        assert "not a starlings node" in (await alice.next(DialFailed)).cause
        assert refused[0].closed
