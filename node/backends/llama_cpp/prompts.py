"""Makes the text that a model continues out of a request: by its own chat template, which came with a file that nobody vouches for.

The template runs in jinja2's immutable sandbox, in the child only, within bounds of time and memory. Marks of the template that
occur in a user's text are broken up, so that a text cannot pretend to be another turn.
"""

import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, NoReturn

import jinja2
import jinja2.debug  # Imported on the first error otherwise, when files can no longer be read.
import jinja2.ext
import jinja2.sandbox

from node import function_calls
from node.backends.llama_cpp.functions import style_of
from node.backends.llama_cpp.sandbox import Overdue, bounded

TEMPLATE_CHARACTERS_MAX = 65_536  # The longest in use are near 20,000.
PROMPT_CHARACTERS_MAX = 262_144  # Twice what a request may bring.
RENDER_S_MAX = 2.0  # Templates take a millisecond.
RENDER_BYTES_MAX = 256 << 20


class Refused(Exception):
    """No prompt can be made of this request. The message is for people."""


class _Marks(jinja2.ext.Extension):
    """Lets `{% generation %}` pass, which some templates use to mark what a model said."""

    tags = {"generation"}  # noqa: RUF012 (jinja2's own shape)

    def parse(self, parser: Any) -> Any:
        parser.stream.skip(1)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """A model's chat template, compiled. `marks` are the texts of its control tokens."""

    def __init__(self, source: str, begin: str, end: str, marks: Sequence[str]) -> None:
        """Raises Refused if the template cannot be used."""
        if len(source) > TEMPLATE_CHARACTERS_MAX:
            raise Refused(f"its chat template has {len(source)} characters, {TEMPLATE_CHARACTERS_MAX} are the most")
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Marks, jinja2.ext.loopcontrols]
        )
        environment.filters["tojson"] = _tojson
        self._begin, self._end = begin, end
        self.style = style_of(source)
        """How its model writes calls of functions, if it knows of any."""
        self._marks = re.compile("|".join(map(re.escape, marks))) if marks else None
        with _bounded():
            self._template = environment.from_string(source)
        self.render([["user", "Hello"]])

    def render(self, turns: Sequence[Sequence[str]], tools: list[Any] | None = None) -> str:
        """The prompt, of turns as `pipe.Generate` has them and of functions as OpenAI words them. Raises Refused."""
        messages = [self._message(*turn) for turn in turns]
        with _bounded():
            prompt = self._template.render(
                messages=messages,
                bos_token=self._begin,
                eos_token=self._end,
                add_generation_prompt=True,
                raise_exception=_refuse,
                strftime_now=_strftime_now,
                tools=tools,
                documents=None,
            )
        if len(prompt) > PROMPT_CHARACTERS_MAX:
            raise Refused(f"its chat template makes {len(prompt)} characters, {PROMPT_CHARACTERS_MAX} are the most")
        return prompt

    def _message(self, role: str, text: str, call: str = "", *calls: str) -> dict[str, Any]:
        message: dict[str, Any] = {"role": role, "content": self._broken_up(text)}
        if call:
            message["tool_call_id"] = call
        if calls:
            message["tool_calls"] = [
                function_calls.worded(identity, name, _arguments(given))
                for identity, name, given in zip(calls[::3], calls[1::3], map(self._broken_up, calls[2::3]), strict=True)
            ]
        return message

    def tools(self, tools: str) -> str:
        """The functions of a request, without marks."""
        return self._broken_up(tools)

    def _broken_up(self, text: str) -> str:
        return self._marks.sub(lambda mark: f"{mark[0][0]} {mark[0][1:]}", text) if self._marks else text


@contextlib.contextmanager
def _bounded() -> Iterator[None]:
    """Turns whatever a template may do within its bounds into Refused."""
    try:
        with bounded(RENDER_S_MAX, RENDER_BYTES_MAX):
            yield
    except Refused:
        raise
    except Overdue:
        raise Refused(f"its chat template takes longer than {RENDER_S_MAX:.0f} s") from None
    except MemoryError:
        raise Refused("its chat template wants too much memory") from None
    except Exception as error:  # noqa: BLE001 A template's own code can raise anything.
        raise Refused(f"its chat template fails: {str(error)[:160]}") from None


def _arguments(given: str) -> Any:
    """Templates write an object as JSON by themselves."""
    try:
        return json.loads(given)
    except (ValueError, RecursionError):
        return given


def _refuse(message: object) -> NoReturn:
    raise Refused(f"the model's chat template refuses this conversation: {str(message)[:160]}")


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, **more: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **more)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)
