"""The OpenAI side of the API: models, and conversations, in one piece or streamed."""

import time
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from node.api import chat_requests, response_requests
from node.api.bodies import json_response, read_json
from node.api.chat_answers import ChatChunks, as_wanted, completion
from node.api.chat_requests import ChatRequest
from node.api.errors import ApiError
from node.api.fields import unsupported
from node.api.gathering import gather, gather_alike
from node.api.names import AUTO, PEER_PREFIX, Wanted, known_names, resolve
from node.api.response_answers import ResponseEvents, response
from node.api.response_requests import ResponseRequest
from node.api.streaming import EventStream
from node.api.tasks import Service, make_task, times
from node.api.waiting import Awaited

_OWNER = "swarm"


async def chat_completions(service: Service, request: Request) -> ASGIApp:
    asked = await read_json(request, chat_requests.DECODER)
    wishes = chat_requests.wishes_of(asked)
    turns = chat_requests.turns_of(asked)
    name = asked.model or AUTO
    task = make_task(service, _wanted(service, asked), turns, wishes)
    created = int(time.time())
    if asked.stream:
        if (asked.n or 1) > 1:
            raise unsupported("stream", "several answers come in one piece")
        chunks = ChatChunks(task.id, name, created, asked.stream_options)
        chunks.parallel_tool_calls = asked.parallel_tool_calls
        return EventStream(service.desk, task, chunks)
    tasks = times(service, task, asked.n or 1)

    async def whole() -> Response:
        gathered = await gather_alike(service.desk, tasks, asked.within_s)
        told = [replace(each, answer=as_wanted(each.answer, asked.parallel_tool_calls)) for each in gathered]
        return completion(task.id, name, created, told)

    return Awaited(whole)


async def responses(service: Service, request: Request) -> ASGIApp:
    asked = await read_json(request, response_requests.DECODER)
    wishes = chat_requests.wishes_of(response_requests.as_chat(asked))
    turns = response_requests.turns_of(asked)
    name = asked.model or AUTO
    try:
        task = make_task(service, _wanted(service, asked), turns, wishes)
    except ApiError as error:
        error.param = "input" if error.param == "turns" else error.param
        raise
    created = int(time.time())
    if asked.stream:
        return EventStream(service.desk, task, ResponseEvents(asked, task, name, created))

    async def whole() -> Response:
        return response(asked, task, created, await gather(service.desk, task))

    return Awaited(whole)


def _wanted(service: Service, asked: ChatRequest | ResponseRequest) -> Wanted:
    skill = (asked.swarm.skill if asked.swarm else None) or ""
    return resolve(service.desk, asked.model or AUTO, skill=skill)


async def list_models(service: Service, request: Request) -> Response:
    models = [_model(name, service) for name in known_names(service.desk.skills())]
    return json_response({"object": "list", "data": models})


async def get_model(service: Service, request: Request) -> Response:
    name = request.path_params["id"]
    if name not in known_names(service.desk.skills()):
        if not name.startswith(PEER_PREFIX):
            raise ApiError(404, "unknown_model", "No such model. GET /v1/models lists what exists.", param="model")
        resolve(service.desk, name)
    return json_response(_model(name, service))


def _model(name: str, service: Service) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": service.started, "owned_by": _OWNER}
