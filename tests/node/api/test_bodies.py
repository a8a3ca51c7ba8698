"""Bodies that are too large, too slow, not JSON, or not what the route reads: each told apart, none a bug."""

import json

import h11
import pytest
import trio

from node.api import bodies
from node.api.bodies import BODY_BYTES_MAX
from tests.node.api.raw_http import Served

CHAT = "/v1/chat/completions"
HELLO = {"model": "auto", "messages": [{"role": "user", "content": "hello"}]}


def padded(size: int) -> bytes:
    body = json.dumps(HELLO).encode()
    return body + b" " * (size - len(body))


@pytest.mark.parametrize("chunked", [False, True])
async def test_body_over_the_limit_is_413(api: Served, chunked: bool) -> None:
    reply = await api.post(CHAT, padded(BODY_BYTES_MAX + 1), chunked=chunked)
    assert reply.status == 413
    assert reply.error["code"] == "too_large"
    assert api.desk.asked == []


@pytest.mark.parametrize("chunked", [False, True])
async def test_body_at_the_limit_is_read(api: Served, chunked: bool) -> None:
    assert (await api.post(CHAT, padded(BODY_BYTES_MAX), chunked=chunked)).status == 200


async def test_declared_size_alone_is_enough_to_refuse(api: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.api.edge.LEFTOVER_S_MAX", 0.0)
    async with api.connected() as conversation:
        headers = [*api.good, ("content-type", "application/json"), ("content-length", "99999999999")]
        await conversation.send_events(h11.Request(method="POST", target=CHAT, headers=headers))
        assert (await conversation.begin())[0] == 413


async def test_body_that_trickles_is_408(api: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "BODY_S_MAX", 0.05)
    monkeypatch.setattr("node.api.edge.LEFTOVER_S_MAX", 0.05)
    async with api.connected() as conversation:
        headers = [*api.good, ("content-type", "application/json"), ("content-length", "100")]
        await conversation.send_events(h11.Request(method="POST", target=CHAT, headers=headers), h11.Data(data=b"{"))
        reply = await conversation.reply()
    assert reply.status == 408
    assert reply.error["code"] == "too_slow"


async def test_client_that_leaves_in_its_body_asks_for_nothing(api: Served) -> None:
    async with api.connected() as conversation:
        headers = [*api.good, ("content-type", "application/json"), ("content-length", "100")]
        await conversation.send_events(h11.Request(method="POST", target=CHAT, headers=headers), h11.Data(data=b"{"))
    assert (await api.post(CHAT, HELLO)).status == 200
    assert len(api.desk.asked) == 1


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (b'{"model": "auto",}', "byte 17"),
        (b'{"model": "auto"', "byte 16"),
        (b"", "byte 0"),
        (b"\xff\xfe{}", "byte 0"),
        (b'{"model":"\xff"}', "byte 10"),
        (b'{"temperature": NaN}', "byte 16"),
        (b'{"model": "\\ud800"}', "byte"),
        (b"[" * 5000, "JSON"),
        (b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested"),
    ],
)
async def test_broken_json_is_400_with_its_place(api: Served, body: bytes, place: str) -> None:
    reply = await api.post(CHAT, body)
    assert reply.status == 400
    assert reply.error["type"] == "invalid_request_error"
    assert place in reply.error["message"] or "Expected `object`" in reply.error["message"]


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"content": "x"}]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"model": 5}, "model"),
        ({"temperature": 2.1}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop": 5}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"swarm": {"deadline_s": 0}}, "swarm.deadline_s"),
        ({"swarm": {"deadline_s": 601}}, "swarm.deadline_s"),
        ({"swarm": {"privacy": "secret"}}, "swarm.privacy"),
    ],
)
async def test_wrong_field_is_400_with_its_name(api: Served, change: dict, param: str) -> None:
    reply = await api.post(CHAT, {**HELLO, **change})
    assert reply.status == 400
    assert reply.error["param"] == param
    assert param in reply.error["message"]
    assert api.desk.asked == []


async def test_misspelt_swarm_field_is_refused_and_not_ignored(api: Served) -> None:
    reply = await api.post(CHAT, {**HELLO, "swarm": {"privcy": "local"}})
    assert reply.status == 400
    assert "privcy" in reply.error["message"]


async def test_unknown_openai_fields_are_ignored(api: Served) -> None:
    extra = {"user": "me", "store": False, "metadata": {}, "parallel_tool_calls": True, "tools": [], "logit_bias": {}}
    assert (await api.post(CHAT, {**HELLO, **extra})).status == 200


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded", "application/jsonx"])
@pytest.mark.parametrize("path", [CHAT, "/swarm/v1/ask", "/swarm/v1/join", "/swarm/v1/models", "/swarm/v1/route"])
async def test_post_that_is_not_json_is_415(api: Served, path: str, kind: str | None) -> None:
    headers = [*api.good, *([("content-type", kind)] if kind else [])]
    async with api.connected() as conversation:
        await conversation.send("POST", path, headers, b"{}")
        reply = await conversation.reply()
    assert reply.status == 415
    assert reply.error["code"] == "not_json"


async def test_content_type_may_carry_a_charset(api: Served) -> None:
    async with api.connected() as conversation:
        headers = [*api.good, ("content-type", "Application/JSON; charset=utf-8")]
        await conversation.send("POST", CHAT, headers, json.dumps(HELLO).encode())
        assert (await conversation.reply()).status == 200


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 64,
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST /v1/models HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
        b"GET /%ff%fe HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)
async def test_garbage_ends_its_own_connection_only(api: Served, garbage: bytes) -> None:
    async with api.connected() as conversation:
        received = b""
        with trio.move_on_after(20):
            try:
                await conversation.stream.send_all(garbage)
                await conversation.stream.send_eof()
                while data := await conversation.stream.receive_some(65_536):
                    received += data
            except trio.BrokenResourceError:
                pass
    assert not received.startswith(b"HTTP/1.1 2")
    assert (await api.post(CHAT, HELLO)).status == 200
