"""Server-sent events: their order, early failures with a status, late ones as events, and clients that leave."""

import json

import pytest
import trio
import trio.testing

from node.api import streaming
from node.api.streaming import next_batch
from node.desk import AskText
from protocol import errors as codes
from tests.node.api.raw_http import Served, events, served
from tests.node.api.scripted_desk import HERON, WREN, ScriptedDesk, done, failed, routed

CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"
ASK = "/swarm/v1/ask"
HELLO = {"model": "auto", "messages": [{"role": "user", "content": "one two three"}], "stream": True}
PATHS = [
    (CHAT, HELLO),
    (CHAT, {**HELLO, "stream": False}),
    (ASK, {"text": "one two three"}),
    (RESPONSES, {"input": "one two three", "stream": True}),
    (RESPONSES, {"input": "one two three", "stream": False}),
]


async def test_chunks_come_in_the_order_that_clients_expect(api: Served) -> None:
    reply = await api.post(CHAT, {**HELLO, "stream_options": {"include_usage": True}})
    assert reply.status == 200
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert (reply.headers["cache-control"], reply.headers["x-accel-buffering"]) == ("no-cache", "no")
    assert reply.headers["x-swarm-node"] == HERON
    assert reply.headers["x-swarm-task"] == api.desk.asked[0].id.hex()
    assert (reply.headers["x-swarm-worker"], reply.headers["x-swarm-model"]) == ("heron", "smollm2-135m")

    chunks = [data for _, data in events(reply.body)]
    assert chunks.pop() == "[DONE]"
    usage = chunks.pop()
    assert usage["choices"] == []
    assert usage["usage"] == {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    assert all(chunk["usage"] is None for chunk in chunks)
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == "one two three"
    assert chunks[-1]["swarm"]["node"] == HERON
    assert {(c["id"], c["model"], c["created"], c["object"]) for c in [*chunks, usage]} == {
        (f"chatcmpl-{api.desk.asked[0].id.hex()}", "smollm2-135m", usage["created"], "chat.completion.chunk")
    }


async def test_without_include_usage_no_chunk_has_usage(api: Served) -> None:
    chunks = [data for _, data in events((await api.post(CHAT, HELLO)).body)]
    assert all("usage" not in chunk for chunk in chunks[:-1])
    assert all(len(chunk["choices"]) == 1 for chunk in chunks[:-1])


async def test_swarm_object_comes_only_to_those_who_ask(api: Served) -> None:
    plain = [data for _, data in events((await api.post(CHAT, HELLO)).body)]
    assert all("swarm" not in chunk for chunk in plain[:-1])
    asking = {**HELLO, "stream_options": {"include_swarm": True}}
    chunks = [data for _, data in events((await api.post(CHAT, asking)).body)]
    assert chunks[-2]["swarm"]["task"] == api.desk.asked[1].id.hex()
    assert all("swarm" not in chunk and "usage" not in chunk for chunk in chunks[:-2])


async def test_names_of_others_cannot_break_the_headers(api: Served) -> None:
    evil = "kestrel\r\nset-cookie: a=b é"
    api.desk.answers = lambda task: [routed(task, name=evil), AskText("x"), done(task)]
    headers = (await api.post(CHAT, HELLO)).headers
    assert headers["x-swarm-worker"] == "kestrel??set-cookie: a=b ?"
    assert "set-cookie" not in headers


async def test_answer_without_text_is_still_a_whole_stream(api: Served) -> None:
    api.desk.answers = lambda task: [routed(task), done(task, tokens_out=0)]
    chunks = [data for _, data in events((await api.post(CHAT, HELLO)).body)]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]] == [None, "stop"]


async def test_every_text_survives_the_journey(api: Served) -> None:
    wild = 'line\nbreak \r\n "quotes" \\ \x00 \x7f \u2028 🐦 ü data: [DONE]\n\n'
    api.desk.answers = lambda task: [AskText(wild), done(task)]
    reply = await api.post(CHAT, HELLO)
    chunks = [json.loads(line[6:]) for line in reply.body.decode().split("\n\n") if line.startswith("data: {")]
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == wild


async def test_model_stays_the_same_when_another_worker_takes_over(api: Served) -> None:
    api.desk.answers = lambda task: [
        routed(task), AskText("a"), routed(task, "org/tiny-chat", WREN, "wren"), AskText("b"), done(task),
    ]  # fmt: skip
    chunks = [data for _, data in events((await api.post(CHAT, HELLO)).body)]
    assert {chunk["model"] for chunk in chunks[:-1]} == {"smollm2-135m"}


@pytest.mark.parametrize(("path", "body"), PATHS)
@pytest.mark.parametrize(
    ("code", "status", "header"),
    [
        (codes.NO_CAPABLE_PEER, 503, ("retry-after", "2")),
        (codes.DEADLINE_EXCEEDED, 504, ("x-should-retry", "false")),
        (codes.TOO_MANY_TASKS, 429, ("retry-after", "1")),
        (codes.EXHAUSTED, 502, None),
        (codes.STREAM_BROKEN, 502, None),
        (codes.SHUTTING_DOWN, 503, ("x-should-retry", "false")),
        (codes.TOO_LONG, 400, None),
        (codes.BAD_REQUEST, 400, None),
        (codes.NOT_ALLOWED, 403, None),
        (codes.error_code(60_000), 502, None),
    ],
)
async def test_failure_before_the_first_text_has_its_own_status(
    api: Served, path: str, body: dict, code: codes.ErrorCode, status: int, header: tuple[str, str] | None
) -> None:
    # The control stream opens with the first routing; there only a failure before that has a status.
    before = [] if path == ASK else [routed]
    api.desk.answers = lambda task: [*(item(task) for item in before), failed(task, code, "in plain words")]
    reply = await api.post(path, body)
    assert reply.status == status
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-swarm-task"] == api.desk.asked[0].id.hex()
    assert header is None or reply.headers[header[0]] == header[1]
    error = reply.json["error"]
    assert error["message"].startswith("in plain words")
    assert ("swarm.deadline_s" in error["message"]) == (code is codes.DEADLINE_EXCEEDED and path != ASK)
    spoken = "context_length_exceeded" if code is codes.TOO_LONG and path != ASK else code.name
    assert error["code"] == spoken
    assert reply.json["swarm"]["code"] == code.name


async def test_failure_after_the_first_text_is_an_event_and_not_a_good_end(api: Served) -> None:
    api.desk.answers = lambda task: [routed(task), AskText("so far"), failed(task, codes.STREAM_BROKEN, "worker lost")]
    reply = await api.post(CHAT, HELLO)
    assert reply.status == 200
    assert b"[DONE]" not in reply.body
    chunks = [data for _, data in events(reply.body)]
    assert chunks[1]["choices"][0]["delta"]["content"] == "so far"
    assert chunks[-1]["error"] == {
        "message": "worker lost", "type": "server_error", "param": None, "code": "stream_broken",
    }  # fmt: skip
    assert all(chunk["choices"][0]["finish_reason"] is None for chunk in chunks[:-1])


@pytest.mark.parametrize("texts", [[], ["so far"]])
async def test_control_stream_tells_a_failure_after_a_routing_in_its_end(api: Served, texts: list[str]) -> None:
    api.desk.answers = lambda task: [
        routed(task),
        *(AskText(text) for text in texts),
        failed(task, codes.STREAM_BROKEN, "worker lost"),
    ]
    reply = await api.post(ASK, {"text": "x"})
    assert reply.status == 200
    found = events(reply.body)
    assert [name for name, _ in found] == ["route", *("text" for _ in texts), "end"]
    assert (found[-1][1]["code"], found[-1][1]["reason"]) == ("stream_broken", "worker lost")


@pytest.mark.parametrize(("path", "body"), PATHS)
async def test_channel_that_ends_without_a_word_is_an_error(api: Served, path: str, body: dict) -> None:
    api.desk.answers = lambda task: [AskText("so far")]
    reply = await api.post(path, body)
    assert b"[DONE]" not in reply.body
    last = events(reply.body)[-1][1] if reply.status == 200 else reply.json
    assert last["error"]["code"] == "stream_broken"
    assert reply.status == (200 if "event-stream" in reply.headers["content-type"] else 502)


@pytest.mark.parametrize(("path", "body"), PATHS)
async def test_bug_before_the_answer_is_a_clean_500(
    api: Served, caplog: pytest.LogCaptureFixture, path: str, body: dict
) -> None:
    api.desk.answers = lambda task: [ZeroDivisionError("secret prompt text")]
    reply = await api.post(path, body)
    assert reply.status == 500
    assert reply.error["code"] == "bug"
    assert "secret" not in reply.body.decode()
    incident = reply.error["message"].partition("error ")[2].partition(")")[0]
    assert incident in caplog.text
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize(("path", "body"), PATHS)
async def test_client_that_leaves_before_the_answer_cancels_the_task(api: Served, path: str, body: dict) -> None:
    api.desk.answers = lambda task: [routed(task), trio.Event()]
    async with api.connected() as conversation:
        await api.begin_post(conversation, path, body)
        await api.desk.wait_until(lambda: len(api.desk.asked) == 1)
    await api.desk.wait_until(lambda: api.desk.cancelled == [api.desk.asked[0].id])


@pytest.mark.parametrize("leave", ["close", "reset"])
@pytest.mark.parametrize(("path", "body"), [PATHS[0], PATHS[2]])
async def test_client_that_leaves_in_mid_stream_cancels_the_task(
    api: Served, path: str, body: dict, leave: str
) -> None:
    api.desk.answers = lambda task: [routed(task), AskText("begun"), trio.Event()]
    async with api.connected() as conversation:
        await api.begin_post(conversation, path, body)
        await conversation.begin()
        await conversation.until(b"begun")
        assert api.desk.cancelled == []
        if leave == "reset":
            conversation.stream.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SO_LINGER of 0 s: close sends RST.
    await api.desk.wait_until(lambda: api.desk.cancelled == [api.desk.asked[0].id])


@pytest.mark.parametrize(("path", "body"), [PATHS[0], PATHS[2]])
async def test_silence_is_filled_with_comments_and_failures_become_events(
    api: Served, monkeypatch: pytest.MonkeyPatch, path: str, body: dict
) -> None:
    monkeypatch.setattr(streaming, "KEEP_ALIVE_S", 0.01)
    waited = trio.Event()
    api.desk.answers = lambda task: [waited, failed(task, codes.NO_CAPABLE_PEER, "nobody came")]
    async with api.connected() as conversation:
        await api.begin_post(conversation, path, body)
        assert (await conversation.begin())[0] == 200
        received = await conversation.until(b": keep-alive\n\n" * 2)
        waited.set()
        received += await conversation.rest()
    assert b"[DONE]" not in received
    assert received.startswith(b": keep-alive\n\n")
    _, last = events(received)[-1]
    assert (last if path == ASK else last["error"])["code"] == "no_capable_peer"


@pytest.mark.parametrize(("path", "body"), PATHS)
@pytest.mark.parametrize("text_first", [True, False])
async def test_node_that_stops_says_so_to_whoever_waits(tmp_path, path: str, body: dict, text_first: bool) -> None:
    desk = ScriptedDesk()
    desk.answers = lambda task: [AskText("begun"), trio.Event()] if text_first else [trio.Event()]
    async with served(tmp_path, desk) as api, api.connected() as conversation:
        await api.begin_post(conversation, path, body)
        streams = text_first and body.get("stream") is not False
        if streams:
            await conversation.begin()
            await conversation.until(b"begun")
        else:
            await desk.wait_until(lambda: len(desk.asked) == 1)
            # The request has reached the desk; what it does next is wait.
            await trio.testing.wait_all_tasks_blocked()
        api.stop.cancel()
        if streams:
            rest = await conversation.rest()
            assert b'"code":"shutting_down"' in rest
            assert b"[DONE]" not in rest
        else:
            reply = await conversation.reply()
            assert reply.status == 503
            assert reply.error["code"] == "shutting_down"
    assert len(desk.cancelled) == 1


async def test_pieces_that_wait_together_travel_together(api: Served) -> None:
    api.desk.answers = lambda task: [AskText("a")] * 1000 + [done(task)]
    reply = await api.post(CHAT, HELLO)
    chunks = [data for _, data in events(reply.body)][:-1]
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == "a" * 1000
    assert len(chunks) < 10


async def test_text_before_a_lost_end_is_delivered_before_the_error() -> None:
    sending, receiving = trio.open_memory_channel(10)
    sending.send_nowait(AskText("a"))
    sending.send_nowait(AskText("b"))
    sending.close()
    assert await next_batch(receiving, 1.0) == [AskText("ab")]
    with pytest.raises(Exception, match="stopped before its end"):
        await next_batch(receiving, 1.0)


async def test_nothing_after_the_end_is_told(api: Served) -> None:
    api.desk.answers = lambda task: [AskText("a"), done(task), AskText("never")]
    assert b"never" not in (await api.post(CHAT, HELLO)).body


async def test_client_that_reads_nothing_does_not_hold_the_others_up(api: Served) -> None:
    api.desk.answers = lambda task: [AskText("x" * 16_000)] * 2_000 + [done(task)]
    async with api.connected() as stuck:
        await api.begin_post(stuck, CHAT, HELLO)
        await api.desk.wait_until(lambda: len(api.desk.asked) == 1)
        api.desk.answers = lambda task: [AskText("quick"), done(task)]
        for _ in range(5):
            assert b"quick" in (await api.post(CHAT, HELLO)).body
        # It finds its whole answer when it does read.
        await stuck.begin()
        received = await stuck.rest()
    assert len(received) > 32_000_000
    assert received.endswith(b"data: [DONE]\n\n")
