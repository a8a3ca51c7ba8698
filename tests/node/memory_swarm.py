"""A swarm of whole nodes in one process, for tests: everything is real but the wire, which is memory."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import trio

from node.assembly import Node, assemble
from node.backends import Backend, BackendError, Generated, GenerationRequest, Surroundings
from node.desk import AskEnded, AskText
from node.memory_transport import MemoryNetwork, MemoryTransport
from node.recording import Recorder
from node.views import AnswerView
from protocol.genesis import swarm_id
from protocol.identity import Identity
from protocol.parts import Capability, Sampling, TaskId, Turn
from swarm.events import ContactsFound, Started
from swarm.settings import Settings
from swarm.values import MEMBERSHIP, Contact, Privacy, Task

SWARM = swarm_id("test")


class ScriptedBackend:
    """A backend that does as its test says: `words` one by one, after `hold` is set; or an error."""

    def __init__(self, model: str, skill: str = "chat", words: tuple[str, ...] = ("hello", " world")) -> None:
        self.model, self.skill, self.words = model, skill, words
        self.hold = trio.Event()
        self.hold.set()
        self.hold_after_first = trio.Event()
        self.hold_after_first.set()
        self.begun = trio.Event()
        self.cancelled = trio.Event()
        self.error: BackendError | None = None
        self.pid = None

    async def run(self, *, task_status: trio.TaskStatus[tuple[Capability, ...]]) -> None:
        task_status.started((Capability(self.skill, self.model, b"", 2048, 50.0, 20, 1, (), ""),))
        await trio.sleep_forever()

    async def generate(self, request: GenerationRequest, pieces: trio.MemorySendChannel[str]) -> Generated:
        self.begun.set()
        try:
            await self.hold.wait()
            if self.error is not None:
                raise self.error
            for number, word in enumerate(self.words):
                await pieces.send(word)
                if number == 0:
                    await self.hold_after_first.wait()
        except trio.Cancelled:
            self.cancelled.set()
            raise
        return Generated("stop", 3, len(self.words))


@dataclass
class MemorySwarm:
    """Starts nodes by name; every node but the first knows the first one's address."""

    nursery: trio.Nursery
    folder: Path
    settings: Settings
    network: MemoryNetwork = field(default_factory=MemoryNetwork)
    nodes: dict[str, Node] = field(default_factory=dict)
    scopes: dict[str, trio.CancelScope] = field(default_factory=dict)

    async def start(
        self, name: str, *backends: Backend, knows: tuple[str, ...] = (), recorder: Recorder | None = None
    ) -> Node:
        """With a journal only if a recorder is given; the node runs it."""
        seed = name.encode().ljust(32, b".")
        transport = MemoryTransport(self.network, seed, SWARM, name, f"/memory/{name}", trio.current_time, Random(name))
        named = {f"test:{number}": backend for number, backend in enumerate(backends)}
        node = assemble(
            identity=Identity(seed),
            swarm=SWARM,
            name=name,
            settings=self.settings,
            transport=transport,
            open_model=lambda ref, _: named[ref],
            surroundings=Surroundings(self.folder, 1),
            parallel_max=4,
            memory_bytes=2**40,
            clock=trio.current_time,
            dice=Random(name),
            stop=lambda: None,
            recorder=(recorder := recorder or Recorder(None, lambda: 0, texts=False)),
        )
        self.nodes[name] = node
        await self.nursery.start(self._run, name, node, recorder, tuple(named), knows)
        return node

    async def _run(
        self,
        name: str,
        node: Node,
        recorder: Recorder,
        refs: tuple[str, ...],
        knows: tuple[str, ...],
        *,
        task_status: trio.TaskStatus[None],
    ) -> None:
        async with recorder.running(), trio.open_nursery() as nursery:
            self.scopes[name] = nursery.cancel_scope
            await node.detached.recover()
            addresses = await nursery.start(node.transport.run, node.driver.post)
            nursery.start_soon(node.driver.run)
            await nursery.start(node.models.run, refs)
            node.driver.post(Started(addresses))
            contacts = tuple(Contact(None, (f"/memory/{known}",)) for known in knows)
            node.driver.post(ContactsFound("join", MEMBERSHIP, contacts))
            await nursery.start(node.detached.run)
            node.desk.state = "ready"
            task_status.started()

    def kill(self, name: str) -> None:
        """The whole node is gone at once."""
        self.scopes[name].cancel()


@asynccontextmanager
async def memory_swarm(folder: Path, settings: Settings | None = None) -> AsyncIterator[MemorySwarm]:
    """A swarm that ends with the block."""
    async with trio.open_nursery() as nursery:
        yield MemorySwarm(nursery, folder, settings or Settings())
        nursery.cancel_scope.cancel()


def task(number: int = 1, *, skill: str = "chat", text: str = "hi", deadline_s: float = 30.0, model: str = "") -> Task:
    """A plain task."""
    turns = (Turn("user", text),)
    identity = TaskId(number.to_bytes(16, "big"))
    return Task(identity, skill, turns, model, 64, Sampling(), (), deadline_s, Privacy.SWARM, None)


async def answer(node: Node, asked: Task) -> tuple[str, AnswerView]:
    """The whole text, and how it ended."""
    text = ""
    async with node.desk.ask(asked) as items:
        async for item in items:
            if isinstance(item, AskText):
                text += item.text
            elif isinstance(item, AskEnded):
                return text, item.answer
    raise AssertionError("the channel ended without an end")
