"""Tasks that are over, and those that run without anybody waiting: the routes under /swarm/v1/tasks."""

import re
from typing import Annotated

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from node.api.bodies import json_response, read_json
from node.api.control import AskBody, asked_task
from node.api.errors import ApiError, bad_request
from node.api.tasks import DEADLINE_S_MAX, Service
from node.api.waiting import Awaited
from node.detached import Refused
from node.store.journal import JournalError
from node.views import TraceView

LISTED = 50  # Unless the request says otherwise.
LISTED_MAX = 10_000  # About 5 MB.
WAIT_S_MAX = 25.0  # Clients and proxies give a silent answer 30 s; whoever wants more asks again.
BATCH_CHARACTERS_MAX = 256

Label = Annotated[str, msgspec.Meta(max_length=BATCH_CHARACTERS_MAX)]
_ID = re.compile(r"[0-9a-f]{1,32}")


class DetachedBody(AskBody, forbid_unknown_fields=True):
    """As for asking; and, for an item of a batch, of which batch and which. An item is asked once per batch."""

    batch: Label = ""
    item: Label = ""


_DETACHED = msgspec.json.Decoder(DetachedBody)


async def list_tasks(service: Service, request: Request) -> Response:
    count = _number(request, "count", LISTED, LISTED_MAX)
    try:
        tasks = await service.recorder.history(int(count), request.query_params.get("batch", "")[:BATCH_CHARACTERS_MAX])
    except JournalError as error:
        raise unreadable(error) from None
    return json_response({"schema": "swarm.history/1", "tasks": tasks})


async def get_task(service: Service, request: Request) -> ASGIApp:
    prefix = request.path_params["id"].lower()
    wait_s = _number(request, "wait_s", 0, WAIT_S_MAX)
    if not _ID.fullmatch(prefix):
        raise bad_request("A task's id is written in hexadecimal digits.", "id")

    async def find() -> Response:
        return json_response(await _found(service, prefix, wait_s))

    return Awaited(find)


async def detach(service: Service, request: Request) -> ASGIApp:
    body = await read_json(request, _DETACHED)
    if body.deadline_s is None:
        body.deadline_s = DEADLINE_S_MAX  # Nobody looks at the clock.
    task = asked_task(service, body)

    async def begin() -> Response:
        try:
            identity, state = await service.detached.begin(task, body.batch, body.item)
        except Refused as refusal:
            raise ApiError(503, "not_detached", f"The task was not taken: {refusal}.") from None
        return json_response({"schema": "swarm.detached/1", "task": identity, "state": state}, 202)

    return Awaited(begin)


async def _found(service: Service, prefix: str, wait_s: float) -> TraceView:
    try:
        found = await service.recorder.trace(prefix, wait_s)
    except JournalError as error:
        raise unreadable(error) from None
    if not found:
        raise ApiError(404, "unknown_task", f"No task of this node has an id that begins with {prefix}.", param="id")
    if len(found) > 1:
        raise ApiError(409, "ambiguous_task", f"Several tasks have ids that begin with {prefix}.", param="id")
    return found[0]


def _number(request: Request, name: str, default: float, most: float) -> float:
    text = request.query_params.get(name, "")
    try:
        number = float(text) if text else default
    except ValueError:
        number = -1.0
    if not 0 <= number <= most:
        raise bad_request(f"{name}: a number from 0 to {most:g}.", name)
    return number


def unreadable(error: JournalError) -> ApiError:
    """What a client hears whose answer is in a journal that cannot be read now."""
    return ApiError(503, "journal_unreadable", f"The journal cannot be read: {error}")
