"""A complete desk over answers written in advance: what the API is tested against without a swarm behind it."""

import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import trio

from node.desk import AskEnded, AskItem, AskRouted, AskText
from node.detached import Detached
from node.meeting import JoinError
from node.metrics import Measures, Tallies
from node.recording import Recorder
from node.transport import Counts
from node.views import (
    AnswerView,
    CandidateView,
    ModelView,
    PeerView,
    RouteView,
    SkillView,
    StatusView,
)
from protocol.errors import ErrorCode
from protocol.identity import Identity, node_text
from protocol.parts import TaskId
from swarm.values import Task

HERON = node_text(Identity(b"\x01" * 32).node)
WREN = node_text(Identity(b"\x02" * 32).node)
KESTREL = node_text(Identity(b"\x03" * 32).node)

Step = AskItem | trio.Event | Exception
"""An item to give, something to wait for first, or a bug to hit."""


class ScriptedDesk:
    """Keeps the contract of `node.desk.Desk`; `answers` says for each task what comes.

    Must be entered before use: the answers are played in its own nursery, as the node's are.
    """

    def __init__(self) -> None:
        self.answers: Callable[[Task], Sequence[Step]] = lambda task: echo(task)
        self.asked: list[Task] = []
        self.cancelled: list[TaskId] = []
        self.changed = trio.Event()
        self.state = "ready"
        self.uptime_s = 60.0
        self.stopped = trio.Event()
        self.refs: list[str] = []
        self.joined: list[str] = []
        self.loading = trio.Event()
        self.loading.set()
        self.offers = [
            offer("chat", "smollm2-135m", HERON, "heron"),
            offer("classify", "magika", HERON, "heron"),
            offer("chat", "org/tiny-chat", WREN, "wren"),
            offer("summarize", "org/tiny-chat", WREN, "wren"),
        ]
        self._nursery: trio.Nursery | None = None

    @asynccontextmanager
    async def opened(self) -> AsyncIterator["ScriptedDesk"]:
        async with trio.open_nursery() as self._nursery:
            yield self
            self._nursery.cancel_scope.cancel()

    async def wait_until(self, true: Callable[[], bool]) -> None:
        """Wait for something that a task's coming or going makes true."""
        with trio.fail_after(20):
            while not true():
                await self.changed.wait()

    @asynccontextmanager
    async def ask(self, task: Task) -> AsyncIterator[trio.MemoryReceiveChannel[AskItem]]:
        assert self._nursery is not None
        sending, receiving = trio.open_memory_channel[AskItem](math.inf)
        scope = trio.CancelScope()
        ended = False
        steps = self.answers(task)

        async def play() -> None:
            nonlocal ended
            with scope, sending:
                for step in steps:
                    if isinstance(step, trio.Event):
                        await step.wait()
                    else:
                        assert not isinstance(step, Exception)
                        ended = isinstance(step, AskEnded)
                        sending.send_nowait(step)

        self.asked.append(task)
        self._tell()
        for step in steps:
            if isinstance(step, Exception):
                raise step
        self._nursery.start_soon(play)
        try:
            yield receiving
        finally:
            scope.cancel()
            receiving.close()
            if not ended:
                self.cancelled.append(task.id)
            self._tell()

    def route(self, task: Task) -> RouteView:
        self.asked.append(task)
        return route(task.skill, "smollm2-135m", HERON, "heron")

    def status(self) -> StatusView:
        return StatusView(
            state=self.state, node=KESTREL, name="kestrel", version="0", swarm="attic", pid=1, uptime_s=self.uptime_s,
            addresses=[], api="", models=self.models(), peers=self.peers(), asked=0, answered=0, failed=0, served=0,
            refused={}, warnings=[], rss_bytes=0,
        )  # fmt: skip

    def measures(self) -> Measures:
        return Measures(self.status(), Tallies(), 0, 0, 2, 3, 2, 0, 0, 1.5, Counts({}, {}, 0, 2, 4), 40)

    def peers(self) -> list[PeerView]:
        return [peer(KESTREL, "kestrel", "self"), peer(HERON, "heron", "connected"), peer(WREN, "wren", "known")]

    def skills(self) -> list[SkillView]:
        return self.offers

    def models(self) -> list[ModelView]:
        return [ModelView(ref, ref, "ready", "", ["chat"], 20.0, 80) for ref in self.refs]

    async def add_model(self, ref: str) -> ModelView:
        self.refs.append(ref)
        await self.loading.wait()
        return self.models()[-1]

    async def join(self, address: str) -> PeerView:
        if not address.startswith("/"):
            raise JoinError(f'"{address}" is not a multiaddr')
        self.joined.append(address)
        return peer(WREN, "wren", "connected")

    def stop(self) -> None:
        self.stopped.set()

    def _tell(self) -> None:
        self.changed.set()
        self.changed = trio.Event()


def without_journal(desk: ScriptedDesk) -> tuple[Recorder, Detached]:
    """What the API also works with, of a node that keeps no journal."""
    recorder = Recorder(None, lambda: 0, texts=False)
    return recorder, Detached(desk.ask, recorder)


def echo(task: Task) -> list[Step]:
    """Routed to heron, then each word of the last turn, then a good end."""
    words = task.turns[-1].text.split(" ")
    pieces = [word if number == 0 else " " + word for number, word in enumerate(words)]
    return [routed(task), *(AskText(piece) for piece in pieces), done(task, tokens_out=len(pieces))]


def routed(task: Task, model: str = "smollm2-135m", node: str = HERON, name: str = "heron") -> AskRouted:
    return AskRouted(route(task.skill, model, node, name))


def done(task: Task, *, finish: str = "stop", tokens_out: int = 2, model: str = "smollm2-135m") -> AskEnded:
    return AskEnded(None, replace(answer(task, None, "", finish=finish, tokens_out=tokens_out), model=model))


def failed(task: Task, code: ErrorCode, reason: str = "") -> AskEnded:
    return AskEnded(code, answer(task, code, reason or code.meaning))


def answer(task: Task, code: ErrorCode | None, reason: str, *, finish: str = "", tokens_out: int = 0) -> AnswerView:
    good = code is None
    return AnswerView(
        task=task.id.hex(),
        skill=task.skill,
        code=code.name if code else "",
        reason=reason,
        node=HERON if good else "",
        name="heron" if good else "",
        model="smollm2-135m" if good else "",
        finish=finish,
        tokens_in=7 if good else 0,
        tokens_out=tokens_out,
        first_piece_s=0.01 if good else None,
        seconds=0.02,
    )


def route(skill: str, model: str, node: str, name: str) -> RouteView:
    candidate = CandidateView(node, name, model, 0.1, drawn=True, chosen=True, parts=[("load", "0/2")])
    return RouteView(skill, [candidate], [])


def offer(skill: str, model: str, node: str, name: str) -> SkillView:
    return SkillView(skill, model, node, name, 30.0, 80, 2048, [], "")


def peer(node: str, name: str, state: str) -> PeerView:
    return PeerView(node, name, state, 1.0, 0.5, [], [], [], None, 2, 0, 0)
