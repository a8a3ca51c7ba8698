"""Words a task's answer as OpenAI's /v1/responses does: one object, or the events that it comes about by."""

import time
from collections.abc import Sequence
from typing import Any

import msgspec
from starlette.responses import Response

from node.api.chat_answers import AnswerStream, as_wanted, chat_logprobs, finish_reason, task_headers, usage_of
from node.api.errors import ApiError, failed_task
from node.api.gathering import Gathered
from node.api.response_requests import Format, ResponseRequest
from node.api.streaming import named_event
from node.desk import AskEnded, AskItem, AskText
from node.views import AnswerView
from protocol.parts import Logprob
from swarm.values import Task

_encode = msgspec.json.Encoder().encode
_ERRORS = {400: "invalid_prompt", 429: "rate_limit_exceeded"}
"""OpenAI's few codes of answers that failed. All others are `server_error`; `type` has ours."""


def response(asked: ResponseRequest, task: Task, created: int, gathered: Gathered) -> Response:
    """The whole answer in one object."""
    answer = as_wanted(gathered.answer, asked.parallel_tool_calls)
    output = output_of(task, gathered.text, gathered.logprobs, answer)
    made = Response(_encode(ended(asked, task, created, output, answer)), media_type="application/json")
    made.raw_headers.extend(task_headers(task.id, answer.node, answer.name, answer.model))
    return made


def begun(asked: ResponseRequest, task: Task, created: int, model: str) -> dict[str, Any]:
    """The object of an answer that has yet to come: above all what was asked for, said again."""
    form = asked.text.format if asked.text and asked.text.format else Format()
    return {
        "id": f"resp_{task.id.hex()}",
        "object": "response",
        "created_at": created,
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "instructions": asked.instructions,
        "max_output_tokens": asked.max_output_tokens,
        "metadata": asked.metadata or {},
        "model": model,
        "output": [],
        "parallel_tool_calls": asked.parallel_tool_calls is not False,
        "previous_response_id": None,
        "reasoning": None,
        "store": False,
        "temperature": task.sampling.temperature,
        "text": {"format": {name: value for name, value in msgspec.to_builtins(form).items() if value is not None}},
        "tool_choice": asked.tool_choice or "auto",
        "tools": asked.tools or [],
        "top_p": task.sampling.top_p,
        "truncation": "disabled",
        "usage": None,
    }


def ended(
    asked: ResponseRequest, task: Task, created: int, output: Sequence[dict[str, Any]], answer: AnswerView
) -> dict[str, Any]:
    """The object of an answer that has ended well, or at its length."""
    cut = finish_reason(answer) == "length"
    tokens = usage_of(answer)
    return {
        **begun(asked, task, created, answer.model),
        "status": "incomplete" if cut else "completed",
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "completed_at": None if cut else int(time.time()),
        "output": output,
        "usage": {
            "input_tokens": tokens["prompt_tokens"],
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": tokens["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": tokens["total_tokens"],
        },
        "swarm": answer,
    }


def output_of(task: Task, text: str, logprobs: Sequence[Logprob], answer: AnswerView) -> list[dict[str, Any]]:
    """What the model said, and what it wants called."""
    calls = [_call(task, number, answer) for number in range(len(answer.calls))]
    if not text and calls:
        return calls
    status = "incomplete" if finish_reason(answer) == "length" else "completed"
    return [_message(task, status, [_part(text, logprobs)]), *calls]


def _message(task: Task, status: str, content: list[dict[str, Any]]) -> dict[str, Any]:
    return {"id": f"msg_{task.id.hex()}", "type": "message", "status": status, "role": "assistant", "content": content}


def _part(text: str, logprobs: Sequence[Logprob] = ()) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": _likelihoods(logprobs)}


def _likelihoods(logprobs: Sequence[Logprob]) -> Any:
    return chat_logprobs(logprobs)["content"]


def _call(task: Task, number: int, answer: AnswerView) -> dict[str, Any]:
    call = answer.calls[number]
    return {
        "id": f"fc_{task.id.hex()}_{number}",
        "type": "function_call",
        "status": "completed",
        "call_id": call.id,
        "name": call.name,
        "arguments": call.arguments,
    }


class ResponseEvents(AnswerStream):
    """The dialect of /v1/responses with `stream`. Its last events say all once more, so that all is kept until then."""

    def __init__(self, asked: ResponseRequest, task: Task, model: str, created: int) -> None:
        super().__init__(task.id, model)
        self._asked = asked
        self._of = task
        self._created = created
        self._texts: list[str] = []
        self._logprobs: list[Logprob] = []
        self._number = 0
        self._begun = False

    def encode(self, items: Sequence[AskItem]) -> bytes:
        out: list[bytes] = []
        if not self._begun:
            self._begun = True
            self.learn(items)
            for name in ("created", "in_progress"):
                out.append(self._event(f"response.{name}", response=self._object()))
        for item in items:
            if isinstance(item, AskText):
                out += self._text(item)
            elif isinstance(item, AskEnded):
                out += self._failed(item) if item.code is not None else self._ended(item)
        return b"".join(out)

    def broken(self, error: ApiError) -> bytes:
        told = {"code": error.code, "message": error.message, "param": error.param}
        return self._event("error", **told, error=told)  # As documented; and as OpenAI's clients look for it.

    def _event(self, kind: str, **fields: Any) -> bytes:
        body = _encode({"type": kind, "sequence_number": self._number, **fields})
        self._number += 1
        return named_event(kind, body)

    def _object(self) -> dict[str, Any]:
        return begun(self._asked, self._of, self._created, self.model)

    def _text(self, item: AskText) -> list[bytes]:
        self._logprobs += item.logprobs
        if not item.text and not self._texts:
            return []  # A message is opened by its first word: there may be none, only calls of functions.
        out, told = ([], item.logprobs) if self._texts else (self._opened(), self._logprobs)
        self._texts.append(item.text)
        delta = {"delta": item.text, "logprobs": _likelihoods(told)}
        return [*out, self._event("response.output_text.delta", **self._place(), **delta)]

    def _opened(self) -> list[bytes]:
        item = _message(self._of, "in_progress", [])
        return [
            self._event("response.output_item.added", output_index=0, item=item),
            self._event("response.content_part.added", **self._place(), part=_part("")),
        ]

    def _place(self) -> dict[str, Any]:
        return {"item_id": f"msg_{self._of.id.hex()}", "output_index": 0, "content_index": 0}

    def _ended(self, end: AskEnded) -> list[bytes]:
        answer = as_wanted(end.answer, self._asked.parallel_tool_calls)
        text = "".join(self._texts)
        output = output_of(self._of, text, self._logprobs, answer)
        out: list[bytes] = []
        for index, item in enumerate(output):
            if item["type"] == "message":
                out += [] if self._texts else self._opened()
                [part] = item["content"]
                said = {"text": text, "logprobs": part["logprobs"]}
                out.append(self._event("response.output_text.done", **self._place(), **said))
                out.append(self._event("response.content_part.done", **self._place(), part=part))
            else:
                opened = {**item, "status": "in_progress", "arguments": ""}
                out.append(self._event("response.output_item.added", output_index=index, item=opened))
                place = {"item_id": item["id"], "output_index": index}
                kind = "response.function_call_arguments"
                out.append(self._event(f"{kind}.delta", **place, delta=item["arguments"]))
                out.append(self._event(f"{kind}.done", **place, name=item["name"], arguments=item["arguments"]))
            out.append(self._event("response.output_item.done", output_index=index, item=item))
        whole = ended(self._asked, self._of, self._created, output, answer)
        return [*out, self._event(f"response.{whole['status']}", response=whole)]

    def _failed(self, end: AskEnded) -> list[bytes]:
        assert end.code is not None
        error = failed_task(end.code, end.answer.reason, end.answer)
        told = {"code": _ERRORS.get(error.status, "server_error"), "message": error.message, "type": error.code}
        output = [_message(self._of, "incomplete", [_part("".join(self._texts))])] if self._texts else []
        whole = {**self._object(), "status": "failed", "error": told, "output": output, "swarm": end.answer}
        return [self._event("response.failed", response=whole)]
