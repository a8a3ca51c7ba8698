"""Calls of functions: parted from the text in whatever pieces it comes, forced where they must be; three kinds of templates."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from node.backends import BackendError, GenerationRequest, Surroundings
from node.backends.contract import ask, running
from node.backends.llama_cpp.backend import LlamaCppBackend
from node.backends.llama_cpp.functions import (
    HERMES,
    LLAMA,
    MISTRAL,
    CallFilter,
    Style,
    ToolsRefused,
    functions_of,
    style_of,
)
from protocol.parts import Demands, Sampling, Turn
from tests.node.backends.llama_cpp.gguf_files import SMOLLM2, TEMPLATE, read_gguf, text

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 12}, "days": {"enum": [1, 2, 3]}},
            "required": ["city", "days"],
            "additionalProperties": False,
        },
    },
}
TIME = {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object", "additionalProperties": False}}}
TOOLS = json.dumps([WEATHER, TIME])
CHATML = """{%- if tools %}<|im_start|>system
{{ wording }}{% for tool in tools %}{{ tool | tojson }}{% endfor %}<|im_end|>
{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}{% for call in m.tool_calls %}{{ call.function | tojson }}{% endfor %}<|im_end|>
{% endfor %}<|im_start|>assistant
"""


def pushed(style: Style, said: str, step: int) -> tuple[str, list[list[str]]]:
    """What a user reads, and the calls, if it comes in pieces of so many characters."""
    calls = CallFilter(style)
    shown = "".join(calls.push(said[at : at + step]) for at in range(0, len(said), step))
    rest, functions = calls.end()
    return shown + rest, functions


CALL = '{"name": "get_time", "arguments": {"zone": "\\u00e9"}}'


def test_an_answer_of_which_text_was_delivered_is_no_call_as_a_whole() -> None:
    """Whoever goes on with it sees only the rest, which may look like one."""
    calls = CallFilter(LLAMA, begun=True)
    assert (calls.push(CALL), calls.end()) == (CALL, ("", []))


@pytest.mark.parametrize("step", [1, 2, 7, 1_000])
@pytest.mark.parametrize(
    ("style", "said", "shown", "names"),
    [
        (HERMES, "Just text, a < b.", "Just text, a < b.", []),
        (HERMES, f"Wait.\n<tool_call>\n{CALL}\n</tool_call>", "Wait.", ["get_time"]),
        (HERMES, f"<tool_call>{CALL}</tool_call>\n<tool_call>{CALL}</tool_call>", "", ["get_time"] * 2),
        (HERMES, f"<tool_call>{CALL}", "", ["get_time"]),
        (HERMES, "<tool_call>nonsense</tool_call>", "<tool_call>nonsense</tool_call>", []),
        (HERMES, "It ends in <tool_", "It ends in <tool_", []),
        (MISTRAL, f"[TOOL_CALLS] [{CALL}, {CALL}]", "", ["get_time"] * 2),
        (MISTRAL, "An [aside].", "An [aside].", []),
        (LLAMA, CALL.replace("arguments", "parameters"), "", ["get_time"]),
        (LLAMA, '{"just": "JSON"}', '{"just": "JSON"}', []),
        (LLAMA, f"Text, and then {CALL}", f"Text, and then {CALL}", []),
    ],
)
def test_calls_are_parted_from_the_text(style: Style, said: str, shown: str, names: list[str], step: int) -> None:
    text, functions = pushed(style, said, step)
    assert text.strip() == shown
    assert [name for name, _ in functions] == names
    assert all(json.loads(arguments) == {"zone": "é"} for _, arguments in functions)


NAMED = '[{"function": {"name": "%s"}}]'


@pytest.mark.parametrize("tools", ["", "{}", "[]", "[1]", '[{"type": "function"}]', NAMED % "", NAMED % ("é" * 33), "[" * 9_000])
def test_what_is_no_list_of_functions_is_refused(tools: str) -> None:
    with pytest.raises(ToolsRefused):
        functions_of(tools)


def test_a_template_says_how_its_model_calls() -> None:
    assert style_of("{{ tools }} in <tool_call>") is HERMES
    assert style_of("{{ tools }} after [TOOL_CALLS]") is MISTRAL
    assert style_of("{{ tools }}") is LLAMA
    assert style_of("{{ messages }}") is None


@pytest.fixture(params=["<tool_call>", "[TOOL_CALLS]", "JSON"])
async def model(request: pytest.FixtureRequest, tmp_path: Path, surroundings: Surroundings) -> AsyncIterator[LlamaCppBackend]:
    """SmolLM2 with a template that knows of functions; it was never taught to call any."""
    gguf = read_gguf(SMOLLM2)
    wording = f"Call a function like this: {request.param}"
    gguf.metadata[TEMPLATE] = text(CHATML.replace("{{ wording }}", wording))
    path = gguf.write(tmp_path / "smollm2.gguf")
    async with running(backend := LlamaCppBackend(str(path), surroundings)) as offered:
        assert {capability.skill: "tools" in capability.features for capability in offered} == {
            "chat": True, "summarize": False, "complete": False,
        }  # fmt: skip
        yield backend


async def test_a_call_that_must_be_made_is_made(model: LlamaCppBackend) -> None:
    asked = GenerationRequest("chat", "smollm2", (Turn("user", "What is the weather in Paris?"),), 80, Sampling())
    for tool, names in (("*", {"get_weather", "get_time"}), ("get_weather", {"get_weather"})):
        answer = await ask(model, replace(asked, demands=Demands(tools=TOOLS, tool=tool)))
        [call] = answer.generated.calls
        assert (answer.text, answer.generated.finish) == ("", "tool_calls")
        assert call.name in names
        if call.name == "get_weather":
            given = json.loads(call.arguments)
            assert set(given) == {"city", "days"}
            assert given["days"] in (1, 2, 3)
    bare = json.dumps([{"type": "function", "function": {"name": "now"}}])
    [call] = (await ask(model, replace(asked, demands=Demands(tools=bare, tool="now")))).generated.calls
    assert json.loads(call.arguments) == {}, "a function that tells of no parameters has none"
    told = (*asked.turns, Turn("assistant", "", (call,)), Turn("tool", "Sunny, 21 degrees.", (), call.id))
    answer = await ask(model, replace(asked, turns=told, demands=Demands(tools=TOOLS)))
    assert answer.text
    for demands, complaint in (
        (Demands(tools=TOOLS, tool="no_such"), 'no function "no_such"'),
        (Demands(tools="{"), "the tools cannot be read"),
        (Demands(tools=json.dumps([{"function": {"name": "f", "parameters": {"type": "bird"}}}]), tool="f"), "of a function"),
    ):
        with pytest.raises(BackendError, match=complaint):
            await ask(model, replace(asked, demands=demands))


async def test_a_model_without_functions_in_its_template_offers_none(nonsense: Path, surroundings: Surroundings) -> None:
    async with running(LlamaCppBackend(str(nonsense), surroundings)) as offered:
        assert not any("tools" in capability.features for capability in offered)


