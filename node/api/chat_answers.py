"""Words a task's answer as OpenAI does: one chat.completion, or its chunks as server-sent events."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
from starlette.responses import Response

from node import function_calls
from node.api.errors import ApiError, error_body, failed_task
from node.api.fields import StreamOptions
from node.api.gathering import Gathered
from node.api.streaming import Headers
from node.desk import AskEnded, AskItem, AskRouted, AskText
from node.views import AnswerView
from protocol.parts import Alternative, Logprob, TaskId

CHAT_PREFIX = "chatcmpl"

_encode = msgspec.json.Encoder().encode


def as_wanted(answer: AnswerView, parallel_tool_calls: bool | None) -> AnswerView:
    """With the first call alone, for who takes one at a time."""
    return replace(answer, calls=answer.calls[:1]) if parallel_tool_calls is False else answer


class AnswerStream:
    """What all dialects of OpenAI's streams have in common: which node and which model answer.

    The model that is named is the first that was chosen, so that it does not change within one answer.
    """

    def __init__(self, task: TaskId, model: str) -> None:
        self.model = model
        self._task = task
        self._node = self._name = ""

    def opens(self, item: AskItem) -> bool:
        return isinstance(item, AskText)

    def headers(self, items: Sequence[AskItem]) -> Headers:
        self.learn(items)
        return task_headers(self._task, self._node, self._name, self.model if self._node else "")

    def learn(self, items: Sequence[AskItem]) -> None:
        """See who answers, as soon as it is known."""
        if not self._node:
            for item in items:
                if isinstance(item, AskRouted):
                    self._node, self._name, self.model = chosen(item, self.model)
                    return
                if isinstance(item, AskEnded):
                    answer = item.answer
                    self._node, self._name, self.model = answer.node, answer.name, answer.model or self.model


class Chunks(AnswerStream):
    """What the streams of chats and completions have in common.

    All that stays the same in a chunk is encoded once; a piece of text costs one JSON string. The `swarm` object, which may
    be longer than the answer, comes in its last chunk, and only to clients that ask for it or for usage.
    """

    object: str
    """What a chunk calls itself."""
    prefix: str
    """Of the answer's id."""
    parallel_tool_calls: bool | None = None
    """Whether several calls are told."""

    def opening(self) -> bytes:
        """What comes before the first text."""
        raise NotImplementedError

    def text(self, item: AskText) -> bytes:
        """A piece of the answer."""
        raise NotImplementedError

    def calls(self, answer: AnswerView) -> bytes:
        """What the model wants called, after the last text."""
        return b""

    def last(self, finish: bytes, more: bytes) -> bytes:
        """The chunk that says why the answer has ended."""
        raise NotImplementedError

    def __init__(self, task: TaskId, model: str, created: int, options: StreamOptions | None) -> None:
        super().__init__(task, model)
        options = options or StreamOptions()
        self._created = created
        self._include_usage = bool(options.include_usage)
        self._include_swarm = bool(options.include_swarm) or self._include_usage
        self._begun = False
        self._prefix = b""
        self._suffix = b',"usage":null}\n\n' if self._include_usage else b"}\n\n"

    def encode(self, items: Sequence[AskItem]) -> bytes:
        out: list[bytes] = []
        if not self._begun:
            self._begin(items)
            out.append(self.opening())
        for item in items:
            if isinstance(item, AskText):
                out.append(self.text(item))
            elif isinstance(item, AskEnded):
                out.append(self._end(item))
        return b"".join(out)

    def broken(self, error: ApiError) -> bytes:
        return b"data: " + error_body(error, openai=True) + b"\n\n"

    def _begin(self, items: Sequence[AskItem]) -> None:
        self._begun = True
        self.learn(items)
        head = {
            "id": f"{self.prefix}-{self._task.hex()}",
            "object": self.object,
            "created": self._created,
            "model": self.model,
        }
        # The opened object goes on with its choices.
        self._prefix = b"data: " + _encode(head)[:-1] + b',"choices":'

    def chunk(self, content: bytes, finish: bytes, logprobs: bytes = b"null", more: bytes = b"") -> bytes:
        """One event. `content` is the field that holds it, `more` are further fields of the whole."""
        choice = b'{"index":0,%b,"logprobs":%b,"finish_reason":%b}' % (content, logprobs, finish)
        return self._prefix + b"[" + choice + b"]" + more + self._suffix

    def _end(self, end: AskEnded) -> bytes:
        if end.code is not None:
            return self.broken(failed_task(end.code, end.answer.reason, end.answer))
        answer = as_wanted(end.answer, self.parallel_tool_calls)
        swarm = b',"swarm":' + _encode(answer) if self._include_swarm else b""
        last = self.calls(answer) + self.last(_encode(finish_reason(answer)), swarm)
        usage = b""
        if self._include_usage:
            usage = self._prefix + b'[],"usage":' + _encode(usage_of(answer)) + b"}\n\n"
        return last + usage + b"data: [DONE]\n\n"


class ChatChunks(Chunks):
    """The dialect of /v1/chat/completions with `stream`."""

    object = "chat.completion.chunk"
    prefix = CHAT_PREFIX

    def opening(self) -> bytes:
        return self.chunk(b'"delta":{"role":"assistant","content":""}', b"null")

    def text(self, item: AskText) -> bytes:
        logprobs = _encode(chat_logprobs(item.logprobs)) if item.logprobs else b"null"
        return self.chunk(b'"delta":{"content":' + _encode(item.text) + b"}", b"null", logprobs)

    def calls(self, answer: AnswerView) -> bytes:
        if not answer.calls:
            return b""
        calls = [{"index": number, **call} for number, call in enumerate(tool_calls(answer))]
        return self.chunk(b'"delta":' + _encode({"tool_calls": calls}), b"null")

    def last(self, finish: bytes, more: bytes) -> bytes:
        return self.chunk(b'"delta":{}', finish, more=more)


def completion(task: TaskId, model: str, created: int, gathered: Sequence[Gathered]) -> Response:
    """All that was answered to one question, in one object. Who answered is told of the first."""
    answer = gathered[0].answer
    body: dict[str, Any] = {
        "id": f"{CHAT_PREFIX}-{task.hex()}",
        "object": "chat.completion",
        "created": created,
        "model": answer.model or model,
        "choices": [_choice(number, each) for number, each in enumerate(gathered)],
        "usage": usage_of(*(each.answer for each in gathered)),
        "swarm": answer,
    }
    response = Response(_encode(body), media_type="application/json")
    response.raw_headers.extend(task_headers(task, answer.node, answer.name, answer.model))
    return response


def _choice(number: int, gathered: Gathered) -> dict[str, Any]:
    return {
        "index": number,
        "message": _message(gathered),
        "logprobs": chat_logprobs(gathered.logprobs) if gathered.logprobs else None,
        "finish_reason": finish_reason(gathered.answer),
    }


def _message(gathered: Gathered) -> dict[str, Any]:
    calls = tool_calls(gathered.answer)
    message: dict[str, Any] = {"role": "assistant", "content": gathered.text or (None if calls else ""), "refusal": None}
    return {**message, "tool_calls": calls} if calls else message


def tool_calls(answer: AnswerView) -> list[dict[str, Any]]:
    """As OpenAI words them."""
    return [function_calls.worded(call.id, call.name, call.arguments) for call in answer.calls]


def chat_logprobs(logprobs: Sequence[Logprob]) -> dict[str, Any]:
    """As OpenAI words them: `token` is text, in which a part of a character cannot be told, `bytes` has it whole."""
    content = [{**_entry(each), "top_logprobs": [_entry(other) for other in each.top]} for each in logprobs]
    return {"content": content, "refusal": None}


def _entry(each: Logprob | Alternative) -> dict[str, Any]:
    return {"token": token_text(each.data), "logprob": each.logprob, "bytes": list(each.data)}


def token_text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def task_headers(task: TaskId, node: str, name: str, model: str) -> Headers:
    """Which task this is; and who answers with which model, as far as that is known when the answer begins."""
    headers = [(b"x-swarm-task", task.hex().encode())]
    told = ((b"x-swarm-node", node), (b"x-swarm-worker", name), (b"x-swarm-model", model))
    return headers + [(header, _header_value(value)) for header, value in told if value]


def _header_value(text: str) -> bytes:
    """Names of others as ASCII that cannot end a header."""
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in text).strip().encode() or b"?"


def chosen(routed: AskRouted, model: str) -> tuple[str, str, str]:
    """The node that a routing chose, its name and its model; the given model if it does not say."""
    for candidate in routed.route.candidates:
        if candidate.chosen:
            return candidate.node, candidate.name, candidate.model or model
    return "", "", model


def finish_reason(answer: AnswerView) -> str:
    return answer.finish if answer.finish in ("length", "tool_calls") else "stop"


def usage_of(*answers: AnswerView) -> dict[str, int]:
    """Of answers to one question, whose tokens count once."""
    asked, answered = answers[0].tokens_in, sum(answer.tokens_out for answer in answers)
    return {"prompt_tokens": asked, "completion_tokens": answered, "total_tokens": asked + answered}
