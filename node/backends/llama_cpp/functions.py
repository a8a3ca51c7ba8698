"""Calls of functions: how a model's template has them written, and what of an answer is one.

Three ways are in use among small models, told apart by the words of the template: JSON between `<tool_call>` and `</tool_call>`
(Hermes, Qwen, SmolLM), a JSON list after `[TOOL_CALLS]` (Mistral), and an answer that is a JSON object (Llama 3).
"""

import json
from dataclasses import dataclass
from typing import Any

from protocol.limits import CALLS_MAX, FUNCTION_BYTES_MAX

# One way to write each JSON value, in llguidance's words: small models would otherwise write spaces for ever.
ONE_WAY = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
NO_ARGUMENTS = {"type": "object", "properties": {}, "additionalProperties": False}  # Of a function that tells of none.


class ToolsRefused(Exception):
    """The functions of a request cannot be used. The message is for people."""


@dataclass(frozen=True, slots=True)
class Style:
    """What stands before and after a call, and what its arguments are called. Without `begin` a call is the whole answer.

    `before` and `after` are the same to the last character, in llguidance's Lark, for a call that is forced.
    """

    begin: str
    end: str
    arguments: str
    before: str
    after: str


HERMES = Style("<tool_call>", "</tool_call>", "arguments", "<tool_call>\\n", "\\n</tool_call>")
MISTRAL = Style("[TOOL_CALLS]", "", "arguments", "[TOOL_CALLS] [", "]")
LLAMA = Style("", "", "parameters", "", "")


def style_of(template: str) -> Style | None:
    """How this template's model writes calls; None if it knows of no functions."""
    if "tools" not in template:
        return None
    return HERMES if HERMES.begin in template else MISTRAL if MISTRAL.begin in template else LLAMA


def functions_of(tools: str) -> list[dict[str, Any]]:
    """The functions of a request, as OpenAI words them. Raises ToolsRefused."""
    try:
        listed = json.loads(tools)
        json.dumps(listed)  # Which reaches less deeply than reading does.
    except (ValueError, RecursionError) as error:
        raise ToolsRefused(f"the tools cannot be read: {error}") from None
    functions = [each.get("function") for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
    names = [each.get("name") for each in functions if isinstance(each, dict)]
    named = [name for name in names if isinstance(name, str) and _fits(name)]
    if not named or len(named) < len(listed):
        raise ToolsRefused(f"each tool needs a function with a name of up to {FUNCTION_BYTES_MAX} bytes")
    return list(listed)


def forced_call(style: Style, tools: list[dict[str, Any]], name: str) -> str:
    """A grammar, in llguidance's Lark, of one call: of this function, or of any if the name is `*`. Raises ToolsRefused."""
    functions = [each["function"] for each in tools if name in ("*", each["function"]["name"])]
    if not functions:
        raise ToolsRefused(f'there is no function "{name[:FUNCTION_BYTES_MAX]}" among the tools')
    calls = [
        {
            "type": "object",
            "properties": {
                "name": {"const": function["name"]},
                style.arguments: function.get("parameters") or NO_ARGUMENTS,
            },
            "required": ["name", style.arguments],
            "additionalProperties": False,
            "x-guidance": ONE_WAY,
        }
        for function in functions
    ]
    rules = "\n".join(f"call_{number}: %json {json.dumps(call)}" for number, call in enumerate(calls))
    names = " | ".join(f"call_{number}" for number in range(len(calls)))
    return f'%llguidance {{}}\nstart: "{style.before}" call "{style.after}"\ncall: {names}\n{rules}\n'


class CallFilter:
    """Parts the calls from an answer's text. Text passes as soon as no call can begin in it any more."""

    def __init__(self, style: Style, *, begun: bool = False) -> None:
        self._style = style
        self._held = ""
        self._in_call = False
        self._begun = begun  # Some text has passed, so that the answer is no call as a whole.

    def push(self, text: str) -> str:
        """Take the next text in; returns what is text for the user now."""
        self._held += text
        if self._in_call:
            return ""
        begin = self._style.begin
        if not begin:
            if not self._begun and not self._held.strip():
                return ""  # Spaces may stand before a call.
            self._in_call = not self._begun and self._held.lstrip().startswith("{")
            return "" if self._in_call else self._passed("")
        passed, found, rest = self._held.partition(begin)
        if found:
            self._in_call, self._held = True, begin + rest
            return passed.rstrip()
        return self._passed(_beginning_of(begin, self._held))

    def _passed(self, kept: str) -> str:
        passed = self._held[: len(self._held) - len(kept)]
        self._held, self._begun = kept, self._begun or bool(passed)
        return passed

    def end(self) -> tuple[str, list[list[str]]]:
        """The answer is over: what is text after all, and the calls as [name, arguments]."""
        if not self._in_call:
            return self._held, []
        calls = [call for text in self._parts() for call in _calls(text, self._style.arguments)]
        return ("", calls[:CALLS_MAX]) if calls else (self._held, [])

    def _parts(self) -> list[str]:
        if not self._style.begin:
            return [self._held]
        parts = self._held.split(self._style.begin)[1:]
        return [part.partition(self._style.end)[0] if self._style.end else part for part in parts]


def _calls(text: str, arguments: str) -> list[list[str]]:
    """What a JSON text says of calls; nothing if it does not."""
    try:
        said, _ = json.JSONDecoder().raw_decode(text.strip())
    except (ValueError, RecursionError):
        return []
    calls = []
    for call in said if isinstance(said, list) else [said]:
        given = call.get(arguments, call.get("arguments", {})) if isinstance(call, dict) else None
        name = call.get("name") if isinstance(call, dict) else None
        if isinstance(given, dict) and isinstance(name, str) and _fits(name):
            calls.append([name, json.dumps(given, ensure_ascii=False)])
    return calls


def _fits(name: str) -> bool:
    return 0 < len(name.encode("utf-8", "replace")) <= FUNCTION_BYTES_MAX


def _beginning_of(mark: str, text: str) -> str:
    """The last characters of a text that could be the beginning of a mark."""
    return next((text[-size:] for size in range(min(len(mark) - 1, len(text)), 0, -1) if mark.startswith(text[-size:])), "")
