"""Several hundred users who leave at random moments cost nobody else the connection that they share."""

from contextlib import suppress
from random import Random

import trio
from libp2p.host.ping import ID as PING
from libp2p.network.stream.exceptions import StreamError
from libp2p.protocol_muxer.exceptions import MultiselectClientError

from node.libp2p.connections import alive
from node.libp2p.host import network_of, peer_of
from node.transport_bench import Watched, linked
from protocol.errors import CANCELLED
from protocol.identity import NodeId
from protocol.messages import TaskAccepted, TaskCancelled, TaskFailed, TaskFinished, TaskPiece, TaskRequest
from protocol.parts import AttemptId, Sampling, TaskId, Turn
from swarm.events import NeighbourDown, Received
from tests.node.libp2p.strangers import LoopbackBench, opened

DEPARTURES = 400
AT_ONCE = 8
PIECES = 12


class Worker:
    """Answers every request with pieces, until it is cancelled."""

    def __init__(self, watched: Watched, nursery: trio.Nursery) -> None:
        self._watched, self._nursery = watched, nursery
        self._working: dict[AttemptId, trio.CancelScope] = {}

    async def run(self) -> None:
        while True:
            received = await self._watched.next(Received)
            match received.message:
                case TaskRequest(attempt=attempt):
                    self._nursery.start_soon(self._answer, received.sender, attempt)
                case TaskCancelled(attempt=attempt) if attempt in self._working:
                    self._working[attempt].cancel()
                case _:
                    pass

    async def _answer(self, requester: NodeId, attempt: AttemptId) -> None:
        send = self._watched.transport.send
        send(requester, TaskAccepted(attempt, "model", 0))
        with trio.CancelScope() as scope:
            self._working[attempt] = scope
            for index in range(PIECES):
                await trio.sleep(0.001)
                send(requester, TaskPiece(attempt, index, "piece " * 50))
        del self._working[attempt]
        if scope.cancelled_caught:
            send(requester, TaskFailed(attempt, CANCELLED.number, "taken back"))
        else:
            send(requester, TaskFinished(attempt, PIECES, "stop", 1, 1, 0, 0, 0))


class Requester:
    """Sorts what comes back by attempt."""

    def __init__(self, watched: Watched, worker: NodeId) -> None:
        self._watched, self._worker = watched, worker
        self._answers: dict[AttemptId, trio.MemorySendChannel[object]] = {}
        self.answered = 0

    async def run(self) -> None:
        while True:
            message = (await self._watched.next(Received)).message
            if isinstance(message, TaskAccepted | TaskPiece | TaskFinished | TaskFailed):
                self._answers[message.attempt].send_nowait(message)

    async def ask(self, number: int, patience_s: float | None) -> None:
        attempt = AttemptId(number.to_bytes(16, "big"))
        self._answers[attempt], answers = trio.open_memory_channel[object](PIECES + 4)
        turns = (Turn("user", "why"),)
        self._watched.transport.send(
            self._worker, TaskRequest(attempt, TaskId(attempt), "chat", "", turns, 64, Sampling(), (), 60_000)
        )
        with trio.move_on_after(patience_s if patience_s is not None else float("inf")) as leaving:
            last: object = None
            while not isinstance(last, TaskFinished):
                last = await answers.receive()
                assert not isinstance(last, TaskFailed)
            self.answered += 1
        if leaving.cancelled_caught:
            self._watched.transport.send(self._worker, TaskCancelled(attempt))
            while not isinstance(last, TaskFailed | TaskFinished):
                last = await answers.receive()
        del self._answers[attempt]


async def test_departures_cost_no_connection() -> None:
    dice = Random(7)
    async with linked(LoopbackBench()) as (alice, bob), trio.open_nursery() as nursery:
        requester, worker = Requester(alice, bob.node), Worker(bob, nursery)
        nursery.start_soon(requester.run)
        nursery.start_soon(worker.run)
        connections = alive(network_of(alice.transport._host))  # type: ignore[attr-defined]
        limit = trio.CapacityLimiter(AT_ONCE)
        moments = [dice.uniform(0, 0.04) for _ in range(DEPARTURES)]

        async def leave(number: int) -> None:
            async with limit:
                await requester.ask(number, moments[number])
                with trio.move_on_after(moments[-number] / 4):
                    await _use_the_same_connection(alice, bob.node)

        async with trio.open_nursery() as users:
            for number in range(DEPARTURES):
                users.start_soon(leave, number)
            for number in range(DEPARTURES, DEPARTURES + 40):
                users.start_soon(requester.ask, number, None)
        assert requester.answered >= 40
        assert not alice.all(NeighbourDown) and not bob.all(NeighbourDown)
        assert not any(connection.is_closed for connection in connections)
        nursery.cancel_scope.cancel()


async def _use_the_same_connection(alice: Watched, bob: NodeId) -> None:
    """Calls of the library itself, cancelled wherever they are: nobody should, and nobody is the worse for it.

    On a slow machine so many are left behind that the other side has no room for one more, and resets it.
    """
    host = alice.transport._host  # type: ignore[attr-defined]
    with suppress(StreamError, MultiselectClientError):
        stream = await opened(host, alive(network_of(host), peer_of(bob))[0], [PING])
        try:
            await stream.write(bytes(32))
            await stream.read(32)
        finally:
            await stream.reset()
