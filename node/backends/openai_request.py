"""What an OpenAI-compatible server is asked for a chat: a request of the swarm in that API's words."""

import json
from typing import Any

from node import function_calls
from node.backends import BackendError, GenerationRequest
from node.backends.summaries import summary_turns
from protocol.parts import Demands, Sampling, Turn


def chat_body(model: str, request: GenerationRequest, *, with_usage: bool) -> dict[str, Any]:
    """The body of a POST to /chat/completions. Raises BackendError for a schema or functions that are no JSON."""
    turns = request.turns
    if request.skill == "summarize":
        turns = tuple(Turn(role, text) for role, text in summary_turns(turns[-1].text))
    body: dict[str, Any] = {
        "model": model,
        "messages": [_message(turn) for turn in turns],
        "max_tokens": request.tokens_max,
        "temperature": request.sampling.temperature,
        "top_p": request.sampling.top_p,
        "stream": True,
    }
    if with_usage:
        body["stream_options"] = {"include_usage": True}
    if request.sampling.seed:
        body["seed"] = request.sampling.seed
    # What is as usual is not mentioned: servers differ in what they know, and strict ones refuse the rest.
    usual = Sampling()
    for name in ("top_k", "min_p", "repeat_penalty", "presence_penalty", "frequency_penalty"):
        if (wanted := getattr(request.sampling, name)) != getattr(usual, name):
            body[name] = wanted
    if request.stops:
        body["stop"] = list(request.stops)
    return body | _demanded(request.demands)


def _message(turn: Turn) -> dict[str, Any]:
    message: dict[str, Any] = {"role": turn.role, "content": turn.text}
    if turn.calls:
        message["tool_calls"] = [function_calls.worded(call.id, call.name, call.arguments) for call in turn.calls]
    if turn.call:
        message["tool_call_id"] = turn.call
    return message


def _demanded(demands: Demands) -> dict[str, Any]:
    body: dict[str, Any] = {}
    if demands.schema:
        form = {"name": "answer", "schema": _parsed(demands.schema, "schema"), "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": form}
    if demands.logprobs:
        body |= {"logprobs": True, "top_logprobs": demands.logprobs - 1}
    if demands.tools:
        body["tools"] = _functions(demands)
    if demands.tool:
        body["tool_choice"] = "required"
    return body


def _functions(demands: Demands) -> list[Any]:
    """All that may be called; where one must be, that one alone: not every server knows how to be told its name."""
    functions = _parsed(demands.tools, "list of functions")
    if not isinstance(functions, list):
        raise BackendError("the functions are no list.", retryable=False)
    if demands.tool in ("", "*"):
        return functions
    named = [each for each in functions if isinstance(each, dict) and _name(each) == demands.tool]
    if not named:
        raise BackendError(f'there is no function "{demands.tool}".', retryable=False)
    return named[:1]


def _name(function: dict[str, Any]) -> object:
    inner = function.get("function")
    return inner.get("name") if isinstance(inner, dict) else None


def _parsed(text: str, what: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BackendError(f"the {what} cannot be read: {error}.", retryable=False) from None
