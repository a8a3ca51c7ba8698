"""OpenAI's own client on the routes without a conversation, and on what a request may demand."""

import json
import struct
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import openai
import pytest
import pytest_trio
import trio

from node.desk import AskEnded, AskText
from node.views import CallView
from protocol import errors as codes
from protocol.parts import Alternative, Demands, Logprob, Sampling, Turn
from swarm.values import Task
from tests.node.api.raw_http import KEY, Served
from tests.node.api.scripted_desk import HERON, WREN, Step, done, failed, offer, routed

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

A_BIRD = (
    Logprob(b"a", -0.5, (Alternative(b"a", -0.5), Alternative(b"the", -1.5))),
    Logprob(b" bird\xf0\x9f", -0.25, (Alternative(b" bird\xf0\x9f", -0.25), Alternative(b" wren", -2.0))),
)


@pytest_trio.trio_fixture
async def client(api: Served, client: openai.AsyncOpenAI) -> openai.AsyncOpenAI:
    """Of a swarm with such workers as well."""
    api.desk.offers += [
        offer("complete", "smollm2-135m", HERON, "heron"),
        offer("embed", "minilm", HERON, "heron"),
        offer("embed", "minilm", WREN, "wren"),
        offer("rerank", "judge", HERON, "heron"),
    ]
    return client


@pytest_trio.trio_fixture
async def lenient(client: openai.AsyncOpenAI) -> AsyncIterator[openai.AsyncOpenAI]:
    """As users have it. Strict, it takes neither its own base64 nor what OpenAI streams: chunks without a reason to finish."""
    async with openai.AsyncOpenAI(base_url=client.base_url, api_key=KEY, max_retries=0, timeout=20) as made:
        yield made


def answering(text: str, *logprobs: Logprob, finish: str = "stop") -> Callable[[Task], list[Step]]:
    return lambda task: [routed(task), AskText(text, logprobs), done(task, finish=finish)]


# --- /v1/completions --------------------------------------------------------------------------------------------------


async def test_a_text_goes_on(api: Served, client: openai.AsyncOpenAI) -> None:
    api.desk.answers = answering(" time.", finish="length")
    answer = await client.completions.create(
        model="smollm2-135m", prompt="Once upon a", max_tokens=9, temperature=0.0, stop=["\n"], extra_body={"top_k": 3}
    )
    [choice] = answer.choices
    assert (choice.text, choice.finish_reason, choice.index, choice.logprobs) == (" time.", "length", 0, None)
    assert (answer.object, answer.model, answer.usage.prompt_tokens) == ("text_completion", "smollm2-135m", 7)
    [task] = api.desk.asked
    assert answer.id == f"cmpl-{task.id.hex()}"
    assert (task.skill, task.turns, task.tokens_max) == ("complete", (Turn("user", "Once upon a"),), 9)
    assert (task.sampling, task.stops) == (Sampling(0.0, top_k=3), ("\n",))


async def test_no_limit_of_its_own_is_the_nodes(api: Served, client: openai.AsyncOpenAI) -> None:
    await client.completions.create(model="auto", prompt="x", max_tokens=-1)
    await client.completions.create(model="auto", prompt="x")
    await client.chat.completions.create(model="auto", messages=[{"role": "user", "content": "x"}], max_tokens=-1)
    assert [task.tokens_max for task in api.desk.asked] == [512, 16, 512]


async def test_several_prompts_are_several_tasks_and_keep_their_order(api: Served, client: openai.AsyncOpenAI) -> None:
    answer = await client.completions.create(model="auto", prompt=["one", "two two", "three"], echo=True)
    assert [choice.text for choice in answer.choices] == ["oneone", "two twotwo two", "threethree"]
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({task.id for task in api.desk.asked}) == 3
    assert answer.usage.completion_tokens == 4


async def test_each_prompt_has_as_many_answers_as_are_asked_for(api: Served, client: openai.AsyncOpenAI) -> None:
    answer = await client.completions.create(model="auto", prompt=["one", "two two"], n=2, best_of=2, seed=5)
    assert [choice.text for choice in answer.choices] == ["one", "one", "two two", "two two"]
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert sorted((task.turns[0].text, task.sampling.seed) for task in api.desk.asked) == [
        ("one", 5), ("one", 6), ("two two", 5), ("two two", 6),
    ]  # fmt: skip
    assert len({task.id for task in api.desk.asked}) == 4
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (14, 6), "each prompt counts once"


async def test_one_failure_of_several_is_the_answer_and_ends_the_others(api: Served, client: openai.AsyncOpenAI) -> None:
    never = trio.Event()
    api.desk.answers = lambda task: (
        [failed(task, codes.EXHAUSTED, "nobody")] if task.turns[0].text == "bad" else [routed(task), never, done(task)]
    )
    with pytest.raises(openai.InternalServerError) as refused:
        await client.completions.create(model="auto", prompt=["good", "bad", "better"])
    assert refused.value.code == "exhausted"
    assert len(api.desk.cancelled) == 2


async def test_log_probabilities_of_a_continuation(api: Served, client: openai.AsyncOpenAI) -> None:
    api.desk.answers = answering("a bird", *A_BIRD)
    answer = await client.completions.create(model="auto", prompt="See, ", logprobs=1)
    told = answer.choices[0].logprobs
    assert api.desk.asked[0].demands == Demands(logprobs=2)
    assert told.tokens == ["a", "bytes:\\x20\\x62\\x69\\x72\\x64\\xf0\\x9f"], "half a character is told from another half"
    assert told.token_logprobs == [-0.5, -0.25]
    assert told.text_offset == [5, 6]
    assert told.top_logprobs[0] == {"a": -0.5, "the": -1.5}


async def test_a_prompt_alone_is_scored(api: Served, client: openai.AsyncOpenAI) -> None:
    """What evaluation harnesses ask: how likely is this text?"""
    api.desk.answers = answering("a bird", *A_BIRD)
    answer = await client.completions.create(model="auto", prompt="a bird", echo=True, max_tokens=0, logprobs=1)
    [task] = api.desk.asked
    assert (task.turns, task.demands) == ((Turn("user", ""),), Demands(forced="a bird", logprobs=2))
    assert answer.choices[0].text == "a bird"
    assert answer.choices[0].logprobs.text_offset == [0, 1]
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (2, 0)


async def test_a_prompt_alone_is_said_again_with_how_long_it_is(api: Served, client: openai.AsyncOpenAI) -> None:
    api.desk.answers = answering("a bird")
    answer = await client.completions.create(model="auto", prompt="a bird", echo=True, max_tokens=0)
    assert (answer.choices[0].text, answer.choices[0].logprobs) == ("a bird", None)
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (2, 0)


async def test_a_prompt_is_said_again_before_what_follows(api: Served, lenient: openai.AsyncOpenAI) -> None:
    api.desk.answers = answering(" flies")
    stream = await lenient.completions.create(model="auto", prompt="a bird", echo=True, stream=True)
    assert "".join([choice.text async for chunk in stream for choice in chunk.choices]) == "a bird flies"


async def test_a_prompt_and_what_follows_are_scored_together(api: Served, client: openai.AsyncOpenAI) -> None:
    api.desk.answers = lambda task: answering("a bird", *A_BIRD[: 2 if task.demands.forced else 1])(task)
    answer = await client.completions.create(model="auto", prompt="a bird", echo=True, max_tokens=1, logprobs=1)
    assert answer.choices[0].text == "a birda bird"
    assert answer.choices[0].logprobs.token_logprobs == [-0.5, -0.25, -0.5]


async def test_of_an_empty_prompt_nothing_is_read(api: Served, client: openai.AsyncOpenAI) -> None:
    api.desk.answers = lambda task: answering("a bird", *A_BIRD[: 2 if task.demands.forced else 1])(task)
    answer = await client.completions.create(model="auto", prompt=["", "a bird", ""], echo=True, max_tokens=1, logprobs=1)
    assert [choice.text for choice in answer.choices] == ["a bird", "a birda bird", "a bird"]
    assert [len(choice.logprobs.tokens) for choice in answer.choices] == [1, 3, 1]
    assert [choice.logprobs.text_offset[0] for choice in answer.choices] == [0, 0, 0]
    assert [task.demands.forced for task in api.desk.asked if task.demands.forced] == ["a bird"]
    assert len(api.desk.asked) == 4


async def test_tokens_of_a_stream_are_told_where_they_stand_in_the_text(api: Served, lenient: openai.AsyncOpenAI) -> None:
    """Also those whose characters end in the next piece."""
    snow = Logprob(b"\xe2\x98", -0.5, ()), Logprob(b"\x83", -0.5, ()), Logprob(b"!", -0.5, ())
    said = trio.Event()
    first, second = AskText("a", (*A_BIRD[:1], snow[0])), AskText("\u2603!", snow[1:])
    api.desk.answers = lambda task: [routed(task), first, said, second, done(task)]
    offsets = []
    async for chunk in await lenient.completions.create(model="auto", prompt="See, ", stream=True, logprobs=1):
        said.set()
        offsets += [choice.logprobs.text_offset for choice in chunk.choices if choice.logprobs]
    assert offsets == [[5, 6], [6, 7]]


async def test_a_text_goes_on_piece_by_piece(api: Served, lenient: openai.AsyncOpenAI) -> None:
    api.desk.answers = lambda task: [routed(task), AskText("a", A_BIRD[:1]), AskText(" bird"), done(task)]
    stream = await lenient.completions.create(
        model="auto", prompt="See, ", stream=True, logprobs=1, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(choice.text for chunk in chunks for choice in chunk.choices) == "a bird"
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices][-1] == "stop"
    assert any(choice.logprobs for chunk in chunks for choice in chunk.choices)
    assert chunks[-1].usage.completion_tokens == 2
    assert {chunk.object for chunk in chunks} == {"text_completion"}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": [1, 2, 3]}, "prompt"),
        ({"prompt": [[1, 2, 3]]}, "prompt"),
        ({"prompt": ["x"] * 65}, "prompt"),
        ({"prompt": "x", "n": 0}, "n"),
        ({"prompt": "x", "n": 65}, "n"),
        ({"prompt": ["x", "y"], "n": 33}, "n"),
        ({"prompt": "x", "n": 2, "stream": True}, "stream"),
        ({"prompt": "x", "n": 2, "best_of": 3}, "best_of"),
        ({"prompt": "x", "suffix": "y"}, "suffix"),
        ({"prompt": "x", "logit_bias": {"1": 1}}, "logit_bias"),
        ({"prompt": "x", "max_tokens": 0}, "max_tokens"),
        ({"prompt": ["x", ""], "max_tokens": 0, "echo": True}, "prompt"),
        ({"prompt": "x", "max_tokens": -2}, "max_tokens"),
        ({"prompt": "x", "logprobs": 21}, "logprobs"),
        ({"prompt": ["x", "y"], "stream": True}, "stream"),
    ],
)
async def test_what_cannot_be_done_is_refused_by_name(client: openai.AsyncOpenAI, fields: dict, param: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await client.completions.create(model="auto", **fields)
    assert refused.value.param == param


# --- Demands on a conversation ----------------------------------------------------------------------------------------


async def test_a_schema_reaches_the_worker(api: Served, client: openai.AsyncOpenAI) -> None:
    schema = {"type": "object", "properties": {"x": {"type": "integer"}}}
    api.desk.answers = answering('{"x": 1}')
    answer = await client.chat.completions.create(
        model="auto", messages=[{"role": "user", "content": "x?"}],
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
    )  # fmt: skip
    assert json.loads(answer.choices[0].message.content) == {"x": 1}
    assert json.loads(api.desk.asked[0].demands.schema) == schema


async def test_log_probabilities_of_an_answer_whole_and_streamed(api: Served, client: openai.AsyncOpenAI) -> None:
    api.desk.answers = answering("a bird", *A_BIRD)
    asked = {"model": "auto", "messages": [{"role": "user", "content": "?"}], "logprobs": True, "top_logprobs": 2}
    answer = await client.chat.completions.create(**asked)
    first, second = answer.choices[0].logprobs.content
    assert (first.token, first.logprob, first.bytes) == ("a", -0.5, [97])
    assert [(other.token, other.logprob) for other in first.top_logprobs] == [("a", -0.5), ("the", -1.5)]
    assert bytes(second.bytes) == b" bird\xf0\x9f"
    stream = await client.chat.completions.create(stream=True, **asked)
    told = [entry async for chunk in stream for choice in chunk.choices if choice.logprobs for entry in choice.logprobs.content]
    assert told == [first, second]


async def test_an_option_is_chosen_and_all_are_told(api: Served, client: openai.AsyncOpenAI) -> None:
    api.desk.answers = answering("yes", Logprob(b"yes", -0.1, (Alternative(b"yes", -0.1), Alternative(b"no", -3.0))))
    answer = await client.chat.completions.create(
        model="auto", messages=[{"role": "user", "content": "?"}], extra_body={"swarm": {"options": ["yes", "no"]}}
    )
    assert api.desk.asked[0].demands == Demands(options=("yes", "no"))
    assert answer.choices[0].message.content == "yes"
    assert [other.token for other in answer.choices[0].logprobs.content[0].top_logprobs] == ["yes", "no"]


async def test_a_function_that_the_model_wants_called(api: Served, client: openai.AsyncOpenAI) -> None:
    def calling(task: Task) -> list[Step]:
        ended = done(task, finish="tool_calls")
        return [routed(task), AskEnded(None, replace(ended.answer, calls=[CallView("call_1", "get_time", '{"zone": "CET"}')]))]

    api.desk.answers = calling
    tools = [{"type": "function", "function": {"name": "get_time", "parameters": {"type": "object"}}}]
    asked = {"model": "auto", "messages": [{"role": "user", "content": "What time is it?"}], "tools": tools}
    [choice] = (await client.chat.completions.create(**asked)).choices
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
    [call] = choice.message.tool_calls
    assert (call.id, call.function.name, call.function.arguments) == ("call_1", "get_time", '{"zone": "CET"}')
    assert json.loads(api.desk.asked[0].demands.tools) == tools
    stream = await client.chat.completions.create(stream=True, **asked)
    choices = [choice async for chunk in stream for choice in chunk.choices]
    [told] = [call for choice in choices for call in choice.delta.tool_calls or ()]
    assert (told.index, told.id, told.function.name, told.function.arguments) == (0, "call_1", "get_time", '{"zone": "CET"}')
    assert choices[-1].finish_reason == "tool_calls"


async def test_who_takes_one_call_at_a_time_is_told_of_the_first(api: Served, client: openai.AsyncOpenAI) -> None:
    calls = [CallView("call_1", "get_time", "{}"), CallView("call_2", "get_time", "{}")]
    api.desk.answers = lambda task: [AskEnded(None, replace(done(task, finish="tool_calls").answer, calls=calls))]
    tools = [{"type": "function", "function": {"name": "get_time"}}]
    asked = {"model": "auto", "messages": [{"role": "user", "content": "?"}], "tools": tools}
    for parallel, told in ((True, ["call_1", "call_2"]), (False, ["call_1"])):
        [choice] = (await client.chat.completions.create(**asked, parallel_tool_calls=parallel)).choices
        assert [call.id for call in choice.message.tool_calls] == told
        stream = await client.chat.completions.create(**asked, parallel_tool_calls=parallel, stream=True)
        deltas = [choice.delta async for chunk in stream for choice in chunk.choices]
        assert [call.id for delta in deltas for call in delta.tool_calls or ()] == told


# --- /v1/embeddings ---------------------------------------------------------------------------------------------------


def embedding(task: Task) -> list[Step]:
    length = len(task.turns[-1].text)
    return [routed(task, "minilm"), AskText(f"[{length}, 0.5, "), AskText("-1e-3]"), done(task, model="minilm")]


async def test_texts_become_vectors_in_their_order(api: Served, lenient: openai.AsyncOpenAI) -> None:
    """The client asks for base64 by itself."""
    api.desk.answers = embedding
    answer = await lenient.embeddings.create(model="minilm", input=["a", "bb", "ccc"])
    assert [each.index for each in answer.data] == [0, 1, 2]
    assert [each.embedding[0] for each in answer.data] == [1.0, 2.0, 3.0]
    assert answer.data[0].embedding == list(struct.unpack("<3f", struct.pack("<3f", 1, 0.5, -1e-3)))
    assert (answer.model, answer.usage.prompt_tokens) == ("minilm", 21)
    assert {(task.skill, task.tokens_max) for task in api.desk.asked} == {("embed", 1)}


async def test_vectors_of_one_request_come_from_one_model(api: Served, client: openai.AsyncOpenAI) -> None:
    api.desk.answers = embedding
    await client.embeddings.create(model="auto", input=["a", "b"], encoding_format="float")
    assert [task.model for task in api.desk.asked] == ["", "minilm"]


@pytest.mark.parametrize(
    ("fields", "error", "param"),
    [
        ({"input": []}, openai.BadRequestError, "input"),
        ({"input": [""]}, openai.BadRequestError, "input"),
        ({"input": [1, 2]}, openai.BadRequestError, "input"),
        ({"input": ["x"] * 2049}, openai.BadRequestError, "input"),
        ({"input": "x", "dimensions": 5}, openai.BadRequestError, "dimensions"),
        ({"input": "x", "model": "smollm2-135m"}, openai.NotFoundError, "model"),
    ],
)
async def test_no_vector_is_made_of_what_is_none(
    client: openai.AsyncOpenAI, fields: dict, error: type[openai.APIStatusError], param: str
) -> None:
    with pytest.raises(error) as refused:
        await client.embeddings.create(**{"model": "auto", **fields})
    assert refused.value.param == param


@pytest.mark.parametrize("text", ["", "no vector", "[]", '["a"]', "[1, null]", "[1e999]", "[1e39]", "[-1e39]", "{}", "\ud800"])
async def test_a_worker_that_sends_no_vector_is_told_of(api: Served, client: openai.AsyncOpenAI, text: str) -> None:
    api.desk.answers = answering(text)
    with pytest.raises(openai.InternalServerError) as refused:
        await client.embeddings.create(model="auto", input="x")
    assert refused.value.code == "backend_failed"


async def test_vectors_of_one_request_are_of_one_length(api: Served, client: openai.AsyncOpenAI) -> None:
    api.desk.answers = lambda task: answering("[1]" if task.turns[0].text == "a" else "[1, 2]")(task)
    with pytest.raises(openai.InternalServerError, match="several lengths"):
        await client.embeddings.create(model="auto", input=["a", "a", "b"])


# --- /v1/rerank -------------------------------------------------------------------------------------------------------


def judgement(task: Task) -> list[Step]:
    """The longer a document, the better; whatever was asked."""
    return [routed(task, "judge"), AskText(f"{len(task.turns[1].text)}.5"), done(task, model="judge")]


async def rerank(client: openai.AsyncOpenAI, **fields: object) -> dict[str, Any]:
    return await client.post("/rerank", body=fields, cast_to=dict[str, Any])


async def test_documents_come_in_the_order_of_their_worth(api: Served, client: openai.AsyncOpenAI) -> None:
    api.desk.answers = judgement
    answer = await rerank(client, query="who?", documents=["bb", {"text": "dddd"}, "ccc"], top_n=2, return_documents=True)
    assert [(each["index"], each["relevance_score"]) for each in answer["results"]] == [(1, 4.5), (2, 3.5)]
    assert [each["document"]["text"] for each in answer["results"]] == ["dddd", "ccc"]
    assert (answer["model"], answer["usage"]["total_tokens"]) == ("judge", 21)
    assert [(task.skill, task.model, task.turns[0].text) for task in api.desk.asked] == [
        ("rerank", "", "who?"), ("rerank", "judge", "who?"), ("rerank", "judge", "who?"),
    ]  # fmt: skip
    plain = await rerank(client, query="who?", documents=["a", "a"], return_documents=None)
    assert [each["index"] for each in plain["results"]] == [0, 1]
    assert "document" not in plain["results"][0]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"documents": []}, "documents: 0 texts, 1 to 256 allowed"),
        ({"documents": ["x"] * 257}, "documents: 257 texts"),
        ({"documents": ["x", ""]}, "a document is empty"),
        ({"query": ""}, "The query or a document is empty"),
        ({"top_n": 0}, "top_n: 0 is less than 1"),
        ({"documents": "x"}, "documents"),
        ({"documents": [{"words": "x"}]}, "documents"),
    ],
)
async def test_no_order_is_made_of_what_has_none(client: openai.AsyncOpenAI, fields: dict, says: str) -> None:
    with pytest.raises(openai.BadRequestError, match=says):
        await rerank(client, **{"query": "who?", "documents": ["x"], **fields})


@pytest.mark.parametrize("text", ["", "much", "[1]", "null", "1e999", "\ud800"])
async def test_a_worker_that_sends_no_number_is_told_of(api: Served, client: openai.AsyncOpenAI, text: str) -> None:
    api.desk.answers = answering(text)
    with pytest.raises(openai.InternalServerError) as refused:
        await rerank(client, query="who?", documents=["x"])
    assert refused.value.code == "backend_failed"
