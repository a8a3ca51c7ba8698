"""Workers die while they speak, and the sentence goes on: over memory and between real processes, with echo and a real model."""

import http.client
import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import trio
from trio.testing import MockClock

from node.backends import Surroundings
from node.backends.echo import EchoBackend
from node.desk import AskEnded, AskRouted, AskText
from tests.node.memory_swarm import memory_swarm, task
from tests.processes import RealNode, Starter, server_sent_events

SENTENCE = "Every evening the starlings gather over the reed bed, turn and fold like smoke,\nand settle: all at once 🐦!"


async def test_each_worker_in_turn_dies_and_the_user_sees_one_answer(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with memory_swarm(tmp_path) as swarm:
        ada = await swarm.start("ada")
        for name in ("bob", "cyd", "dot"):
            await swarm.start(name, EchoBackend("delay_ms=100", Surroundings(tmp_path, 1)), knows=("ada",))
        await trio.sleep(3)
        text, speaker, killed = "", "", []
        async with ada.desk.ask(task(text=SENTENCE)) as items:
            async for item in items:
                if isinstance(item, AskRouted):
                    speaker = next(found.name for found in item.route.candidates if found.chosen)
                elif isinstance(item, AskText):
                    text += item.text
                    if len(killed) < 2 and len(text) > 20 * (1 + len(killed)) and speaker not in killed:
                        swarm.kill(speaker)
                        killed.append(speaker)
                elif isinstance(item, AskEnded):
                    end = item.answer
        assert (text, end.code) == (SENTENCE, "")
        assert [attempt.code for attempt in end.attempts] == ["connection_lost", "connection_lost", ""]
        assert [attempt.name for attempt in end.attempts][:2] == killed
        assert end.tokens_out == len(SENTENCE.split())


def test_killed_process_is_followed_by_another_in_mid_sentence(start: Starter) -> None:
    asker = start.start("asker")
    workers = [start.start(f"worker-{n}", models=("echo:delay_ms=100",), join=asker.addresses[:1]) for n in range(2)]
    asker.wait_for("chat", 2)
    text, speaker, victim = "", "", ""
    for event, data in asker.stream(SENTENCE):
        if event == "route":
            speaker = next(found["name"] for found in data["candidates"] if found["chosen"])
        elif event == "text":
            text += data["text"]
            if not victim and len(text) > 20:
                victim = speaker
                next(worker for worker in workers if worker.name == victim).kill()
        elif event == "end":
            assert (text, data["code"]) == (SENTENCE, "")
            assert victim and data["name"] != victim


def test_chat_client_sees_one_stream_of_a_real_model(start: Starter) -> None:
    """[CND-11] [CND-12] Byte for byte the answer that nobody interrupted, one finish, and no error in between."""
    asker = start.start("asker")
    options = {"models": ("smollm2-135m",), "join": asker.addresses[:1], "offer.threads": 1}
    workers = [start.start(f"worker-{number}", **options) for number in range(2)]
    asker.wait_for("chat", 2)
    with chat(asker, "Why is the sky blue?") as (_, chunks):
        whole = "".join(map(said, chunks))
    text, finishes = "", []
    with chat(asker, "Why is the sky blue?") as (node, chunks):
        victim = next(worker for worker in workers if worker.control("GET", "status")["node"] == node)
        for chunk in chunks:
            assert "error" not in chunk
            if len(text) < 20 <= len(text + said(chunk)):
                victim.kill()
            text += said(chunk)
            finishes += [choice["finish_reason"] for choice in chunk["choices"] if choice["finish_reason"]]
    assert text == whole
    assert finishes == ["length"]
    lost, answered = chunk["swarm"]["attempts"]
    assert (lost["name"], lost["code"], answered["code"]) == (victim.name, "connection_lost", "")


@contextmanager
def chat(node: RealNode, text: str) -> Iterator[tuple[str, Iterator[dict[str, Any]]]]:
    """Who answers a streamed chat completion, and its chunks."""
    connection = http.client.HTTPConnection(node.api.removeprefix("http://"), timeout=60)
    body = {
        "model": "smollm2-135m", "stream": True, "max_tokens": 60, "temperature": 0,
        "stream_options": {"include_swarm": True},
        "messages": [{"role": "user", "content": text}],
    }  # fmt: skip
    headers = {"authorization": f"Bearer {node.key}", "content-type": "application/json"}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    with closing(connection), connection.getresponse() as response:
        assert response.status == 200, response.read()
        yield response.headers["x-swarm-node"], (data for _, data in server_sent_events(response))


def said(chunk: dict[str, Any]) -> str:
    return "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])
