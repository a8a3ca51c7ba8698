"""Small values that the tests of the parts share: node ids, capabilities, adverts, tasks."""

from dataclasses import replace
from typing import Any

from protocol.identity import NodeId
from protocol.messages import Advert, Signed, TaskRequest
from protocol.parts import AttemptId, Capability, Sampling, TaskId, Turn
from swarm.values import Privacy, Task, Usage

NOW = 1_700_000_000.0
USAGE = Usage("stop", 10, 21, 0.5, 2.5)


def node_id(number: int) -> NodeId:
    """Ids that sort as their numbers do."""
    return NodeId(number.to_bytes(32, "big"))


ADA, BOB, CYD, DAN = (node_id(number) for number in (1, 2, 3, 4))


def capability(skill: str = "chat", model: str = "smollm2", **changes: Any) -> Capability:
    return replace(Capability(skill, model, b"", 2048, 20.0, 100, 1, (), ""), **changes)


def advert(*capabilities: Capability, **changes: Any) -> Advert:
    return replace(Advert("bob", ("/memory/bob",), capabilities, 1, 0, 0, False), **changes)


def signed(
    issuer: NodeId, *capabilities: Capability, issued_at: float = NOW, lifetime_s: float = 60.0, **changes: Any
) -> Signed[Advert]:
    """An advert as it comes out of the codec; nothing here checks its seal."""
    told = advert(*capabilities, **changes)
    return Signed(issuer, round(issued_at * 1000), round(lifetime_s * 1000), told, b"")


def task(label: bytes = b"t1", **changes: Any) -> Task:
    turns = (Turn("user", "why is the sky blue?"),)
    asked = Task(TaskId(label), "chat", turns, "", 64, Sampling(), (), 30.0, Privacy.SWARM, None)
    return replace(asked, **changes)


def request(attempt: bytes = b"a1", **changes: Any) -> TaskRequest:
    turns = (Turn("user", "hello"),)
    asked = TaskRequest(AttemptId(attempt), TaskId(b"t1"), "chat", "", turns, 64, Sampling(), (), 30_000)
    return replace(asked, **changes)
