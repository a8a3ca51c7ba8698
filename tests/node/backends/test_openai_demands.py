"""What servers behind a URL are tried with when they are added, and how schemas, functions and log-probabilities reach them."""

import json
from dataclasses import replace

import pytest
import trio

from node.backends import BackendError
from node.backends.contract import ask, running
from node.backends.openai_http import OpenAIHttpBackend
from protocol.limits import LOGPROB_MIN
from protocol.parts import Demands, FunctionCall, Turn
from tests.node.backends.openai_server import SURROUNDINGS, Exchange, backend_and_server, parrot, request, serving


async def formatting(exchange: Exchange) -> None:
    """A server that keeps to a schema: it has one answer for all."""
    if "response_format" not in exchange.body:
        await parrot(exchange)
        return
    await exchange.begin()
    for part in ('{"w', 'et": ', "true}"):
        await exchange.word(part)
    await exchange.word("", "stop")
    await exchange.data(b"data: [DONE]\n\n")
    await exchange.end()


async def test_a_server_that_keeps_to_schemas_is_found_out() -> None:
    async with serving(formatting) as server, running(backend := OpenAIHttpBackend(server.url, SURROUNDINGS)) as offered:
        assert {capability.features for capability in offered} == {("schema",)}
        asked = replace(request(), demands=Demands(schema='{"type": "object"}'))
        assert (await ask(backend, asked)).text == '{"wet": true}'
        assert server.asked[-1].body["response_format"]["json_schema"]["schema"] == {"type": "object"}
        with pytest.raises(BackendError, match="the schema cannot be read"):
            await ask(backend, replace(request(), demands=Demands(schema="{")))
    async with serving() as server, running(OpenAIHttpBackend(server.url, SURROUNDINGS)) as offered:
        assert {capability.features for capability in offered} == {()}, "a server that does not listen"


CALL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
OTHER = {"type": "function", "function": {"name": "time"}}


async def capable(exchange: Exchange) -> None:
    """A server that calls functions when it must, piece by piece, and tells how likely tokens are when asked."""
    if exchange.body.get("tool_choice") == "required":
        await exchange.begin()
        await exchange.word("Let me look.")
        name = exchange.body["tools"][0]["function"]["name"]
        for part in ({"id": "call_7", "function": {"name": name, "arguments": ""}}, '{"town": ', '"Oslo"}'):
            told = part if isinstance(part, dict) else {"function": {"arguments": part}}
            await exchange.delta({"tool_calls": [{"index": 0, "type": "function", **told}]})
        await exchange.delta({}, finish_reason="tool_calls")
    elif exchange.body.get("logprobs"):
        await exchange.begin()
        top = [{"token": word, "logprob": -0.5 - at, "bytes": list(word.encode())} for at, word in enumerate(("hé", "ho", "hu"))]
        for token in ({"token": "hé", "logprob": -0.5, "bytes": [104, 195, 169]}, {"token": "!", "logprob": -9e9}):
            told = {"content": [{**token, "top_logprobs": top[: exchange.body["top_logprobs"]]}]}
            await exchange.delta({"content": token["token"]}, logprobs=told)
        await exchange.delta({}, finish_reason="stop")
    else:
        await parrot(exchange)
        return
    await exchange.data(b"data: [DONE]\n\n")
    await exchange.end()


async def test_a_server_that_calls_functions_and_tells_likelihoods_is_found_out() -> None:
    async with serving(capable) as server, running(backend := OpenAIHttpBackend(server.url, SURROUNDINGS)) as offered:
        assert {capability.features for capability in offered} == {("logprobs", "tools")}
        told = await ask(backend, replace(request(), demands=Demands(logprobs=3)))
        logprobs = [logprob for piece in told.pieces for logprob in piece.logprobs]
        assert [each.data for each in logprobs] == ["hé".encode(), b"!"]
        assert [each.logprob for each in logprobs] == [-0.5, LOGPROB_MIN]
        assert [[other.data for other in each.top] for each in logprobs] == [["hé".encode(), b"ho"]] * 2
        answer = await ask(backend, replace(request(), demands=Demands(tools=json.dumps([OTHER, CALL]), tool="weather")))
        assert server.asked[-1].body["tools"] == [CALL]
    assert (answer.text, answer.generated.finish) == ("", "tool_calls")
    assert answer.generated.calls == (FunctionCall("call_7", "weather", '{"town": "Oslo"}'),)


async def test_likelihoods_without_end_are_cut_like_text() -> None:
    async def tell(exchange: Exchange) -> None:
        await exchange.begin()
        while True:
            await exchange.delta({"content": ""}, logprobs={"content": [{"token": "", "logprob": -(10**400)}]})

    async with backend_and_server() as (backend, server):
        server.chat = tell
        with trio.fail_after(30):
            answer = await ask(backend, replace(request(tokens_max=5), demands=Demands(logprobs=1)))
    told = [logprob for piece in answer.pieces for logprob in piece.logprobs]
    assert (answer.generated.finish, answer.generated.tokens_out, len(told)) == ("length", 5, 5)
    assert {each.logprob for each in told} == {LOGPROB_MIN}


async def test_functions_and_what_came_of_them_are_told_as_they_were_asked() -> None:
    call = FunctionCall("call_7", "weather", '{"town": "Oslo"}')
    turns = (Turn("user", "Weather?"), Turn("assistant", "", (call,)), Turn("tool", "rain", call="call_7"))
    async with backend_and_server() as (backend, server):
        answer = await ask(backend, replace(request(), turns=turns, demands=Demands(tools=json.dumps([OTHER, CALL]))))
        body = server.asked[-1].body
    assert (answer.text, answer.generated.calls) == ("rain", ())
    assert (body["tools"], body.get("tool_choice")) == ([OTHER, CALL], None)
    assert body["messages"][1]["tool_calls"] == [
        {"id": "call_7", "type": "function", "function": {"name": "weather", "arguments": '{"town": "Oslo"}'}}
    ]
    assert body["messages"][2] == {"role": "tool", "content": "rain", "tool_call_id": "call_7"}


async def test_a_call_that_must_be_and_is_not_made_is_a_failure() -> None:
    async with backend_and_server() as (backend, _):
        with pytest.raises(BackendError, match="calls no function") as raised:
            await ask(backend, replace(request(), demands=Demands(tools=json.dumps([CALL]), tool="*")))
        assert raised.value.retryable, "another worker may"
        with pytest.raises(BackendError, match='no function "times"') as raised:
            await ask(backend, replace(request(), demands=Demands(tools=json.dumps([CALL]), tool="times")))
        assert not raised.value.retryable


@pytest.mark.parametrize(
    ("calls", "words"),
    [
        ([{"index": 0, "function": {"name": "f", "arguments": "{"}}], 'call of "f" cannot be read'),
        ([{"index": 0, "function": {"name": "f", "arguments": "[]"}}], 'call of "f" cannot be read'),
        ([{"index": 0, "function": {"name": "f", "arguments": "x" * 20_000}}], "too long"),
        ([{"function": {"name": f"f{number}", "arguments": "{}"}} for number in range(9)], "more than 8 functions"),
    ],
)
async def test_calls_that_cannot_travel_are_failures(calls: list[object], words: str) -> None:
    async def call(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.delta({"tool_calls": calls}, finish_reason="tool_calls")
        await exchange.data(b"data: [DONE]\n\n")
        await exchange.end()

    async with backend_and_server() as (backend, server):
        server.chat = call
        with pytest.raises(BackendError, match=words):
            await ask(backend, replace(request(), demands=Demands(tools=json.dumps([CALL]))))
        assert server.url.removesuffix("/v1") in str(backend.url)


async def test_calls_that_a_server_does_not_count_come_whole() -> None:
    async def call(exchange: Exchange) -> None:
        await exchange.begin()
        for name in ("f", "g"):
            await exchange.delta({"tool_calls": [{"function": {"name": name, "arguments": ""}}]})
        await exchange.delta({}, finish_reason="stop")
        await exchange.end()

    async with backend_and_server() as (backend, server):
        server.chat = call
        answer = await ask(backend, replace(request(), demands=Demands(tools=json.dumps([CALL]))))
    calls = answer.generated.calls
    assert [(each.name, each.arguments) for each in calls] == [("f", "{}"), ("g", "{}")]
    assert calls[0].id != calls[1].id and answer.generated.finish == "tool_calls"
