"""A task as bytes and back, so that another run of this node can ask it again."""

from dataclasses import astuple

import msgpack

from protocol.identity import NodeId
from protocol.parts import Demands, FunctionCall, Sampling, TaskId, Turn
from swarm.values import Privacy, Task

VERSION = 2


def pack(task: Task) -> bytes:
    """The task without its id, which the journal has beside it."""
    turns = [astuple(turn) for turn in task.turns]
    packed: bytes = msgpack.packb(
        [
            VERSION, task.skill, turns, task.model, task.tokens_max, astuple(task.sampling), list(task.stops),
            task.deadline_s, task.privacy.value, task.worker, astuple(task.demands),
        ]
    )  # fmt: skip
    return packed


def unpack(identity: TaskId, packed: bytes) -> Task:
    """Raises ValueError for bytes that this version did not write."""
    try:
        version, *fields = msgpack.unpackb(packed, use_list=False)
        if version != VERSION:
            raise ValueError(f"it has version {version}")
        skill, turns, model, tokens_max, sampling, stops, deadline_s, privacy, worker, demands = fields
        return Task(
            identity, skill, tuple(_turn(*turn) for turn in turns), model, int(tokens_max), Sampling(*sampling),
            stops, float(deadline_s), Privacy(privacy), NodeId(worker) if worker else None, Demands(*demands),
        )  # fmt: skip
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise ValueError(f"not a stored request: {error}") from None


def _turn(role: str, text: str, calls: tuple[tuple[str, str, str], ...], call: str) -> Turn:
    return Turn(role, text, tuple(FunctionCall(*each) for each in calls), call)
