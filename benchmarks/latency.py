"""Time to first token through API and peer, against the same backend called directly, both warm, in turns."""

import http.client
import json
from pathlib import Path
from time import perf_counter

import trio

from benchmarks.figures import Figure, at_most, percentile
from node.backends import Backend, GenerationRequest, Piece, Surroundings
from node.backends.references import open_backend
from protocol.parts import Sampling, Turn
from tests.processes import RealNode, real_nodes

ROUNDS = 400
WARM_UP = 30
BACKEND = "echo:"
TEXT = "How many birds does each starling follow?"


def measure(folder: Path) -> list[Figure]:
    with real_nodes(folder) as start:
        worker = start.start("worker", models=(BACKEND,))
        asker = start.start("asker", join=worker.addresses[:1])
        asker.wait_for("chat")
        direct, through, alone = trio.run(_in_turns, folder, asker, worker)
    added_p50 = (percentile(through, 0.5) - percentile(direct, 0.5)) * 1000
    added_p99 = (percentile(through, 0.99) - percentile(direct, 0.5)) * 1000
    own = (percentile(alone, 0.5) - percentile(direct, 0.5)) * 1000
    return [
        at_most("added time to first token, API + peer, p50", added_p50, 6, "ms", 2),
        at_most("added time to first token, API + peer, p99", added_p99, 15, "ms", 2),
        Figure("the same, API alone (the worker asked by its own user), p50", f"{own:.2f} ms"),
        Figure("the backend called directly, p50", f"{percentile(direct, 0.5) * 1000:.3f} ms"),
    ]


async def _in_turns(folder: Path, asker: RealNode, worker: RealNode) -> tuple[list[float], list[float], list[float]]:
    direct: list[float] = []
    through: list[float] = []
    alone: list[float] = []
    backend = open_backend(BACKEND, Surroundings(folder, 1))
    asker_client, worker_client = Client(asker), Client(worker)
    async with trio.open_nursery() as nursery:
        (capability, *_) = await nursery.start(backend.run)
        request = GenerationRequest("chat", capability.model, (Turn("user", TEXT),), 64, Sampling(), ())
        for number in range(WARM_UP + ROUNDS):
            samples = await _direct_s(backend, request), asker_client.first_token_s(), worker_client.first_token_s()
            if number >= WARM_UP:
                for kept, sample in zip((direct, through, alone), samples, strict=True):
                    kept.append(sample)
        nursery.cancel_scope.cancel()
    return direct, through, alone


async def _direct_s(backend: Backend, request: GenerationRequest) -> float:
    sending, receiving = trio.open_memory_channel[str | Piece](1000)

    async def work() -> None:
        async with sending:
            await backend.generate(request, sending)

    began = perf_counter()
    async with trio.open_nursery() as call:
        call.start_soon(work)
        await receiving.receive()
        first_s = perf_counter() - began
        async for _ in receiving:
            pass
    return first_s


class Client:
    """A plain HTTP client on one warm connection: the measured time is the node's, not a library's."""

    def __init__(self, node: RealNode) -> None:
        self._connection = http.client.HTTPConnection(node.api.removeprefix("http://"), timeout=30)
        self._headers = {"authorization": f"Bearer {node.key}", "content-type": "application/json"}
        self._body = json.dumps(
            {"model": "auto", "stream": True, "messages": [{"role": "user", "content": TEXT}]}
        ).encode()

    def first_token_s(self) -> float:
        began = perf_counter()
        self._connection.request("POST", "/v1/chat/completions", self._body, self._headers)
        response = self._connection.getresponse()
        assert response.status == 200, response.read()
        first = 0.0
        for line in response:
            if not first and line.startswith(b"data: {") and b'"content":"' in line and b'"content":""' not in line:
                first = perf_counter()
        assert first, "no text came"
        return first - began
