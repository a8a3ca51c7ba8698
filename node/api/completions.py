"""/v1/completions: a text is continued, without a conversation around it. Older tools and evaluation harnesses speak it."""

import codecs
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from node.api.bodies import read_json
from node.api.chat_answers import Chunks, finish_reason, task_headers, usage_of
from node.api.errors import bad_request
from node.api.fields import (
    ANSWERS_MAX,
    Alternatives,
    AnswerFields,
    SwarmWishes,
    TokenLimit,
    unsupported,
    wishes_with,
)
from node.api.gathering import Gathered, gather_all
from node.api.names import AUTO, resolve
from node.api.streaming import EventStream
from node.api.tasks import Service, Wishes, make_task, times
from node.api.waiting import Awaited
from node.desk import AskText
from node.views import AnswerView
from protocol.parts import Demands, Logprob, TaskId, Turn
from swarm.values import Task

COMPLETE = "complete"
TOKENS_DEFAULT = 16  # OpenAI's own for this route.


class CompletionRequest(AnswerFields, kw_only=True):
    """The fields that are known."""

    prompt: str | list[str | int | list[int]] | None = None
    max_tokens: TokenLimit | None = None
    echo: bool | None = None
    logprobs: Alternatives | None = None
    # Known, and refused where they would change the answer.
    best_of: int | None = None
    suffix: str | None = None


_DECODER = msgspec.json.Decoder(CompletionRequest)
_encode = msgspec.json.Encoder().encode


class CompletionChunks(Chunks):
    """The dialect of /v1/completions with `stream`."""

    object = "text_completion"
    prefix = "cmpl"

    echoed = ""
    """The prompt, if it is to be said again."""
    place: "_Place"
    """Where the next token stands, behind the prompt."""

    def opening(self) -> bytes:
        return self.chunk(b'"text":' + _encode(self.echoed), b"null") if self.echoed else b""

    def text(self, item: AskText) -> bytes:
        logprobs = _encode(legacy_logprobs(item.logprobs, self.place)) if item.logprobs else b"null"
        return self.chunk(b'"text":' + _encode(item.text), b"null", logprobs)

    def last(self, finish: bytes, more: bytes) -> bytes:
        return self.chunk(b'"text":""', finish, b"null", more)


async def completions(service: Service, request: Request) -> ASGIApp:
    asked = await read_json(request, _DECODER)
    prompts = prompts_of(asked)
    wishes = wishes_of(asked)
    swarm = asked.swarm or SwarmWishes()
    name = asked.model or AUTO
    wanted = resolve(service.desk, name, skill=swarm.skill or COMPLETE)
    created = int(time.time())
    is_read = asked.echo and (asked.logprobs is not None or asked.max_tokens == 0)
    count = asked.n or 1
    if asked.max_tokens == 0 and not all(prompts):
        raise bad_request("prompt: of an empty text there is nothing to tell.", "prompt")
    if len(prompts) * count > ANSWERS_MAX:
        raise bad_request(f"n: {count} answers to each of {len(prompts)} texts, {ANSWERS_MAX} in all allowed.", "n")
    if asked.stream:
        if len(prompts) * count > 1 or is_read:
            raise unsupported("stream", "several answers, or a prompt's own log-probabilities, come in one piece")
        task = make_task(service, wanted, [Turn("user", prompts[0])], wishes)
        chunks = CompletionChunks(task.id, name, created, asked.stream_options)
        chunks.place = _Place(len(prompts[0]))
        chunks.echoed = prompts[0] if asked.echo else ""
        return EventStream(service.desk, task, chunks)
    tasks = [make_task(service, wanted, [Turn("user", prompt)], wishes) for prompt in prompts]
    # Of an empty text there is nothing to read, and a task that forces nothing would write.
    read = [_reading(task, service) if is_read and prompt else None for task, prompt in zip(tasks, prompts, strict=True)]
    written = [times(service, task, count) for task in tasks] if asked.max_tokens != 0 else []
    return Awaited(lambda: _complete(service, asked, prompts, written, read, name, created))


def prompts_of(asked: CompletionRequest) -> list[str]:
    """The texts to continue. Raises ApiError."""
    if isinstance(asked.prompt, str):
        return [asked.prompt]
    prompts = asked.prompt or [""]
    if len(prompts) > ANSWERS_MAX:
        raise bad_request(f"prompt: {len(prompts)} texts, {ANSWERS_MAX} allowed.", "prompt")
    texts = [prompt for prompt in prompts if isinstance(prompt, str)]
    if len(texts) < len(prompts):
        raise unsupported("prompt", "tokens have other numbers in each model", "Send text")
    return texts


def wishes_of(asked: CompletionRequest) -> Wishes:
    """How the text shall be continued. Raises ApiError for what would be ignored and must not be."""
    if asked.best_of not in (None, asked.n or 1):
        raise unsupported("best_of", "all answers that are made are told")
    if asked.suffix:
        raise unsupported("suffix", "no model here fills gaps")
    if asked.max_tokens == 0 and not asked.echo:
        raise bad_request("max_tokens: 0 makes sense only with echo.", "max_tokens")
    tokens_max = TOKENS_DEFAULT if asked.max_tokens is None else None if asked.max_tokens < 0 else asked.max_tokens
    return wishes_with(asked, tokens_max, logprobs=0 if asked.logprobs is None else 1 + asked.logprobs)


def _reading(task: Task, service: Service) -> Task:
    """How likely the prompt itself is: it is what a text without a beginning is forced to be."""
    demands = Demands(forced=task.turns[-1].text, logprobs=task.demands.logprobs)
    return replace(task, id=TaskId(service.draw(16)), turns=(Turn("user", ""),), demands=demands)


async def _complete(
    service: Service,
    asked: CompletionRequest,
    prompts: list[str],
    writing: list[list[Task]],
    reading: list[Task | None],
    name: str,
    created: int,
) -> Response:
    """`writing` holds the tasks of each prompt, if any, and `reading` the one that says how likely it is, if it is to be told."""
    tasks = [*chain(*writing), *(task for task in reading if task)]
    gathered = dict(zip((task.id for task in tasks), await gather_all(service.desk, tasks, asked.within_s), strict=True))
    choices: list[dict[str, Any]] = []
    usages: list[dict[str, int]] = []
    for number, prompt in enumerate(prompts):
        written = [gathered[task.id] for task in writing[number]] if writing else []
        task = reading[number]
        read = gathered[task.id] if task else None
        if written:
            usages.append(usage_of(*(each.answer for each in written)))
        elif read is not None:
            usages.append(_usage_of_reading(read.answer))
        answers: Sequence[Gathered | None] = written or [None]
        choices += [_choice(len(choices) + place, prompt, bool(asked.echo), each, read) for place, each in enumerate(answers)]
    first = gathered[tasks[0].id].answer
    body = {
        "id": f"cmpl-{tasks[0].id.hex()}",
        "object": "text_completion",
        "created": created,
        "model": first.model or name,
        "choices": choices,
        "usage": {key: sum(usage[key] for usage in usages) for key in usages[0]},
        "swarm": first,
    }
    response = Response(_encode(body), media_type="application/json")
    response.raw_headers.extend(task_headers(tasks[0].id, first.node, first.name, first.model))
    return response


def _usage_of_reading(answer: AnswerView) -> dict[str, int]:
    """What was given as an answer is the prompt."""
    return {"prompt_tokens": answer.tokens_out, "completion_tokens": 0, "total_tokens": answer.tokens_out}


def _choice(
    number: int, prompt: str, echoed: bool, written: Gathered | None, reading: Gathered | None
) -> dict[str, Any]:
    logprobs: list[Logprob] = [*(reading.logprobs if reading else ()), *(written.logprobs if written else ())]
    place = _Place(0 if reading else len(prompt))
    return {
        "index": number,
        "text": (prompt if echoed else "") + (written.text if written else ""),
        "logprobs": legacy_logprobs(logprobs, place) if logprobs else None,
        "finish_reason": finish_reason(written.answer) if written else "length",
    }


class _Place:
    """Where in the text a token stands."""

    def __init__(self, begins: int) -> None:
        self._next = begins
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def of(self, token: bytes) -> int:
        """Of the next one."""
        begins = self._next
        self._next += len(self._decoder.decode(token))
        return begins


def legacy_logprobs(logprobs: Sequence[Logprob], place: _Place) -> dict[str, Any]:
    """As this route words them; `place` goes on behind the last."""
    return {
        "tokens": [_legacy_text(each.data) for each in logprobs],
        "token_logprobs": [each.logprob for each in logprobs],
        "top_logprobs": [{_legacy_text(other.data): other.logprob for other in each.top} for each in logprobs],
        "text_offset": [place.of(each.data) for each in logprobs],
    }


def _legacy_text(data: bytes) -> str:
    """A token; parts of a character as OpenAI wrote them, so that no two are alike."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)
