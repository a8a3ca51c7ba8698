"""What one message costs on the wire: sealing, opening, and the frames of a streaming answer."""

from pathlib import Path
from random import Random
from time import perf_counter

from benchmarks.figures import Figure
from protocol.identity import Identity
from protocol.link import Link
from protocol.messages import Message, TaskAccepted, TaskFailed, TaskPiece, TaskRequest
from protocol.parts import AttemptId, Sampling, TaskId, Turn

ROUNDS = 2000
NOW_S = 1_800_000_000.0


def measure(folder: Path) -> list[Figure]:
    dice = Random(1)
    asker, worker = Identity(b"a" * 32), Identity(b"b" * 32)
    swarm = bytes(32)
    near = Link(asker, worker.node, swarm, dice)
    far = Link(worker, asker.node, swarm, dice)
    far.receive(near.hello("asker", "", (), NOW_S), NOW_S)
    near.receive(far.hello("worker", "", (), NOW_S), NOW_S)
    sealed_s, piece_s = 0.0, 0.0
    for number in range(ROUNDS):
        attempt = AttemptId(number.to_bytes(16, "big"))
        sealed_s += _carry(near, far, _request(attempt))
        _carry(far, near, TaskAccepted(attempt, "small", 0))
        for index in range(3):
            piece_s += _carry(far, near, TaskPiece(attempt, index, " word"))
        _carry(far, near, TaskFailed(attempt, 16, ""))
    return [
        Figure("a signed request, sealed and opened (both ends)", f"{1e6 * sealed_s / ROUNDS:.0f} us"),
        Figure("a piece of an answer (both ends)", f"{1e6 * piece_s / ROUNDS / 3:.1f} us"),
    ]


def _carry(from_link: Link, to_link: Link, message: Message) -> float:
    began = perf_counter()
    to_link.receive(from_link.send(message, NOW_S), NOW_S)
    return perf_counter() - began


def _request(attempt: AttemptId) -> TaskRequest:
    turns = (Turn("user", "How many birds does each starling follow?"),)
    return TaskRequest(attempt, TaskId(bytes(16)), "chat", "", turns, 64, Sampling(), (), 30_000)
