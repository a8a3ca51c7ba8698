"""The table of routes, and the one ASGI app that both listeners serve."""

import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from node.api import completions, control, embeddings, openai, past, plans, rerank
from node.api.access import AccessRules, Guard
from node.api.edge import Edge
from node.api.errors import ApiError, error_response, speaks_openai
from node.api.tasks import DrawBytes, Service
from node.desk import Desk
from node.detached import Detached
from node.recording import Recorder

Handler = Callable[[Service, Request], Awaitable[ASGIApp]]


@dataclass(frozen=True, slots=True)
class ApiRoute:
    """One route. `purpose` is the sentence of the documentation."""

    method: str
    path: str
    purpose: str
    handler: Handler


ROUTES: tuple[ApiRoute, ...] = (
    ApiRoute("GET", "/v1/models", "names that can be asked for now: auto, skills, models", openai.list_models),
    ApiRoute("GET", "/v1/models/{id:path}", "one of these names", openai.get_model),
    ApiRoute("POST", "/v1/chat/completions", "an answer, in one piece or streamed", openai.chat_completions),
    ApiRoute("POST", "/v1/responses", "the same in OpenAI's newer words; nothing is kept", openai.responses),
    ApiRoute("POST", "/v1/completions", "how a text goes on; or how likely it is", completions.completions),
    ApiRoute("POST", "/v1/embeddings", "vectors of texts", embeddings.embeddings),
    ApiRoute("POST", "/v1/rerank", "which documents answer a question", rerank.rerank),
    ApiRoute("GET", "/swarm/v1/status", "this node and its swarm", control.get_status),
    ApiRoute("GET", "/swarm/v1/peers", "every known node", control.list_peers),
    ApiRoute("GET", "/swarm/v1/skills", "every capability that is known now", control.list_skills),
    ApiRoute("GET", "/swarm/v1/models", "this node's own models", control.list_models),
    ApiRoute("POST", "/swarm/v1/models", "load one more model", control.add_model),
    ApiRoute("POST", "/swarm/v1/models/remove", "let go of one of them", control.remove_model),
    ApiRoute("POST", "/swarm/v1/route", "who would answer, and why; sends nothing", control.route),
    ApiRoute("POST", "/swarm/v1/ask", "one task, as events: route, text, end", control.ask),
    ApiRoute("GET", "/swarm/v1/tasks", "what was asked before, the newest first", past.list_tasks),
    ApiRoute("POST", "/swarm/v1/tasks", "one task that nobody waits for; on the disk before the answer", past.detach),
    ApiRoute("GET", "/swarm/v1/tasks/{id}", "what became of one task; `wait_s` waits for its end", past.get_task),
    ApiRoute("POST", "/swarm/v1/plans", "a larger task in steps, as events: step, task, end", plans.plan),
    ApiRoute("POST", "/swarm/v1/join", "dial an address of a swarm", control.join),
    ApiRoute("POST", "/swarm/v1/ping", "how far away a node is, and by which way", control.ping),
    ApiRoute("POST", "/swarm/v1/shutdown", "stop this node cleanly", control.shutdown),
    ApiRoute("GET", "/healthz", "200 while the process lives; no key", control.healthz),
    ApiRoute("GET", "/readyz", "200 when the node can answer, 503 before; no key", control.readyz),
    ApiRoute("GET", "/metrics", "counters and times in Prometheus' text format; no key", control.metrics),
)


def make_app(
    desk: Desk,
    rules: AccessRules,
    recorder: Recorder,
    detached: Detached,
    *,
    deadline_s: float,
    draw: DrawBytes = secrets.token_bytes,
) -> ASGIApp:
    """The API of the node behind `desk`. `deadline_s` is for tasks that do not say; `draw` is where task ids come from."""
    service = Service(desk, deadline_s, draw, started=int(time.time()), recorder=recorder, detached=detached)
    app = Starlette(
        routes=[Route(r.path, partial(r.handler, service), methods=[r.method]) for r in ROUTES],
        middleware=[Middleware(Edge), Middleware(Guard, rules=rules)],
        exception_handlers={
            ApiError: _api_error,
            HTTPException: _http_error,
            ClientDisconnect: _client_left,
        },
    )
    # A redirect would repeat the Host header of the request.
    app.router.redirect_slashes = False
    return app


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error_response(error, openai=speaks_openai(request.url.path))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        said = ApiError(405, "method_not_allowed", f"Use {allowed} here.", headers=(("allow", allowed),))
    else:
        said = ApiError(
            error.status_code, "no_such_route", f"There is nothing at {path[:80]}; the README lists routes."
        )
    return error_response(said, openai=speaks_openai(path))


async def _client_left(request: Request, error: Exception) -> Response:
    return Response(status_code=499)  # Goes nowhere; nginx's word for it.
