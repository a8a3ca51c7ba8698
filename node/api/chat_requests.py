"""What OpenAI's clients send to /v1/chat/completions, and what of it can be done here."""

from typing import Any, Literal

import msgspec

from node.api.errors import bad_request
from node.api.fields import Alternatives, AnswerFields, TokenLimit, json_text, unsupported, wishes_with
from node.api.tasks import Wishes
from protocol import limits as lim
from protocol.parts import FunctionCall, Turn

# Tools know `developer` as the newer word for `system`.
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
ANY_TOOL = "*"


class Part(msgspec.Struct):
    """One part of a message's content. Only text can be used."""

    type: str = "text"
    text: str | None = None
    refusal: str | None = None


class CalledFunction(msgspec.Struct):
    name: str
    arguments: str = "{}"


class ToolCall(msgspec.Struct):
    function: CalledFunction
    id: str = ""


class ChatMessage(msgspec.Struct):
    role: str
    content: str | list[Part] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None


class NamedFunction(msgspec.Struct):
    name: str


class NamedTool(msgspec.Struct):
    function: NamedFunction


class ChatRequest(AnswerFields, kw_only=True):
    """The fields that are known."""

    messages: list[ChatMessage]
    max_tokens: TokenLimit | None = None
    max_completion_tokens: TokenLimit | None = None
    logprobs: bool | None = None
    top_logprobs: Alternatives | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    # Known, and refused where they would change the answer.
    functions: list[Any] | None = None
    modalities: list[str] | None = None
    audio: Any = None


DECODER = msgspec.json.Decoder(ChatRequest)


def turns_of(request: ChatRequest) -> list[Turn]:
    """The conversation. Raises ApiError for roles and contents that no model here can use."""
    return [turn_of(f"messages[{number}]", message) for number, message in enumerate(request.messages)]


def wishes_of(request: ChatRequest) -> Wishes:
    """How the answer shall be made. Raises ApiError for what would be ignored and must not be."""
    _refuse_unsupported(request)
    if request.top_logprobs and not request.logprobs:
        raise bad_request("top_logprobs: needs logprobs.", "top_logprobs")
    return wishes_with(
        request,
        _tokens_max(request),
        logprobs=1 + (request.top_logprobs or 0) if request.logprobs else 0,
        tools=json_text(request.tools) if request.tools and request.tool_choice != "none" else "",
        tool=_tool(request),
    )


def _tokens_max(request: ChatRequest) -> int | None:
    for name in ("max_completion_tokens", "max_tokens"):
        count = getattr(request, name)
        if count == 0:
            raise bad_request(f"{name}: 0 is less than 1.", name)
        if count is not None and count > 0:
            return int(count)
    return None


def _tool(request: ChatRequest) -> str:
    """Which function must be called: none if it is for the model to decide. Raises ApiError for tools that are no functions."""
    names = [_function_name(number, tool) for number, tool in enumerate(request.tools or ())]
    choice = request.tool_choice
    if not isinstance(choice, NamedTool):
        return ANY_TOOL if choice == "required" else ""
    if names and choice.function.name not in names:
        raise bad_request(f'tool_choice: there is no function "{choice.function.name[:64]}" among the tools.', "tool_choice")
    return choice.function.name


def _function_name(number: int, tool: dict[str, Any]) -> str:
    function = tool.get("function")
    name = function.get("name") if isinstance(function, dict) else None
    place = f"tools[{number}].function.name"
    if not isinstance(name, str) or not name:
        raise bad_request(f"{place}: missing.", place)
    if len(name.encode()) > lim.FUNCTION_BYTES_MAX:
        raise bad_request(f"{place}: more than {lim.FUNCTION_BYTES_MAX} bytes.", place)
    return name


def turn_of(place: str, message: ChatMessage) -> Turn:
    """One turn; `place` is where it stands in the request. Raises ApiError for a role or a content that no model here can use."""
    role = _ROLES.get(message.role)
    if message.role == "function":
        raise unsupported(f"{place}.role", "functions are `tools` now")
    if role is None:
        raise bad_request(f'{place}.role: "{message.role[:32]}" is not one of {", ".join(_ROLES)}.', f"{place}.role")
    calls = tuple(
        FunctionCall(call.id, call.function.name, call.function.arguments) for call in message.tool_calls or ()
    )
    _check_calls(place, calls, message.tool_call_id or "")
    return Turn(role, _text(place, message.content), calls, message.tool_call_id or "" if role == "tool" else "")


def _check_calls(place: str, calls: tuple[FunctionCall, ...], answered: str) -> None:
    """Raises ApiError for what no wire can carry."""
    if len(calls) > lim.CALLS_MAX:
        raise bad_request(f"{place}.tool_calls: {len(calls)} calls, {lim.CALLS_MAX} allowed.", f"{place}.tool_calls")
    names = [answered, *(name for call in calls for name in (call.id, call.name))]
    if any(len(name.encode()) > lim.FUNCTION_BYTES_MAX for name in names):
        raise bad_request(f"{place}: an id or a name is longer than {lim.FUNCTION_BYTES_MAX} bytes.", f"{place}.tool_calls")
    if any(len(call.arguments.encode()) > lim.ARGUMENTS_BYTES_MAX for call in calls):
        raise bad_request(f"{place}: arguments of more than {lim.ARGUMENTS_BYTES_MAX} bytes.", f"{place}.tool_calls")


def _text(place: str, content: str | list[Part] | None) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    texts = []
    for number, part in enumerate(content):
        text = part.text if part.type == "text" else part.refusal if part.type == "refusal" else None
        if text is None and part.type in ("text", "refusal"):
            raise bad_request(f"{place}.content[{number}].{part.type}: missing.", f"{place}.content[{number}].{part.type}")
        if text is None:
            raise unsupported(f"{place}.content[{number}]", f'a part of type "{part.type[:32]}" is not text')
        texts.append(text)
    return "".join(texts)


def _refuse_unsupported(request: ChatRequest) -> None:
    if request.functions:
        raise unsupported("functions", "they are `tools` now")
    if any(modality != "text" for modality in request.modalities or ()):
        raise unsupported("modalities", "answers are text")
    if request.audio is not None:
        raise unsupported("audio", "answers are text")
