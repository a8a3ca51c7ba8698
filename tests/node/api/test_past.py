"""The routes under /swarm/v1/tasks, over a whole node with a journal."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from node.api.access import AccessRules
from node.api.app import make_app
from node.views import TaskView, TraceView
from tests.node.api.raw_http import KEY
from tests.node.api.scripted_desk import ScriptedDesk, without_journal
from tests.node.memory_swarm import ScriptedBackend, memory_swarm
from tests.node.test_recording import recorder

HEADERS = {"host": "127.0.0.1", "authorization": f"Bearer {KEY}"}
TASKS = "/swarm/v1/tasks"


@asynccontextmanager
async def api(folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    kept = recorder(folder)
    async with memory_swarm(folder) as swarm:
        node = await swarm.start("alone", ScriptedBackend("m"), recorder=kept)
        app = make_app(node.desk, AccessRules(KEY), kept, node.detached, deadline_s=60.0)
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://127.0.0.1", headers=HEADERS
        ) as client:
            yield client


async def detached(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    reply = await client.post(TASKS, json={"text": "later", **body})
    assert reply.status_code == 202, reply.text
    found: dict[str, Any] = reply.json()
    return found


async def test_detached_task_is_taken_waited_for_and_listed(tmp_path: Path) -> None:
    async with api(tmp_path) as client:
        begun = await detached(client)
        assert (begun["schema"], begun["state"]) == ("swarm.detached/1", "open")
        found = (await client.get(f"{TASKS}/{begun['task'][:8].upper()}?wait_s=20")).json()
        assert (found["schema"], found["text"], found["asked"]) == ("swarm.trace/1", "hello world", "later")
        listed = (await client.get(TASKS)).json()
        assert listed["schema"] == "swarm.history/1"
        assert [TaskView(**task).state for task in listed["tasks"]] == ["done"]
        assert set(found) == set(TraceView.__slots__)


async def test_tasks_asked_through_the_openai_side_are_listed_too(tmp_path: Path) -> None:
    async with api(tmp_path) as client:
        body = {"messages": [{"role": "user", "content": "hi"}]}
        private = {**body, "swarm": {"privacy": "local"}}
        for asked in (body, private):
            assert (await client.post("/v1/chat/completions", json=asked)).status_code == 200
        listed = (await client.get(f"{TASKS}?count=5")).json()["tasks"]
        assert [(task["begins"], task["privacy"], task["state"]) for task in listed] == [
            ("", "local", "done"),
            ("hi", "swarm", "done"),
        ]


async def test_item_of_a_batch_is_taken_once(tmp_path: Path) -> None:
    async with api(tmp_path) as client:
        first = await detached(client, batch="b", item="1")
        await client.get(f"{TASKS}/{first['task']}?wait_s=20")
        assert await detached(client, batch="b", item="1") == {**first, "state": "done"}
        await detached(client, batch="b", item="2")
        assert len((await client.get(f"{TASKS}?batch=b")).json()["tasks"]) == 2
        assert (await client.get(f"{TASKS}?batch=c")).json()["tasks"] == []


@pytest.mark.parametrize(
    "path", [f"{TASKS}?count=-1", f"{TASKS}?count=10001", f"{TASKS}?count=nan", f"{TASKS}/0a?wait_s=26", f"{TASKS}/xyz"]
)
async def test_numbers_and_ids_out_of_bounds_are_refused(tmp_path: Path, path: str) -> None:
    async with api(tmp_path) as client:
        reply = await client.get(path)
        assert (reply.status_code, reply.json()["error"]["code"]) == (400, "bad_request")


@pytest.mark.parametrize(
    "body", [{"text": "x", "batch": "b" * 257}, {"text": "x", "item": 7}, {"batch": "b"}, {"text": "x", "y": 1}]
)
async def test_what_cannot_be_a_detached_task_is_refused(tmp_path: Path, body: dict[str, Any]) -> None:
    async with api(tmp_path) as client:
        reply = await client.post(TASKS, json=body)
        assert (reply.status_code, reply.json()["error"]["code"]) == (400, "bad_request")
        assert (await client.get(TASKS)).json()["tasks"] == []


async def test_node_without_a_journal_takes_nothing_for_later(tmp_path: Path) -> None:
    desk = ScriptedDesk()
    app = make_app(desk, AccessRules(KEY), *without_journal(desk), deadline_s=60.0)  # type: ignore[arg-type]
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://127.0.0.1", headers=HEADERS
    ) as client:
        reply = await client.post(TASKS, json={"text": "later"})
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "not_detached")
        assert (await client.get(TASKS)).json()["tasks"] == []
        assert desk.asked == []
