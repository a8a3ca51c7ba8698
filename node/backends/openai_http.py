"""The backend `openai_http`: a model behind any OpenAI-compatible endpoint (Ollama, llama-server, vLLM, LM Studio, a cloud).

Reference: `http://127.0.0.1:11434/v1#llama3`. Without a path, `/v1` is meant; without `#MODEL`, the first model that the server
lists and whose name does not speak of vectors. One whose name does, or that cannot chat, offers `embed`, or `rerank`. A key comes
from the URL (`https://:KEY@host/v1`) or else from the environment variable SWARM_OPENAI_KEY; it is sent to this server and appears
in no message and no log.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import trio

from node.backends import DESCRIPTIONS, BackendError, Generated, GenerationRequest, Piece, Surroundings
from node.backends.openai_endpoint import Endpoint, Response
from node.backends.openai_request import chat_body
from node.backends.openai_stream import CallCollector, EventReader
from node.backends.openai_trials import features_of
from node.backends.openai_vectors import embed, rerank
from node.backends.self_test import measure_each
from node.backends.stops import StopFilter
from node.backends.words import send
from protocol.limits import CONTEXT_TOKENS_MAX, MODEL_BYTES_MAX
from protocol.parts import Capability

SLOTS = 4  # Servers queue by themselves; this keeps one node from filling that queue.
CONTEXT_TOKENS = 4_096  # Claimed where the server does not tell.
CHATS = ("chat", "summarize")
WITHOUT_STREAM = {"rerank": rerank, "embed": embed}

_log = logging.getLogger(__name__)


class OpenAIHttpBackend:
    """One model of one server."""

    def __init__(self, argument: str, surroundings: Surroundings) -> None:
        """Opens nothing. Raises BackendError for what is no URL."""
        self._endpoint = Endpoint(argument)
        self.url, self.model = self._endpoint.url, self._endpoint.fragment
        self._with_usage = True
        self._skills: tuple[str, ...] = CHATS
        self._serving = False
        self._slots = trio.Semaphore(SLOTS)

    @property
    def pid(self) -> None:
        """It has no process of its own."""
        return None

    async def run(self, *, task_status: trio.TaskStatus[tuple[Capability, ...]]) -> None:
        """As `Backend.run`. A server that goes away later makes calls fail; the next call asks it again."""
        if self._endpoint.key_in_the_clear:
            _log.warning("%s: the key is sent without encryption", self.url)
        offered = self._choose(await self._endpoint.call("/models"))
        self._serving = True
        try:
            measured = await self._measured(offered)
            features = await features_of(self, self.model) if self._skills == CHATS else ()
            task_status.started(tuple(replace(each, features=features) for each in measured))
            await trio.sleep_forever()
        finally:
            self._serving = False

    async def generate(self, request: GenerationRequest, pieces: trio.MemorySendChannel[str | Piece]) -> Generated:
        """As `Backend.generate`."""
        if not self._serving:
            raise BackendError(f"{self.url} is not in use.")
        if request.model != self.model or request.skill not in self._skills:
            raise BackendError(
                f'{self.model} does {" and ".join(self._skills)}; not "{request.skill}" with "{request.model}".', retryable=False
            )
        if not request.turns:
            raise BackendError(f"{request.skill} needs at least one turn.", retryable=False)
        if request.delivered:
            raise BackendError(f"{self.url} cannot go on in the middle of an answer.", retryable=False)
        if request.skill in WITHOUT_STREAM:
            async with self._slots:
                text, generated = await WITHOUT_STREAM[request.skill](self._endpoint, self.model, request.turns)
            await send(pieces, text)
            return generated
        body = chat_body(self.model, request, with_usage=self._with_usage)
        async with self._slots, self._endpoint.open("POST", "/chat/completions", body) as response:
            return await self._relay(request, response, pieces)

    async def _relay(
        self, request: GenerationRequest, response: Response, pieces: trio.MemorySendChannel[str | Piece]
    ) -> Generated:
        """Pass the stream on. One that ends without saying that the answer is complete is a failure."""
        reader, stops, collector = EventReader(), StopFilter(request.stops), CallCollector()
        finish: str | None = None
        tokens_in, tokens_out, events, done = 0, 0, 0, False
        while not done and (chunk := await response.receive()):
            with self._naming():
                come = reader.feed(chunk)
                for part in (part for event in come for part in event.calls):
                    collector.add(part)
            for event in come:
                # Servers may ignore max_tokens; each event that brings something holds at least one.
                events += bool(event.text or event.calls or event.logprobs)
                if events > request.tokens_max:
                    await _flush(stops, pieces)
                    return Generated("length", tokens_in, request.tokens_max)
                # Where a function must be called, words besides are of no use to anybody.
                text = stops.push(event.text) if not request.demands.tool else ""
                if text or event.logprobs:
                    await send(pieces, Piece(text, (), event.logprobs) if event.logprobs else text)
                if stops.stopped:
                    return Generated("stop", tokens_in, events)
                finish = event.finish or finish
                tokens_in, tokens_out = event.tokens_in or tokens_in, event.tokens_out or tokens_out
                done = done or event.done
        if finish is None and not done:
            raise BackendError(f"{self.url}: its stream ended in the middle of an answer.")
        await _flush(stops, pieces)
        with self._naming():
            calls = collector.calls() if finish != "length" else ()
            if request.demands.tool and not calls:
                raise BackendError("its answer calls no function, though one was asked for")
        finish = "tool_calls" if calls else "length" if finish == "length" else "stop"
        return Generated(finish, tokens_in, min(tokens_out or events, request.tokens_max), calls)

    @contextmanager
    def _naming(self) -> Iterator[None]:
        """Errors tell which server they are of."""
        try:
            yield
        except BackendError as error:
            raise BackendError(f"{self.url}: {self._endpoint.clean(str(error))}.") from error

    def _choose(self, said: dict[str, Any]) -> Capability:
        """The model named in the reference, or else the first that may be able to chat."""
        listed = said.get("data")
        models = [item for item in listed if isinstance(item, dict)] if isinstance(listed, list) else []
        names = [item["id"] for item in models if isinstance(item.get("id"), str) and item["id"]]
        names = [name for name in names if name.isprintable() and len(name.encode()) <= MODEL_BYTES_MAX]
        if not self.model:
            able = [name for name in names if not _without_stream(name)]
            if not able:
                raise BackendError(f"{self.url} lists no model that could chat; load one there first.", retryable=False)
            self.model = able[0]
            if len(able) > 1:
                _log.info("%s: using %s; name another with %s#MODEL", self.url, self.model, self.url)
        elif names and self.model not in names and f"{self.model}:latest" not in names:
            some = ", ".join(names[:8])
            raise BackendError(f'{self.url} has no model "{self.model}"; it has {some}.', retryable=False)
        details = next((item for item in models if item.get("id") == self.model), {})
        return Capability("", self.model, b"", _context_tokens(details), 0.0, 0, SLOTS, (), "")

    async def _measured(self, offered: Capability) -> tuple[Capability, ...]:
        """By the skills that its name speaks of, or else the first that it has."""
        if told := _without_stream(self.model):
            return await self._measured_as(offered, told)
        try:
            return await self._measured_as(offered, *CHATS)
        except BackendError as error:
            if error.retryable:
                raise
            cannot_chat = error
        # Older servers refuse to count tokens in a stream.
        self._with_usage = False
        with suppress(BackendError):
            return await self._measured_as(offered, *CHATS)
        with suppress(BackendError):
            return await self._measured_as(offered, "embed")
        raise cannot_chat

    async def _measured_as(self, offered: Capability, *skills: str) -> tuple[Capability, ...]:
        self._skills = skills
        return await measure_each(self, [replace(offered, skill=skill, description=DESCRIPTIONS[skill]) for skill in skills])


def _without_stream(name: str) -> str:
    """The skill that a model's name speaks of; empty for one that may chat."""
    return next((skill for skill in WITHOUT_STREAM if skill in name.lower()), "")


async def _flush(stops: StopFilter, pieces: trio.MemorySendChannel[str | Piece]) -> None:
    rest = stops.flush()
    if rest:
        await send(pieces, rest)


def _context_tokens(details: dict[str, Any]) -> int:
    """vLLM, OpenRouter and llama-server tell it, each by its own word."""
    meta = details.get("meta")
    places = ((details, "max_model_len"), (details, "context_length"), (meta, "n_ctx"), (meta, "n_ctx_train"))
    for holder, name in places:
        value = holder.get(name) if isinstance(holder, dict) else None
        if type(value) is int and value > 0:
            return min(value, CONTEXT_TOKENS_MAX)
    return CONTEXT_TOKENS


def open_openai_http(argument: str, surroundings: Surroundings) -> OpenAIHttpBackend:
    """The entry point `openai_http`."""
    return OpenAIHttpBackend(argument, surroundings)
