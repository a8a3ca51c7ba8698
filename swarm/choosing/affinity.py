"""Which worker holds the keys and values of a conversation: the one that answered its last turn need not read it again."""

from hashlib import sha256

from protocol.identity import NodeId
from protocol.parts import Turn
from swarm.values import Task

CONVERSATIONS_MAX = 512  # Remembered at once; the longest unused are forgotten first. About 100 KB.
REMEMBERED_S = 900.0  # A worker's cache is small; after a quarter of an hour somebody else's conversation is in it.


class Affinity:
    """A chained hash of the turns so far, to the worker that has them."""

    def __init__(self) -> None:
        self._holders: dict[bytes, tuple[NodeId, float]] = {}

    def remember(self, task: Task, answer: str, worker: NodeId, now: float) -> None:
        """A worker has answered: it holds the conversation and its own answer."""
        turns = (*task.turns, Turn("assistant", answer))
        for key, _ in _prefixes(turns)[-2:]:
            self._holders.pop(key, None)
            self._holders[key] = (worker, now)
        while len(self._holders) > CONVERSATIONS_MAX:
            del self._holders[next(iter(self._holders))]

    def held(self, task: Task, now: float) -> tuple[NodeId, float] | None:
        """Who holds the longest beginning of this task's input, and which share of its bytes that is."""
        if not self._holders:
            return None
        prefixes = _prefixes(task.turns)
        for key, size in reversed(prefixes):
            holder = self._holders.get(key)
            if holder is not None and now - holder[1] <= REMEMBERED_S:
                return holder[0], size / max(1, prefixes[-1][1])
        return None


def _prefixes(turns: tuple[Turn, ...]) -> list[tuple[bytes, int]]:
    """For each beginning of a conversation its hash and its size in bytes."""
    prefixes, chain, size = [], b"", 0
    for turn in turns:
        text = turn.text.encode(errors="replace")
        chain = sha256(chain + turn.role.encode() + b"\0" + text).digest()
        size += len(text)
        prefixes.append((chain, size))
    return prefixes
