"""A requester alone: ada, whom the tests tell what comes back."""

from collections.abc import Iterable
from random import Random

from protocol.identity import NodeId
from protocol.messages import TaskAccepted, TaskFinished, TaskPiece, TaskRequest
from protocol.parts import AttemptId, Capability, TaskId
from swarm.choosing.routing import can_go_on
from swarm.choosing.standing import Standings
from swarm.doing.asking import Asking
from swarm.effects import (
    Conclude,
    Dial,
    Effect,
    FindProviders,
    Send,
    SetTimer,
    Timer,
)
from swarm.settings import Settings
from swarm.values import Candidate, Contact, Excluded, Outcome, Routing, Subject, Task
from tests.swarm.samples import BOB, CYD, DAN, NOW, capability, task

T1 = TaskId(b"t1")
NAMES = {BOB: "bob", CYD: "cyd", DAN: "dan"}


class Ada:
    """Ada's tasks. She knows `able`, takes the first that was not tried, and dials everybody but bob."""

    def __init__(self, *able: NodeId, **settings: float) -> None:
        self.able = list(able)
        self.excluded: tuple[Excluded, ...] = ()
        self.settings = Settings(**settings)
        self.standings = Standings(self.settings)
        self.is_excused = False
        self.heard_at = {BOB: NOW, CYD: NOW, DAN: NOW}
        self.models: dict[NodeId, Capability] = {}
        self.wanted: Task | None = None
        self.roused: list[NodeId] = []
        self.missed: list[NodeId] = []
        self.asking = Asking(self.settings, Random(1), self.choose, self.reach, self.seek, self.standings, self, self.remember)

    def excused(self, now: float) -> bool:
        return self.is_excused

    def silent_s(self, node: NodeId, now: float) -> float | None:
        return now - self.heard_at[node] if node in self.heard_at else None

    def remember(self, asked: Task, answer: str, worker: NodeId, now: float) -> None:
        self.remembered = (asked.id, answer, worker)

    def miss(self, node: NodeId) -> None:
        self.missed.append(node)

    def rouse(self, node: NodeId, now: float) -> list[Effect]:
        self.roused.append(node)
        return []

    def choose(self, asked: Task, tried: list[NodeId], now: float) -> Routing:
        self.wanted = asked
        models = {node: self.models.get(node, capability()) for node in self.able if node not in tried}
        found = tuple(
            Candidate(node, NAMES[node], "smollm2", 1.0, None, model)
            for node, model in models.items()
            if asked.begun_by is None or can_go_on(model, asked.begun_by)
        )
        return Routing(found, tuple(each.node for each in found), found[0].node if found else None, self.excluded)

    def reach(self, node: NodeId) -> list[Effect]:
        return [] if node == BOB else [Dial(Contact(node, ("/memory/x",)))]

    def seek(self, skill: str, subject: Subject) -> list[Effect]:
        return [FindProviders(subject)]

    def ask(self, asked: Task | None = None, at: float = NOW) -> AttemptId:
        """The attempt that begins when a task is asked for."""
        return placed(self.asking.begin(asked or task(), at))[1]

    def streaming(self, *texts: str, at: float = NOW) -> AttemptId:
        """An attempt at bob's that has been accepted and has begun to answer."""
        attempt = self.ask(at=at)
        self.asking.accepted(BOB, TaskAccepted(attempt, "smollm2", 0), at)
        for index, text in enumerate(texts):
            self.asking.piece(BOB, TaskPiece(attempt, index, text), at)
        return attempt


def placed(effects: Iterable[Effect]) -> tuple[NodeId, AttemptId]:
    [found] = [effect for effect in effects if isinstance(effect, Send) and isinstance(effect.message, TaskRequest)]
    return found.to, found.message.attempt


def concluded(effects: Iterable[Effect]) -> Outcome:
    [found] = [effect.outcome for effect in effects if isinstance(effect, Conclude)]
    return found


def timers(effects: Iterable[Effect]) -> list[Timer]:
    return [effect.timer for effect in effects if isinstance(effect, SetTimer)]


def finished(attempt: AttemptId, pieces: int) -> TaskFinished:
    return TaskFinished(attempt, pieces, "stop", 10, 21, 0, 500, 2500)


def failures(ada: Ada, node: NodeId = BOB) -> float:
    standing = ada.standings.of(node, NOW)
    assert standing is not None
    assert standing.inflight == 0
    return round(standing.failures, 3)  # They fade from the first second.


def concludes(effects: Iterable[Effect]) -> list[Conclude]:
    return [effect for effect in effects if isinstance(effect, Conclude)]
