"""/v1/responses, by OpenAI's own client, unmodified and validating strictly."""

import json
from dataclasses import replace

import openai
import pytest
import trio

from node.desk import AskEnded, AskText
from node.views import CallView
from protocol import errors as codes
from protocol.parts import Alternative, Demands, FunctionCall, Logprob, Sampling, Turn
from swarm.values import Task
from tests.node.api.raw_http import Served
from tests.node.api.scripted_desk import HERON, Step, done, failed, routed

# The client leaves its own generators to the garbage collector, which says so under trio.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

TIME = {"type": "function", "name": "get_time", "parameters": {"type": "object"}, "strict": None}


def calls_for_the_time(task: Task) -> list[Step]:
    calls = [CallView("call_1", "get_time", '{"zone": "CET"}'), CallView("call_2", "get_time", "{}")]
    return [routed(task), AskEnded(None, replace(done(task, finish="tool_calls").answer, calls=calls))]


async def test_whole_answer(api: Served, client: openai.AsyncOpenAI) -> None:
    raw = await client.responses.with_raw_response.create(
        model="auto", input="one two three", instructions="brief", temperature=0.0, top_p=0.9, max_output_tokens=9,
        metadata={"for": "a test"}, store=False, truncation="auto", reasoning={"effort": "low"},
        extra_body={"seed": 5, "top_k": 3, "stop": "#", "swarm": {"privacy": "local"}},
    )  # fmt: skip
    answer = raw.parse()
    assert (answer.output_text, answer.status, answer.error) == ("one two three", "completed", None)
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.total_tokens) == (7, 3, 10)
    assert (answer.model, answer.instructions, answer.metadata) == ("smollm2-135m", "brief", {"for": "a test"})
    assert (answer.temperature, answer.top_p, answer.max_output_tokens, answer.text.format.type) == (0.0, 0.9, 9, "text")
    assert answer.swarm["node"] == HERON
    [task] = api.desk.asked
    assert answer.id == f"resp_{task.id.hex()}"
    assert raw.headers["x-swarm-task"] == task.id.hex()
    assert (task.skill, task.turns) == ("chat", (Turn("system", "brief"), Turn("user", "one two three")))
    assert (task.tokens_max, task.sampling, task.stops) == (9, Sampling(0.0, 0.9, top_k=3, seed=5), ("#",))
    assert task.privacy.value == "local"


async def test_answer_cut_at_its_length_is_incomplete(api: Served, client: openai.AsyncOpenAI) -> None:
    api.desk.answers = lambda task: [AskText("cut"), done(task, finish="length")]
    answer = await client.responses.create(model="auto", input="hi", max_output_tokens=1)
    assert (answer.status, answer.incomplete_details.reason, answer.output[0].status) == (
        "incomplete", "max_output_tokens", "incomplete",
    )  # fmt: skip
    events = [event async for event in await client.responses.create(model="auto", input="hi", stream=True)]
    assert (events[-1].type, events[-1].response.output_text) == ("response.incomplete", "cut")


async def test_a_conversation_goes_on_with_what_was_answered(api: Served, client: openai.AsyncOpenAI) -> None:
    first = await client.responses.create(model="auto", input="one")
    await client.responses.create(
        model="auto",
        input=[
            {"role": "developer", "content": "brief"},
            {"role": "user", "content": [{"type": "input_text", "text": "o"}, {"type": "input_text", "text": "ne"}]},
            *first.output,
            {"type": "reasoning", "id": "rs_1", "summary": []},
            {"type": "message", "role": "user", "content": "what time is it?"},
            {"type": "function_call", "call_id": "a", "name": "get_time", "arguments": "{}"},
            {"type": "function_call", "call_id": "b", "name": "get_time", "arguments": '{"zone": "CET"}'},
            {"type": "function_call_output", "call_id": "a", "output": "noon"},
            {"type": "function_call_output", "call_id": "b", "output": [{"type": "input_text", "text": "one"}]},
        ],
    )
    assert api.desk.asked[1].turns == (
        Turn("system", "brief"),
        Turn("user", "one"),
        Turn("assistant", "one"),
        Turn("user", "what time is it?"),
        Turn("assistant", "", (FunctionCall("a", "get_time", "{}"), FunctionCall("b", "get_time", '{"zone": "CET"}'))),
        Turn("tool", "noon", (), "a"),
        Turn("tool", "one", (), "b"),
    )


async def test_streamed_answer_comes_in_the_order_that_clients_expect(api: Served, client: openai.AsyncOpenAI) -> None:
    said = trio.Event()
    api.desk.answers = lambda task: [routed(task), AskText("one"), said, AskText(" two"), done(task)]
    kinds: list[str] = []
    async for event in await client.responses.create(model="auto", input="hi", stream=True):
        assert event.sequence_number == len(kinds)
        kinds.append(event.type)
        if event.type == "response.output_text.delta":
            said.set()
    assert kinds == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert (event.response.output_text, event.response.usage.output_tokens) == ("one two", 2)
    assert (event.response.model, event.response.swarm["node"]) == ("smollm2-135m", HERON)


async def test_stream_helper_of_the_client_assembles_the_answer(api: Served, client: openai.AsyncOpenAI) -> None:
    async with client.responses.stream(model="auto", input="one two three") as stream:
        final = await stream.get_final_response()
    assert final.output_text == "one two three"
    api.desk.answers = calls_for_the_time
    async with client.responses.stream(model="auto", input="time?", tools=[TIME]) as stream:
        final = await stream.get_final_response()
    assert [call.arguments for call in final.output] == ['{"zone": "CET"}', "{}"]


async def test_an_answer_without_a_word_is_an_empty_message(api: Served, client: openai.AsyncOpenAI) -> None:
    api.desk.answers = lambda task: [routed(task), done(task, tokens_out=0)]
    assert (await client.responses.create(model="auto", input="hi")).output_text == ""
    async with client.responses.stream(model="auto", input="hi") as stream:
        assert [part.text for item in (await stream.get_final_response()).output for part in item.content] == [""]


async def test_calls_of_functions(api: Served, client: openai.AsyncOpenAI) -> None:
    api.desk.answers = calls_for_the_time
    answer = await client.responses.create(
        model="auto", input="time?", tools=[TIME], tool_choice={"type": "function", "name": "get_time"}
    )
    assert [(call.type, call.call_id, call.name, call.arguments) for call in answer.output] == [
        ("function_call", "call_1", "get_time", '{"zone": "CET"}'), ("function_call", "call_2", "get_time", "{}"),
    ]  # fmt: skip
    assert answer.tools[0].name == "get_time"
    demands = api.desk.asked[0].demands
    assert json.loads(demands.tools) == [
        {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object"}}}
    ]
    assert demands.tool == "get_time"
    await client.responses.create(model="auto", input="time?", tools=[TIME], tool_choice="required")
    await client.responses.create(model="auto", input="time?", tools=[TIME], tool_choice="none")
    assert [task.demands.tool for task in api.desk.asked[1:]] == ["*", ""]
    assert api.desk.asked[2].demands == Demands()


async def test_who_takes_one_call_at_a_time_is_told_of_the_first(api: Served, client: openai.AsyncOpenAI) -> None:
    api.desk.answers = calls_for_the_time
    asked = {"model": "auto", "input": "time?", "tools": [TIME], "parallel_tool_calls": False}
    assert [call.call_id for call in (await client.responses.create(**asked)).output] == ["call_1"]
    async with client.responses.stream(**asked) as stream:
        assert [call.call_id for call in (await stream.get_final_response()).output] == ["call_1"]


async def test_calls_after_log_probabilities_of_no_text_are_the_first_items(api: Served, client: openai.AsyncOpenAI) -> None:
    told = Logprob(b"{", -0.5, ())
    api.desk.answers = lambda task: [AskText("", (told,)), *calls_for_the_time(task)]
    stream = await client.responses.create(model="auto", input="time?", tools=[TIME], top_logprobs=1, stream=True)
    events = [event async for event in stream]
    added = [(event.output_index, event.item.type) for event in events if event.type == "response.output_item.added"]
    closed = [event.output_index for event in events if event.type == "response.output_item.done"]
    assert (added, closed) == ([(0, "function_call"), (1, "function_call")], [0, 1])
    text = trio.Event()
    api.desk.answers = lambda task: [AskText("", (told,)), text, AskText("a", (told,)), done(task)]
    async for event in await client.responses.create(model="auto", input="hi", top_logprobs=1, stream=True):
        text.set()
        if event.type == "response.output_text.delta":
            assert len(event.logprobs) == 2, "none is lost"


async def test_a_form_reaches_the_worker(api: Served, client: openai.AsyncOpenAI) -> None:
    schema = {"type": "object", "properties": {"x": {"type": "integer"}}}
    form = {"type": "json_schema", "name": "point", "schema": schema, "strict": True}
    answer = await client.responses.create(model="auto", input="where?", text={"format": form})
    assert json.loads(api.desk.asked[0].demands.schema) == schema
    assert answer.text.format.name == "point"
    await client.responses.create(model="auto", input="where?", text={"format": {"type": "json_object"}})
    assert json.loads(api.desk.asked[1].demands.schema) == {"type": "object"}


async def test_log_probabilities(api: Served, client: openai.AsyncOpenAI) -> None:
    told = Logprob(b"a", -0.5, (Alternative(b"a", -0.5), Alternative(b"the", -1.5)))
    api.desk.answers = lambda task: [routed(task), AskText("a", (told,)), done(task)]
    answer = await client.responses.create(
        model="auto", input="hi", include=["message.output_text.logprobs"], top_logprobs=2
    )
    assert api.desk.asked[0].demands.logprobs == 3
    [token] = answer.output[0].content[0].logprobs
    assert (token.token, token.logprob, [other.token for other in token.top_logprobs]) == ("a", -0.5, ["a", "the"])
    events = [event async for event in await client.responses.create(model="auto", input="hi", top_logprobs=1, stream=True)]
    assert [event.logprobs[0].token for event in events if event.type == "response.output_text.delta"] == ["a"]


@pytest.mark.parametrize(
    ("code", "named"),
    [(codes.STALLED, "server_error"), (codes.BAD_REQUEST, "invalid_prompt"), (codes.TOO_MANY_TASKS, "rate_limit_exceeded")],
)
async def test_answer_that_fails_in_the_middle(
    api: Served, client: openai.AsyncOpenAI, code: codes.ErrorCode, named: str
) -> None:
    api.desk.answers = lambda task: [routed(task), AskText("so far"), failed(task, code, "why")]
    events = [event async for event in await client.responses.create(model="auto", input="hi", stream=True)]
    ended = events[-1].response
    assert (events[-1].type, ended.status, ended.output_text) == ("response.failed", "failed", "so far")
    assert (ended.error.code, ended.error.type, ended.error.message) == (named, code.name, "why")


async def test_answer_that_fails_before_it_begins_has_a_status(api: Served, client: openai.AsyncOpenAI) -> None:
    api.desk.answers = lambda task: [failed(task, codes.NO_CAPABLE_PEER)]
    for stream in (False, True):
        with pytest.raises(openai.InternalServerError) as refused:
            await client.responses.create(model="auto", input="hi", stream=stream)
        assert refused.value.code == "no_capable_peer"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"background": True}, "background"),
        ({"tools": [{"type": "web_search"}]}, "tools[0]"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tools": [TIME], "tool_choice": {"type": "web_search_preview"}}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [TIME], "tool_choice": {"type": "function", "name": "get_tide"}}, "tool_choice"),
        ({"input": "x" * 100_000}, "input"),
        ({"text": {"format": {"type": "grammar"}}}, "text.format"),
        ({"input": [{"role": "poet", "content": "hi"}]}, "input[0].role"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}, "input[0].content[0]"),
        ({"input": [{"type": "computer_call_output", "call_id": "x", "output": "y"}]}, "input[0]"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"top_logprobs": 21}, "top_logprobs"),
    ],
)
async def test_what_cannot_be_done_is_refused_by_name(
    api: Served, client: openai.AsyncOpenAI, fields: dict, param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await client.responses.create(**{"model": "auto", "input": "hi", **fields})
    assert refused.value.param == param
    assert api.desk.asked == []
