"""OpenAI's own client, unmodified and validating strictly, against every route and failure it can meet."""

from functools import partial

import openai
import pytest
import trio

from node.desk import AskText
from protocol import errors as codes
from protocol.parts import Sampling
from swarm.values import Privacy, Task
from tests.node.api.raw_http import KEY, Served
from tests.node.api.scripted_desk import HERON, WREN, Step, done, failed, routed

# The client leaves its own generators to the garbage collector, which says so under trio.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

HELLO = [{"role": "user", "content": "one two three"}]


async def test_models_are_listed_and_found(api: Served, client: openai.AsyncOpenAI) -> None:
    names = [model.id async for model in client.models.list()]
    assert names == [
        "auto", "skill:chat", "skill:classify", "skill:summarize", "magika", "org/tiny-chat", "smollm2-135m",
    ]  # fmt: skip
    for name in [*names, "peer:heron", f"peer:{WREN}/org/tiny-chat"]:
        assert (await client.models.retrieve(name)).id == name
    for name in ("gpt-4o", "peer:lynx", "peer:heron/gpt-4o"):
        with pytest.raises(openai.NotFoundError) as refused:
            await client.models.retrieve(name)
        assert refused.value.code == "model_not_found"


async def test_whole_answer(api: Served, client: openai.AsyncOpenAI) -> None:
    raw = await client.chat.completions.with_raw_response.create(model="auto", messages=HELLO)
    answer = raw.parse()
    assert answer.choices[0].message.content == "one two three"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "stop"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (7, 3, 10)
    assert answer.model == "smollm2-135m"
    assert answer.swarm["node"] == HERON
    assert answer.swarm["schema"] == "swarm.answer/1"
    assert raw.headers["x-swarm-task"] == answer.swarm["task"] == api.desk.asked[0].id.hex()
    assert raw.headers["x-swarm-node"] == HERON
    assert (raw.headers["x-swarm-worker"], raw.headers["x-swarm-model"]) == ("heron", "smollm2-135m")


async def test_answer_cut_at_its_length_says_so(api: Served, client: openai.AsyncOpenAI) -> None:
    api.desk.answers = lambda task: [AskText("cut"), done(task, finish="length")]
    answer = await client.chat.completions.create(model="auto", messages=HELLO, max_tokens=1)
    assert answer.choices[0].finish_reason == "length"


async def test_streamed_answer(api: Served, client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="auto", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "one two three"
    assert chunks[-1].usage.completion_tokens == 3
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-2].swarm["node"] == HERON


async def test_stream_helper_of_the_client_assembles_the_answer(api: Served, client: openai.AsyncOpenAI) -> None:
    async with client.chat.completions.stream(model="auto", messages=HELLO) as stream:
        final = await stream.get_final_completion()
    assert final.choices[0].message.content == "one two three"


async def test_synchronous_client_in_a_thread(api: Served) -> None:
    def ask() -> tuple[str, str]:
        made = openai.OpenAI(
            base_url=f"{api.url}/v1", api_key=KEY, max_retries=0, timeout=20, _strict_response_validation=True
        )
        with made as client:
            whole = client.chat.completions.create(model="auto", messages=HELLO)
            stream = client.chat.completions.create(model="auto", messages=HELLO, stream=True)
            pieces = [chunk.choices[0].delta.content or "" for chunk in stream]
        return whole.choices[0].message.content, "".join(pieces)

    assert await trio.to_thread.run_sync(ask) == ("one two three", "one two three")


async def test_request_reaches_the_task(api: Served, client: openai.AsyncOpenAI) -> None:
    await client.chat.completions.create(
        model="org/tiny-chat", messages=[{"role": "developer", "content": "brief"}, *HELLO], temperature=0.0, top_p=0.9,
        seed=5, stop=["#"], max_completion_tokens=9,
        extra_body={"swarm": {"skill": "summarize", "deadline_s": 2.5, "privacy": "local"}},
    )  # fmt: skip
    task = api.desk.asked[0]
    assert [(turn.role, turn.text) for turn in task.turns] == [("system", "brief"), ("user", "one two three")]
    assert (task.skill, task.model, task.tokens_max, task.stops) == ("summarize", "org/tiny-chat", 9, ("#",))
    assert task.sampling == Sampling(0.0, 0.9, seed=5)
    assert (task.deadline_s, task.privacy) == (2.5, Privacy.LOCAL)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("gpt-4o", "smollm2-135m"),
        ("skill:vision", "summarize"),
        ("peer:lynx", "heron"),
        ("peer:wren/x", "org/tiny-chat"),
    ],
)
async def test_unknown_name_is_not_found_and_names_what_exists(
    api: Served, client: openai.AsyncOpenAI, model: str, says: str, stream: bool
) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        await client.chat.completions.create(model=model, messages=HELLO, stream=stream)
    assert (refused.value.code, refused.value.param) == ("model_not_found", "model")
    assert says in refused.value.message
    assert api.desk.asked == []


async def test_wrong_key_is_an_authentication_error(api: Served, client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.AuthenticationError) as refused:
        await client.with_options(api_key="sk-wrong").chat.completions.create(model="auto", messages=HELLO)
    assert refused.value.code == "invalid_api_key"


async def test_unsupported_wish_names_its_parameter(api: Served, client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await client.chat.completions.create(model="auto", messages=HELLO, n=2, stream=True)
    assert (refused.value.code, refused.value.param) == ("unsupported_parameter", "stream")


async def test_several_answers_to_one_question(api: Served, client: openai.AsyncOpenAI) -> None:
    api.desk.answers = lambda task: [routed(task), AskText(f"seed {task.sampling.seed}"), done(task)]
    answer = await client.chat.completions.create(model="auto", messages=HELLO, n=3, seed=2**32 - 2)
    assert [choice.message.content for choice in answer.choices] == [f"seed {seed}" for seed in (2**32 - 2, 2**32 - 1, 1)]
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({task.id for task in api.desk.asked}) == 3
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (7, 6), "the question counts once"
    await client.chat.completions.create(model="auto", messages=HELLO, n=2)
    assert [task.sampling.seed for task in api.desk.asked[3:]] == [0, 0], "each worker draws its own"
    assert [task.model for task in api.desk.asked] == ["", *["smollm2-135m"] * 2, "", "smollm2-135m"]


async def test_several_answers_of_a_model_that_is_named_begin_at_once(api: Served, client: openai.AsyncOpenAI) -> None:
    both = trio.Event()
    api.desk.answers = lambda task: [routed(task), both, done(task)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(client.chat.completions.create, model="smollm2-135m", messages=HELLO, n=2))
        await api.desk.wait_until(lambda: len(api.desk.asked) == 2)
        both.set()


async def test_conversation_that_is_too_long_is_called_what_openai_calls_it(
    api: Served, client: openai.AsyncOpenAI
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await client.chat.completions.create(model="auto", messages=[{"role": "user", "content": "x" * 100_000}])
    assert (refused.value.code, refused.value.param) == ("context_length_exceeded", "messages")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (codes.NO_CAPABLE_PEER, openai.InternalServerError),
        (codes.DEADLINE_EXCEEDED, openai.InternalServerError),
        (codes.EXHAUSTED, openai.InternalServerError),
        (codes.TOO_MANY_TASKS, openai.RateLimitError),
    ],
)
async def test_failed_task_raises_with_its_code(
    api: Served, client: openai.AsyncOpenAI, code: codes.ErrorCode, kind: type, stream: bool
) -> None:
    api.desk.answers = lambda task: [routed(task), failed(task, code)]
    with pytest.raises(kind) as refused:
        await client.chat.completions.create(model="auto", messages=HELLO, stream=stream)
    assert refused.value.code == code.name
    assert code.meaning in refused.value.message


async def test_what_was_there_when_time_was_up_is_told(api: Served, client: openai.AsyncOpenAI) -> None:
    api.desk.answers = lambda task: [routed(task), AskText("so "), AskText("far"), failed(task, codes.DEADLINE_EXCEEDED)]
    with pytest.raises(openai.InternalServerError) as refused:
        await client.chat.completions.create(model="auto", messages=HELLO)
    assert refused.value.response.status_code == 504
    assert refused.value.body["text"] == "so far"


async def test_passed_deadline_is_not_asked_again(api: Served, client: openai.AsyncOpenAI) -> None:
    api.desk.answers = lambda task: [failed(task, codes.DEADLINE_EXCEEDED)]
    with pytest.raises(openai.InternalServerError):
        await client.with_options(max_retries=2).chat.completions.create(model="auto", messages=HELLO)
    assert len(api.desk.asked) == 1


async def test_busy_node_is_asked_again_by_the_client_itself(api: Served, client: openai.AsyncOpenAI) -> None:
    def busy_at_first(task: Task) -> list[Step]:
        api.desk.answers = lambda task: [AskText("at last"), done(task)]
        return [failed(task, codes.EXHAUSTED)]

    api.desk.answers = busy_at_first
    answer = await client.with_options(max_retries=2).chat.completions.create(model="auto", messages=HELLO)
    assert answer.choices[0].message.content == "at last"
    assert len(api.desk.asked) == 2


async def test_worker_lost_in_mid_stream_raises(api: Served, client: openai.AsyncOpenAI) -> None:
    api.desk.answers = lambda task: [routed(task), AskText("so far"), failed(task, codes.STREAM_BROKEN, "wren is gone")]
    stream = await client.chat.completions.create(model="auto", messages=HELLO, stream=True)
    heard = ""
    with pytest.raises(openai.APIError, match="wren is gone") as broken:
        async for chunk in stream:
            heard += chunk.choices[0].delta.content or ""
    assert heard == "so far"
    assert broken.value.code == "stream_broken"


async def test_closing_the_stream_cancels_the_task(api: Served, client: openai.AsyncOpenAI) -> None:
    api.desk.answers = lambda task: [routed(task), AskText("begun"), trio.Event()]
    stream = await client.chat.completions.create(model="auto", messages=HELLO, stream=True)
    async for chunk in stream:
        if chunk.choices[0].delta.content:
            break
    assert api.desk.cancelled == []
    await stream.close()
    await api.desk.wait_until(lambda: len(api.desk.cancelled) == 1)


async def test_cancelled_call_cancels_the_task(api: Served, client: openai.AsyncOpenAI) -> None:
    api.desk.answers = lambda task: [routed(task), trio.Event()]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(client.chat.completions.create, model="auto", messages=HELLO))
        await api.desk.wait_until(lambda: len(api.desk.asked) == 1)
        nursery.cancel_scope.cancel()
    await api.desk.wait_until(lambda: len(api.desk.cancelled) == 1)


async def test_many_at_once_get_their_own_answers(api: Served, client: openai.AsyncOpenAI) -> None:
    heard: dict[int, str] = {}

    async def ask(number: int) -> None:
        messages = [{"role": "user", "content": f"this is number {number}"}]
        if number % 2:
            stream = await client.chat.completions.create(model="auto", messages=messages, stream=True)
            heard[number] = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
        else:
            answer = await client.chat.completions.create(model="auto", messages=messages)
            heard[number] = answer.choices[0].message.content

    async with trio.open_nursery() as nursery:
        for number in range(60):
            nursery.start_soon(ask, number)
    assert heard == {number: f"this is number {number}" for number in range(60)}
    assert len({task.id for task in api.desk.asked}) == 60
