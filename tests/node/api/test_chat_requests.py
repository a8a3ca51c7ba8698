"""OpenAI's request: what is understood, what is refused because it would silently change the answer."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.api.bodies import decode_json
from node.api.chat_requests import DECODER, ChatRequest, turns_of, wishes_of
from node.api.errors import ApiError, error_body
from node.api.names import Wanted
from node.api.tasks import Service, make_task
from protocol.parts import Demands, FunctionCall, Turn
from tests.node.api.scripted_desk import ScriptedDesk, without_journal


def parsed(**fields: object) -> ChatRequest:
    body = {"model": "auto", "messages": [{"role": "user", "content": "hello"}], **fields}
    return decode_json(json.dumps(body).encode(), DECODER)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "text", "role"]), inner),
    max_leaves=5,
)
wild_messages = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "system", "assistant", "tool"])}, optional={"content": anything}
    ),
    max_size=3,
)
wild_bodies = st.fixed_dictionaries(
    {"messages": wild_messages | anything},
    optional={name: anything for name in ChatRequest.__struct_fields__ if name != "messages"},
)


@settings(max_examples=300, deadline=None)
@given(wild_bodies)
def test_any_json_is_a_task_or_a_refusal_and_never_a_bug(body: dict[str, object]) -> None:
    desk = ScriptedDesk()
    service = Service(desk, 60.0, lambda size: bytes(size), 0, *without_journal(desk))
    try:
        request = decode_json(json.dumps(body).encode(), DECODER)
        task = make_task(service, Wanted("chat", "", None), turns_of(request), wishes_of(request))
    except ApiError as refused:
        assert refused.status == 400
        error_body(refused, openai=True)
    else:
        assert task.turns


def said(*messages: object) -> list[Turn]:
    return turns_of(parsed(messages=list(messages)))


@pytest.mark.parametrize(
    ("param", "value"),
    [
        ("functions", [{"name": "f"}]),
        ("modalities", ["text", "audio"]),
        ("audio", {"voice": "alloy", "format": "wav"}),
        ("response_format", {"type": "xml"}),
        ("logit_bias", {"50256": -100}),
    ],
)
async def test_what_would_be_ignored_and_matters_is_refused(param: str, value: object) -> None:
    with pytest.raises(ApiError) as refused:
        wishes_of(parsed(**{param: value}))
    assert (refused.value.status, refused.value.code, refused.value.param) == (400, "unsupported_parameter", param)


async def test_same_fields_without_effect_are_accepted() -> None:
    harmless = {
        "n": 1, "tools": [], "functions": [], "modalities": ["text"], "audio": None, "logprobs": False,
        "top_logprobs": 0, "response_format": {"type": "text"}, "presence_penalty": 0, "frequency_penalty": 0.0,
        "logit_bias": {}, "tool_choice": "none", "stop": None, "seed": None, "max_tokens": None,
    }  # fmt: skip
    wishes_of(parsed(**harmless))


async def test_sampling_wishes_are_read() -> None:
    assert wishes_of(parsed(seed=-1)).seed is None, "any, as llama.cpp has it"
    with pytest.raises(ApiError, match=r"swarm\.options: give at least one text"):
        wishes_of(parsed(swarm={"options": []}))
    wishes = wishes_of(parsed(temperature=0, top_p=0.9, seed=5, stop=["a", "b"], max_tokens=7))
    assert (wishes.temperature, wishes.top_p, wishes.seed, wishes.stops, wishes.tokens_max) == (
        0,
        0.9,
        5,
        ["a", "b"],
        7,
    )


async def test_penalties_and_the_names_of_local_servers_are_read() -> None:
    fields = {"top_k": 5, "min_p": 0.1, "repeat_penalty": 1.1, "presence_penalty": 0.5, "frequency_penalty": -0.5}
    wishes = wishes_of(parsed(**fields))
    assert {name: getattr(wishes, name) for name in fields} == fields


TOOL = {"type": "function", "function": {"name": "f"}}
PERSON = {"type": "object", "properties": {"name": {"type": "string"}}}


@pytest.mark.parametrize(
    ("fields", "demands"),
    [
        ({"response_format": {"type": "json_object"}}, Demands(schema='{"type":"object"}')),
        ({"response_format": {"type": "json_object", "schema": PERSON}}, Demands(schema=json.dumps(PERSON, separators=(",", ":")))),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "p", "schema": PERSON, "strict": True}}},
            Demands(schema=json.dumps(PERSON, separators=(",", ":"))),
        ),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "p"}}}, Demands(schema='{"type":"object"}')),
        ({"grammar": 'root ::= "a"'}, Demands(grammar='root ::= "a"')),
        ({"logprobs": True}, Demands(logprobs=1)),
        ({"logprobs": True, "top_logprobs": 20}, Demands(logprobs=21)),
        ({"swarm": {"options": ["a", "b"]}}, Demands(options=("a", "b"))),
        ({"tools": [TOOL]}, Demands(tools=json.dumps([TOOL], separators=(",", ":")))),
        ({"tools": [TOOL], "tool_choice": "none"}, Demands()),
        ({"tools": [], "tool_choice": "auto"}, Demands()),
        ({"tools": [TOOL], "tool_choice": "required"}, Demands(tools=json.dumps([TOOL], separators=(",", ":")), tool="*")),
        (
            {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}},
            Demands(tools=json.dumps([TOOL], separators=(",", ":")), tool="f"),
        ),
    ],
)
async def test_demands_are_read(fields: dict, demands: Demands) -> None:
    assert wishes_of(parsed(**fields)).demands == demands


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [{**TOOL, "x": "y" * 16_400}]}, "tools"),
        ({"tools": [TOOL, {}]}, "tools[1].function.name"),
        ({"tools": [{"type": "function", "function": {"name": 1}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "f" * 65}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": "f"}], "tool_choice": "none"}, "tools[0].function.name"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}}, "tool_choice"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": -2}, "max_completion_tokens"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"grammar": "x" * 16_385}, "grammar"),
        ({"grammar": "x", "response_format": {"type": "json_object"}}, "grammar"),
        ({"swarm": {"options": ["a"] * 65}}, "options"),
        ({"swarm": {"options": [""]}}, "options"),
        ({"swarm": {"options": ["x" * 513]}}, "options"),
        ({"presence_penalty": 2.5}, "presence_penalty"),
        ({"repeat_penalty": 0}, "repeat_penalty"),
        ({"min_p": 1.5}, "min_p"),
        ({"top_k": -1}, "top_k"),
    ],
)
async def test_demands_that_no_wire_can_carry_are_refused(fields: dict, param: str) -> None:
    with pytest.raises(ApiError) as refused:
        wishes_of(parsed(**fields))
    assert (refused.value.status, refused.value.code, refused.value.param) == (400, "bad_request", param)


async def test_newer_name_of_max_tokens_wins() -> None:
    assert wishes_of(parsed(max_tokens=7, max_completion_tokens=9)).tokens_max == 9
    assert wishes_of(parsed(max_tokens=7, max_completion_tokens=-1)).tokens_max == 7


async def test_single_stop_is_a_list_of_one() -> None:
    assert wishes_of(parsed(stop="###")).stops == ["###"]


async def test_swarm_wishes_are_read() -> None:
    wishes = wishes_of(parsed(swarm={"skill": "summarize", "deadline_s": 2.5, "privacy": "local"}))
    assert (wishes.deadline_s, wishes.privacy) == (2.5, "local")


async def test_roles_and_text_parts_become_turns() -> None:
    turns = said(
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": None},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
        {"role": "user", "content": "", "name": "ada"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "content": "21 degrees", "tool_call_id": "1"},
    )
    assert turns == [
        Turn("system", "be brief"),
        Turn("user", "ab"),
        Turn("assistant", ""),
        Turn("assistant", "no"),
        Turn("user", ""),
        Turn("assistant", "", (FunctionCall("1", "f", "{}"),)),
        Turn("tool", "21 degrees", (), "1"),
    ]


@pytest.mark.parametrize(
    ("message", "code", "param"),
    [
        ({"role": "function", "content": "x", "name": "f"}, "unsupported_parameter", "messages[1].role"),
        ({"role": "wizard", "content": "x"}, "bad_request", "messages[1].role"),
        (
            {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "f" * 65}}]},
            "bad_request",
            "messages[1].tool_calls",
        ),
        (
            {
                "role": "user",
                "content": [{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {"url": "x"}}],
            },
            "unsupported_parameter",
            "messages[1].content[1]",
        ),
        ({"role": "user", "content": [{"type": "input_audio"}]}, "unsupported_parameter", "messages[1].content[0]"),
        ({"role": "user", "content": [{"type": "text"}]}, "bad_request", "messages[1].content[0].text"),
    ],
)
async def test_message_that_no_model_here_can_read_is_refused(message: dict, code: str, param: str) -> None:
    with pytest.raises(ApiError) as refused:
        said({"role": "user", "content": "hello"}, message)
    assert (refused.value.status, refused.value.code, refused.value.param) == (400, code, param)
