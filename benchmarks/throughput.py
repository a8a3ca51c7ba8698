"""Tokens per second of a real model through API and peer, against the same backend called directly, in turns."""

import http.client
import json
from pathlib import Path
from time import perf_counter

import trio

from benchmarks.figures import Figure, at_most, percentile
from node.backends import GenerationRequest, Surroundings
from node.backends.references import open_backend
from protocol.parts import Sampling, Turn
from tests.processes import RealNode, real_nodes

ROUNDS = 12
MODEL = "smollm2-135m"
TOKENS = 192  # Long enough that the wait for the first token, which `latency` measures, does not count twice.
TEXT = "Tell me a long story about a flock of starlings."


def measure(folder: Path) -> list[Figure]:
    with real_nodes(folder) as start:
        worker = start.start("worker", models=(MODEL,))
        asker = start.start("asker", join=worker.addresses[:1])
        asker.wait_for("chat")
        direct, through = trio.run(_in_turns, folder, asker)
    # Each round is a pair taken within seconds: the median of the ratios is steadier than the ratio of the medians.
    ratio = percentile([peer / own for own, peer in zip(direct, through, strict=True)], 0.5)
    return [
        Figure("called directly, median", f"{percentile(direct, 0.5):.1f} tok/s"),
        Figure("through API + peer, median", f"{percentile(through, 0.5):.1f} tok/s"),
        at_most("lost through API + peer, median of pairs", (1 - ratio) * 100, 3, "%"),
    ]


async def _in_turns(folder: Path, asker: RealNode) -> tuple[list[float], list[float]]:
    direct: list[float] = []
    through: list[float] = []
    backend = open_backend(MODEL, Surroundings(folder, 1))
    async with trio.open_nursery() as nursery:
        (capability, *_) = await nursery.start(backend.run)
        request = GenerationRequest("chat", capability.model, (Turn("user", TEXT),), TOKENS, Sampling(), ())
        for number in range(1 + ROUNDS):
            samples = []
            turns = ["direct", "through"] if number % 2 else ["through", "direct"]
            for turn in turns:
                speed = await _direct(backend, request) if turn == "direct" else await trio.to_thread.run_sync(_through, asker)
                samples.append((turn, speed))
            if number:  # The first round warms both up.
                direct += [speed for turn, speed in samples if turn == "direct"]
                through += [speed for turn, speed in samples if turn == "through"]
        nursery.cancel_scope.cancel()
    return direct, through


async def _direct(backend: object, request: GenerationRequest) -> float:
    sending, receiving = trio.open_memory_channel[str](1000)
    began = perf_counter()
    tokens = 0
    async with trio.open_nursery() as call:

        async def work() -> None:
            nonlocal tokens
            async with sending:
                tokens = (await backend.generate(request, sending)).tokens_out  # type: ignore[attr-defined]

        call.start_soon(work)
        async for _ in receiving:
            pass
    return tokens / (perf_counter() - began)


def _through(asker: RealNode) -> float:
    connection = http.client.HTTPConnection(asker.api.removeprefix("http://"), timeout=120)
    headers = {"authorization": f"Bearer {asker.key}", "content-type": "application/json"}
    body = {
        "model": "auto", "stream": True, "max_tokens": TOKENS, "temperature": 0,
        "messages": [{"role": "user", "content": TEXT}], "stream_options": {"include_usage": True},
    }  # fmt: skip
    began = perf_counter()
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    tokens = 0
    for line in connection.getresponse():
        if line.startswith(b"data: {"):
            usage = json.loads(line[6:]).get("usage")
            tokens = usage["completion_tokens"] if usage else tokens
    connection.close()
    return tokens / (perf_counter() - began)
