"""Which workers hold keys and values of a conversation: who has read its beginning need not read it again."""

from hashlib import sha256

from protocol.identity import NodeId
from protocol.parts import Turn
from protocol.prefixes import prefix_of
from swarm.values import Task

BEGINNINGS_MAX = 512  # Remembered at once; the longest unused are forgotten first. About 100 KB.
REMEMBERED_S = 900.0  # A worker's memory is small; after a quarter of an hour somebody else's conversation is in it.


class Affinity:
    """What this node itself has had read: the hash of a beginning, to the worker that read it last."""

    def __init__(self) -> None:
        self._holders: dict[bytes, tuple[NodeId, float]] = {}

    def remember(self, task: Task, answer: str, worker: NodeId, now: float) -> None:
        """A worker has answered: it holds the prefix, the conversation and its own answer."""
        turns = (*task.turns, Turn("assistant", answer))
        prefix, _ = prefix_of("", task.turns, task.demands.tools)
        for key in (prefix, *(key for key, _ in _beginnings(turns)[-2:])):
            if key:
                self._holders.pop(key, None)
                self._holders[key] = (worker, now)
        while len(self._holders) > BEGINNINGS_MAX:
            del self._holders[next(iter(self._holders))]

    def held(self, task: Task, now: float) -> dict[NodeId, float]:
        """Which share of the bytes of this task's input some workers hold."""
        if not self._holders:
            return {}
        beginnings = _beginnings(task.turns)
        whole = max(1, task.bytes_in)
        shares: dict[NodeId, float] = {}
        for key, size in (prefix_of("", task.turns, task.demands.tools), *beginnings):  # The longer ones come later.
            worker, at = self._holders.get(key, (None, 0.0))
            if worker is not None and now - at <= REMEMBERED_S:
                shares[worker] = size / whole
        return shares


def _beginnings(turns: tuple[Turn, ...]) -> list[tuple[bytes, int]]:
    """For each beginning of a conversation its hash and its size in bytes."""
    beginnings, chain, size = [], b"", 0
    for turn in turns:
        text = turn.text.encode(errors="replace")
        chain = sha256(chain + turn.role.encode() + b"\0" + text).digest()
        size += len(text)
        beginnings.append((chain, size))
    return beginnings
