"""The control side of the API, under /swarm/v1/: what the command line shows and does."""

from collections.abc import Sequence
from typing import Any

import msgspec
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from node.api.bodies import json_response, read_json
from node.api.chat_answers import chosen, task_headers, token_text
from node.api.errors import ApiError, bad_request, error_body
from node.api.fields import (
    Alternatives,
    DeadlineS,
    PrivacyName,
    SamplingFields,
    TokenCount,
    demands_of,
    json_text,
    sampling_of,
)
from node.api.names import resolve, worker_of
from node.api.streaming import EventStream, Headers, named_event
from node.api.tasks import Service, Wishes, make_task
from node.api.waiting import Awaited
from node.desk import AskEnded, AskItem, AskRouted, AskText
from node.meeting import JoinError, PingError
from node.metrics import exposition
from node.models import UnknownModel
from protocol.parts import Logprob, TaskId, Turn
from swarm.values import Task

_ROLES = ("system", "user", "assistant")
_encode = msgspec.json.Encoder().encode


class AskTurn(msgspec.Struct, forbid_unknown_fields=True):
    role: str
    text: str


class AskBody(SamplingFields, kw_only=True, forbid_unknown_fields=True):
    """A task as the command line words it: `turns`, or `text` for a single one of the user."""

    text: str | None = None
    turns: list[AskTurn] | None = None
    skill: str | None = None
    model: str | None = None
    peer: str | None = None
    tokens_max: TokenCount | None = None
    stops: list[str] | None = None
    deadline_s: DeadlineS | None = None
    privacy: PrivacyName | None = None
    schema: dict[str, Any] | None = None
    grammar: str | None = None
    options: list[str] | None = None
    forced: str | None = None
    logprobs: Alternatives | None = None


class ModelBody(msgspec.Struct, forbid_unknown_fields=True):
    ref: str


class PingBody(msgspec.Struct, forbid_unknown_fields=True):
    peer: str


class JoinBody(msgspec.Struct, forbid_unknown_fields=True):
    address: str


_ASK = msgspec.json.Decoder(AskBody)
_MODEL = msgspec.json.Decoder(ModelBody)
_PING = msgspec.json.Decoder(PingBody)
_JOIN = msgspec.json.Decoder(JoinBody)


class AskEvents:
    """The dialect of /swarm/v1/ask: `route` for each choice of a worker, `text`, and `end`, which tells failures too.

    An `error` event comes only where no `end` can: a bug, or a node that stops.
    """

    def __init__(self, task: TaskId) -> None:
        self._task = task

    def opens(self, item: AskItem) -> bool:
        # A routing, too: whoever asked sees it at once, and a failure after it comes as an `end` with all attempts.
        return not isinstance(item, AskEnded)

    def headers(self, items: Sequence[AskItem]) -> Headers:
        routed = [chosen(item, "") for item in items if isinstance(item, AskRouted)]
        return task_headers(self._task, *(routed[-1] if routed else ("", "", "")))

    def encode(self, items: Sequence[AskItem]) -> bytes:
        return b"".join(self._event(item) for item in items)

    def broken(self, error: ApiError) -> bytes:
        return named_event("error", error_body(error, openai=False))

    def _event(self, item: AskItem) -> bytes:
        if isinstance(item, AskText):
            logprobs = b',"logprobs":' + _encode(told(item.logprobs)) if item.logprobs else b""
            return named_event("text", b'{"text":' + _encode(item.text) + logprobs + b"}")
        if isinstance(item, AskRouted):
            return named_event("route", _encode(item.route))
        return named_event("end", _encode(item.answer))


async def get_status(service: Service, request: Request) -> Response:
    return json_response(service.desk.status())


async def list_peers(service: Service, request: Request) -> Response:
    return json_response({"schema": "swarm.peers/1", "peers": service.desk.peers()})


async def list_skills(service: Service, request: Request) -> Response:
    return json_response({"schema": "swarm.skills/1", "skills": service.desk.skills()})


async def list_models(service: Service, request: Request) -> Response:
    return json_response({"schema": "swarm.models/1", "models": service.desk.models()})


async def add_model(service: Service, request: Request) -> ASGIApp:
    body = await read_json(request, _MODEL)
    if not body.ref.strip():
        raise bad_request("ref: empty.", "ref")

    async def load() -> Response:
        return json_response(await service.desk.add_model(body.ref.strip()))

    return Awaited(load)


async def remove_model(service: Service, request: Request) -> Response:
    body = await read_json(request, _MODEL)
    try:
        return json_response(await service.desk.remove_model(body.ref.strip()))
    except UnknownModel as error:
        raise ApiError(404, "unknown_model", f"{error}.", param="ref") from None


async def join(service: Service, request: Request) -> ASGIApp:
    body = await read_json(request, _JOIN)

    async def dial() -> Response:
        try:
            return json_response(await service.desk.join(body.address.strip()))
        except JoinError as failure:
            raise ApiError(502, "join_failed", str(failure), param="address") from None

    return Awaited(dial)


async def ping(service: Service, request: Request) -> ASGIApp:
    node = worker_of(service.desk, (await read_json(request, _PING)).peer)

    async def wait() -> Response:
        try:
            return json_response(await service.desk.ping(node))
        except PingError as failure:
            raise ApiError(502, "ping_failed", str(failure), param="peer") from None

    return Awaited(wait)


async def ask(service: Service, request: Request) -> ASGIApp:
    task = asked_task(service, await read_json(request, _ASK))
    return EventStream(service.desk, task, AskEvents(task.id))


async def route(service: Service, request: Request) -> Response:
    return json_response(service.desk.route(asked_task(service, await read_json(request, _ASK))))


async def shutdown(service: Service, request: Request) -> Response:
    async def stop() -> None:
        service.desk.stop()

    # Only after the answer is out: the node may be gone a moment later.
    return Response(b'{"state":"stopping"}', 202, media_type="application/json", background=BackgroundTask(stop))


async def healthz(service: Service, request: Request) -> Response:
    return json_response({"alive": True})


async def readyz(service: Service, request: Request) -> Response:
    state = service.desk.state
    return json_response({"ready": state == "ready", "state": state}, 200 if state == "ready" else 503)


async def metrics(service: Service, request: Request) -> Response:
    text = exposition(service.desk.measures())
    return Response(text, media_type="text/plain; version=0.0.4")


def asked_task(service: Service, body: AskBody) -> Task:
    """The task that the command line has worded so. Raises ApiError."""
    wanted = resolve(service.desk, body.model or "", skill=body.skill or "", peer=body.peer or "")
    wishes = Wishes(
        tokens_max=body.tokens_max,
        **{**sampling_of(body), "seed": body.seed or None},  # As on the wire, 0 is the worker's choice.
        stops=body.stops or (),
        deadline_s=body.deadline_s,
        privacy=body.privacy,
        demands=demands_of(
            schema=json_text(body.schema),
            grammar=body.grammar or "",
            options=body.options or (),
            forced=body.forced or "",
            logprobs=0 if body.logprobs is None else 1 + body.logprobs,
        ),
    )
    return make_task(service, wanted, _turns(body), wishes)


def told(logprobs: Sequence[Logprob]) -> list[dict[str, Any]]:
    """As `swarm ask --json` shows them."""
    return [
        {
            "text": token_text(each.data),
            "logprob": each.logprob,
            "top": [[token_text(other.data), other.logprob] for other in each.top],
        }
        for each in logprobs
    ]


def _turns(body: AskBody) -> list[Turn]:
    if (body.text is None) == (body.turns is None):
        raise bad_request("Give either text or turns.", "turns")
    if body.text is not None:
        return [Turn("user", body.text)]
    turns = body.turns or []
    for number, turn in enumerate(turns):
        if turn.role not in _ROLES:
            raise bad_request(f"turns[{number}].role: not one of {', '.join(_ROLES)}.", f"turns[{number}].role")
    return [Turn(turn.role, turn.text) for turn in turns]
