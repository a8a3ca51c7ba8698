"""The backend `openai_http`: a model behind any OpenAI-compatible endpoint (Ollama, llama-server, vLLM, LM Studio, a cloud).

Reference: `http://127.0.0.1:11434/v1#llama3`. Without a path, `/v1` is meant; without `#MODEL`, the first model that the server
lists and whose name does not speak of vectors. One whose name does, or that cannot chat, offers `embed`, or `rerank`. A key comes
from the URL (`https://:KEY@host/v1`) or else from the environment variable SWARM_OPENAI_KEY; it is sent to this server and appears
in no message and no log.
"""

import json
import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import trio

from node.backends import DESCRIPTIONS, BackendError, Generated, GenerationRequest, Piece, Surroundings
from node.backends.openai_endpoint import Endpoint, Response
from node.backends.openai_stream import Event, EventReader
from node.backends.openai_vectors import embed, rerank
from node.backends.self_test import measure_each
from node.backends.stops import StopFilter
from node.backends.summaries import summary_turns
from node.backends.words import send
from protocol.limits import CONTEXT_TOKENS_MAX, MODEL_BYTES_MAX
from protocol.parts import Capability, Demands, Sampling, Turn

SLOTS = 4  # Servers queue by themselves; this keeps one node from filling that queue.
TRIAL_SCHEMA = '{"type":"object","properties":{"wet":{"type":"boolean"}},"required":["wet"],"additionalProperties":false}'
TRIAL_TOKENS = 32
TRIAL_PIECES_MAX = 2 * TRIAL_TOKENS + 2  # All of them: nobody reads before the end.
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
            task_status.started(await self._with_features(measured))
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
        async with self._slots, self._endpoint.open("POST", "/chat/completions", self._body(request)) as response:
            return await self._relay(request, response, pieces)

    async def _relay(
        self, request: GenerationRequest, response: Response, pieces: trio.MemorySendChannel[str | Piece]
    ) -> Generated:
        """Pass the stream on. One that ends without saying that the answer is complete is a failure."""
        reader, stops = EventReader(), StopFilter(request.stops)
        finish: str | None = None
        tokens_in, tokens_out, events, done = 0, 0, 0, False
        while not done and (chunk := await response.receive()):
            for event in self._events(reader, chunk):
                # Servers may ignore max_tokens; each event with text holds at least one.
                events += bool(event.text)
                if events > request.tokens_max:
                    await _flush(stops, pieces)
                    return Generated("length", tokens_in, request.tokens_max)
                text = stops.push(event.text)
                if text:
                    await send(pieces, text)
                if stops.stopped:
                    return Generated("stop", tokens_in, events)
                finish = event.finish or finish
                tokens_in, tokens_out = event.tokens_in or tokens_in, event.tokens_out or tokens_out
                done = done or event.done
        if finish is None and not done:
            raise BackendError(f"{self.url}: its stream ended in the middle of an answer.")
        await _flush(stops, pieces)
        return Generated(finish or "stop", tokens_in, min(tokens_out or events, request.tokens_max))

    def _events(self, reader: EventReader, chunk: bytes) -> list[Event]:
        try:
            return reader.feed(chunk)
        except BackendError as error:
            raise BackendError(f"{self.url}: {self._endpoint.clean(str(error))}.") from error

    def _body(self, request: GenerationRequest) -> dict[str, Any]:
        turns = [[turn.role, turn.text] for turn in request.turns]
        if request.skill == "summarize":
            turns = summary_turns(request.turns[-1].text)
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": role, "content": text} for role, text in turns],
            "max_tokens": request.tokens_max,
            "temperature": request.sampling.temperature,
            "top_p": request.sampling.top_p,
            "stream": True,
        }
        if self._with_usage:
            body["stream_options"] = {"include_usage": True}
        if request.sampling.seed:
            body["seed"] = request.sampling.seed
        # What is as usual is not mentioned: servers differ in what they know, and strict ones refuse the rest.
        usual = Sampling()
        for name in ("top_k", "min_p", "repeat_penalty", "presence_penalty", "frequency_penalty"):
            if (wanted := getattr(request.sampling, name)) != getattr(usual, name):
                body[name] = wanted
        if request.demands.schema:
            form = {"name": "answer", "schema": _parsed(request.demands.schema), "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        if request.stops:
            body["stop"] = list(request.stops)
        return body

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

    async def _with_features(self, offered: tuple[Capability, ...]) -> tuple[Capability, ...]:
        """Many servers know `response_format`, and many pass over it in silence: it is tried."""
        if self._skills != CHATS:
            return offered
        turns = (Turn("user", "Is water wet? Answer in JSON."),)
        asked = GenerationRequest("chat", self.model, turns, TRIAL_TOKENS, Sampling(seed=1), demands=Demands(schema=TRIAL_SCHEMA))
        sending, receiving = trio.open_memory_channel[str | Piece](TRIAL_PIECES_MAX)
        try:
            async with sending, receiving:
                await self.generate(asked, sending)
                said = json.loads("".join(map(str, _waiting(receiving))))
        except (BackendError, ValueError) as error:
            _log.info("%s: %s keeps to no schema: %s", self.url, self.model, error)
            return offered
        if not isinstance(said, dict) or type(said.get("wet")) is not bool:
            return offered
        return tuple(replace(each, features=("schema",)) for each in offered)


def _without_stream(name: str) -> str:
    """The skill that a model's name speaks of; empty for one that may chat."""
    return next((skill for skill in WITHOUT_STREAM if skill in name.lower()), "")


def _waiting(receiving: trio.MemoryReceiveChannel[str | Piece]) -> Iterator[str | Piece]:
    with suppress(trio.WouldBlock, trio.EndOfChannel):
        while True:
            yield receiving.receive_nowait()


def _parsed(schema: str) -> object:
    try:
        return json.loads(schema)
    except (ValueError, RecursionError) as error:
        raise BackendError(f"the schema cannot be read: {error}.", retryable=False) from None


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
