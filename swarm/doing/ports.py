"""The ports of a requester: what it must be told of workers and links, whoever knows it."""

from collections.abc import Callable
from typing import Protocol

from protocol.errors import ErrorCode
from protocol.identity import NodeId
from swarm.effects import Effect
from swarm.values import Routing, Subject, Task, Usage

Choose = Callable[[Task, list[NodeId], float], Routing]
"""Who gets the next attempt of a task, given who was tried and the time."""
Remember = Callable[[Task, str, NodeId, float], None]
"""Note that a worker holds a conversation, with the answer that it has just given."""
Reach = Callable[[NodeId], list[Effect]]
"""What makes a worker reachable before a message is sent to it: a Dial, or nothing."""

Seek = Callable[[str, Subject], list[Effect]]
"""What finds workers that nobody known is: questions to the neighbours about a skill, and to the DHT about a subject."""


class Experience(Protocol):
    """Remembers how attempts went; `swarm.choosing.standing.Standings` is the real one."""

    def begun(self, node: NodeId, now: float) -> None: ...

    def accepted(self, node: NodeId, ahead: int, now: float) -> None: ...

    def answered(
        self, node: NodeId, usage: Usage, first_piece_s: float, now: float, accepted_s: float = 0.0, ahead: int = 0,
        claimed_speed: float = 0.0, reading_s: float = 0.0, shared: float = 1.0,
    ) -> None: ...  # fmt: skip

    def ended(self, node: NodeId, code: ErrorCode, blamed: bool, now: float, begun_at: float) -> None: ...

    def first_piece_p95(self, node: NodeId, now: float) -> float | None:
        """How long this worker takes from request to first text, without reading, in all but one of twenty cases, if known."""


class Vigil(Protocol):
    """Watches over links; `swarm.finding.roster.Roster` is the real one."""

    def excused(self, now: float) -> bool:
        """Whether this node itself was late just now, so that the silence of others proves nothing."""

    def silent_s(self, node: NodeId, now: float) -> float | None:
        """How long nothing has come from a neighbour; None for one without a link."""

    def miss(self, node: NodeId) -> None:
        """Others are to be asked until this worker gives a sign of life."""

    def rouse(self, node: NodeId, now: float) -> list[Effect]:
        """Ask a neighbour for a sign of life, unless it has been asked already."""
