"""A task as bytes and back, so that another run of this node can ask it again."""

import msgpack

from protocol.identity import NodeId
from protocol.messages import TaskId, Turn
from swarm.values import Privacy, Task

VERSION = 1


def pack(task: Task) -> bytes:
    """The task without its id, which the journal has beside it."""
    turns = [[turn.role, turn.text] for turn in task.turns]
    packed: bytes = msgpack.packb(
        [
            VERSION, task.skill, turns, task.model, task.tokens_max, task.temperature, task.top_p, task.seed,
            list(task.stops), task.deadline_s, task.privacy.value, task.worker,
        ]
    )  # fmt: skip
    return packed


def unpack(identity: TaskId, packed: bytes) -> Task:
    """Raises ValueError for bytes that this version did not write."""
    try:
        version, skill, turns, model, tokens_max, temperature, top_p, seed, stops, deadline_s, privacy, worker = (
            msgpack.unpackb(packed)
        )
        if version != VERSION:
            raise ValueError(f"it has version {version}")
        return Task(
            identity, skill, tuple(Turn(role, text) for role, text in turns), model, int(tokens_max), float(temperature),
            float(top_p), int(seed), tuple(stops), float(deadline_s), Privacy(privacy), NodeId(worker) if worker else None,
        )  # fmt: skip
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise ValueError(f"not a stored request: {error}") from None
