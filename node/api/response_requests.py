"""What OpenAI's clients send to /v1/responses, in the words of /v1/chat/completions.

Nothing is kept between two requests: whoever goes on with a conversation sends it whole, as all clients can.
"""

from typing import Any, Literal

import msgspec

from node.api.chat_requests import (
    CalledFunction,
    ChatMessage,
    ChatRequest,
    NamedFunction,
    NamedTool,
    Part,
    ToolCall,
    turn_of,
)
from node.api.errors import bad_request
from node.api.fields import (
    Alternatives,
    JsonSchema,
    ResponseFormat,
    SamplingFields,
    SwarmWishes,
    TokenCount,
    sampling_of,
    unsupported,
)
from protocol.parts import Turn

LOGPROBS = "message.output_text.logprobs"
_NEEDLESS = ("reasoning",)
"""Items that other models' answers had, and that say nothing to these."""


class Item(msgspec.Struct, kw_only=True):
    """One item of the conversation: a message, a call of a function, or what that gave."""

    type: str = "message"
    role: str = ""
    content: str | list[Part] | None = None
    call_id: str = ""
    name: str = ""
    arguments: str = "{}"
    output: str | list[Part] | None = None


class Format(msgspec.Struct):
    """OpenAI's form of an answer, whose schema stands beside its name here."""

    type: str = "text"
    name: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None


class TextFields(msgspec.Struct):
    format: Format | None = None


class ChosenTool(msgspec.Struct):
    name: str = ""
    type: str = "function"


class ResponseRequest(SamplingFields, kw_only=True):
    """The fields that are known. Others are ignored, as all servers do."""

    input: str | list[Item]
    model: str | None = None
    instructions: str | None = None
    stream: bool | None = None
    max_output_tokens: TokenCount | None = None
    text: TextFields | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: Literal["none", "auto", "required"] | ChosenTool | None = None
    parallel_tool_calls: bool | None = None
    top_logprobs: Alternatives | None = None
    include: list[str] | None = None
    metadata: dict[str, str] | None = None
    stop: str | list[str] | None = None
    grammar: str | None = None
    swarm: SwarmWishes | None = None
    # Known, and refused because they would change the answer.
    previous_response_id: str | None = None
    conversation: Any = None
    prompt: Any = None
    background: bool | None = None


DECODER = msgspec.json.Decoder(ResponseRequest)


def as_chat(asked: ResponseRequest) -> ChatRequest:
    """How the answer shall be made; the conversation is told by `turns_of`. Raises ApiError for what cannot be done."""
    for name in ("previous_response_id", "conversation"):
        if getattr(asked, name) is not None:
            raise unsupported(name, "answers are not kept", "Send the whole conversation as `input`")
    if asked.prompt is not None:
        raise unsupported("prompt", "no prompts are kept here")
    if asked.background:
        raise unsupported("background", "POST /swarm/v1/tasks does that")
    wanted = LOGPROBS in (asked.include or ())
    form = asked.text.format if asked.text and asked.text.format else Format()
    return ChatRequest(
        messages=[],
        max_completion_tokens=asked.max_output_tokens,
        logprobs=wanted or bool(asked.top_logprobs),
        top_logprobs=asked.top_logprobs,
        tools=[_tool(number, tool) for number, tool in enumerate(asked.tools or ())],
        tool_choice=_choice(asked.tool_choice),
        response_format=_form(form),
        stop=asked.stop,
        grammar=asked.grammar,
        swarm=asked.swarm,
        **sampling_of(asked),
    )


def turns_of(asked: ResponseRequest) -> list[Turn]:
    """The conversation. Raises ApiError for items that no model here can use."""
    items = [Item(role="user", content=asked.input)] if isinstance(asked.input, str) else asked.input
    messages: list[tuple[str, ChatMessage]] = []
    for number, item in enumerate(items):
        place = f"input[{number}]"
        if item.type == "message":
            messages.append((place, ChatMessage(item.role, _parts(item.content))))
        elif item.type == "function_call_output":
            messages.append((place, ChatMessage("tool", _parts(item.output), tool_call_id=item.call_id)))
        elif item.type == "function_call":
            # Calls are items of their own here; for a model they are a part of what it said.
            if not messages or messages[-1][1].role != "assistant":
                messages.append((place, ChatMessage("assistant")))
            said = messages[-1][1]
            said.tool_calls = [*(said.tool_calls or ()), ToolCall(CalledFunction(item.name, item.arguments), item.call_id)]
        elif item.type not in _NEEDLESS:
            raise unsupported(place, f'an item of type "{item.type[:32]}" says nothing to the models here')
    turns = [turn_of(place, message) for place, message in messages]
    return [Turn("system", asked.instructions), *turns] if asked.instructions else turns


def _parts(content: str | list[Part] | None) -> str | list[Part] | None:
    """The same in the words of chats."""
    if not isinstance(content, list):
        return content
    kinds = {"input_text": "text", "output_text": "text"}
    return [Part(kinds.get(part.type, part.type), part.text, part.refusal) for part in content]


def _tool(number: int, tool: dict[str, Any]) -> dict[str, Any]:
    kind = tool.get("type")
    if kind != "function":
        raise unsupported(f"tools[{number}]", f'a tool of type "{str(kind)[:32]}" is not a function')
    if not isinstance(tool.get("name"), str):
        raise bad_request(f"tools[{number}].name: missing.", f"tools[{number}].name")
    return {"type": "function", "function": {key: value for key, value in tool.items() if key != "type" and value is not None}}


def _choice(choice: str | ChosenTool | None) -> Any:
    if not isinstance(choice, ChosenTool):
        return choice
    if choice.type != "function":
        raise unsupported("tool_choice", f'a tool of type "{choice.type[:32]}" is not a function')
    return NamedTool(NamedFunction(choice.name))


def _form(form: Format) -> ResponseFormat:
    if form.type == "json_schema":
        return ResponseFormat(form.type, JsonSchema(form.name, form.schema, form.strict))
    if form.type not in ("text", "json_object"):
        raise unsupported("text.format", f'"{form.type[:32]}" is not known', "Give text, json_object or json_schema")
    return ResponseFormat(form.type)
