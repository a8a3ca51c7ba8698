"""What the API says instead of an answer: a status, a code and a sentence, in the shape that OpenAI's clients read."""

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.responses import Response

from node.views import AnswerView
from protocol import errors as codes
from protocol.errors import ErrorCode

API_CODES: Mapping[str, str] = {
    "bad_request": "The request cannot be understood; the message says where.",
    "unsupported_parameter": "The request asks for what would change the answer and no model here can do.",
    "unknown_model": "No known node offers this model. (`model_not_found` on /v1.)",
    "unknown_skill": "No known node offers this skill. (`model_not_found` on /v1.)",
    "unknown_peer": "No node of this name or id is known. (`model_not_found` on /v1.)",
    "unknown_task": "The journal has no task whose id begins so.",
    "ambiguous_task": "Several tasks have ids that begin so; more digits are needed.",
    "not_detached": "The task cannot be kept for later; the message says why. It was not asked.",
    "journal_unreadable": "The journal of tasks cannot be read now; `swarm doctor` tells more.",
    "join_failed": "The address does not lead to a node of this swarm.",
    "ping_failed": "The node does not answer; the message says why.",
    "invalid_api_key": "The key is missing or wrong.",
    "host_not_allowed": "The Host header is none of this node's names.",
    "origin_not_allowed": "A web page that is not on the list asks.",
    "too_large": "The body is larger than the API reads.",
    "not_json": "A POST needs `content-type: application/json`.",
    "too_slow": "The body did not arrive in time.",
    "no_such_route": "There is nothing under this path.",
    "method_not_allowed": "The path exists, but not for this method.",
    "http_version": "Only HTTP/1.1 is spoken here.",
    "bug": "A bug in this node; its log tells more under the same id.",
}
"""Codes of the API's own. All others are the names in `protocol.errors`."""

_STATUS: Mapping[int, int] = {
    codes.BAD_REQUEST.number: 400,
    codes.TOO_LONG.number: 400,
    codes.NOT_ALLOWED.number: 403,
    codes.TOO_MANY_TASKS.number: 429,
    codes.BUSY.number: 503,
    codes.DRAINING.number: 503,
    codes.NO_SUCH_CAPABILITY.number: 503,
    codes.NO_CAPABLE_PEER.number: 503,
    codes.SHUTTING_DOWN.number: 503,
    codes.CANCELLED.number: 503,
    codes.DEADLINE_EXCEEDED.number: 504,
}
_STATUS_OTHERWISE = 502  # Somebody else failed: unreachable, stalled, exhausted, broken, or a code of a newer version.

# What the official clients obey before they try again by themselves. Without `x-should-retry: false` they would ask the
# swarm three times for what has no time left.
_RETRY: Mapping[int, tuple[tuple[str, str], ...]] = {
    codes.NO_CAPABLE_PEER.number: (("retry-after", "2"),),
    codes.TOO_MANY_TASKS.number: (("retry-after", "1"),),
    codes.DEADLINE_EXCEEDED.number: (("x-should-retry", "false"),),
    codes.SHUTTING_DOWN.number: (("x-should-retry", "false"),),
}

# OpenAI's own words, where they have one that their clients and users know.
_OPENAI_CODES: Mapping[str, str] = {
    "too_long": "context_length_exceeded",
    "unknown_model": "model_not_found",
    "unknown_skill": "model_not_found",
    "unknown_peer": "model_not_found",
}


_HINTS: Mapping[str, str] = {
    codes.DEADLINE_EXCEEDED.name: " `swarm.deadline_s` in the request gives it more, as does ask.deadline in config.toml.",
}


class ApiError(Exception):
    """The request ends here.

    `param` names the field that is wrong; `answer` tells how far the task came, `text` is what of the answer was there by then.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        headers: tuple[tuple[str, str], ...] = (),
        answer: AnswerView | None = None,
        text: str = "",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.headers = headers
        self.answer = answer
        self.text = text


def bad_request(message: str, param: str | None = None) -> ApiError:
    """Something in the request is wrong, and where."""
    return ApiError(400, "bad_request", message, param=param)


def failed_task(code: ErrorCode, reason: str, answer: AnswerView | None, text: str = "") -> ApiError:
    """A task that ended without a complete answer, as HTTP tells it."""
    return ApiError(
        _STATUS.get(code.number, _STATUS_OTHERWISE),
        code.name,
        reason or code.meaning,
        headers=_RETRY.get(code.number, ()),
        answer=answer,
        text=text,
    )


def error_body(error: ApiError, *, openai: bool) -> bytes:
    """The JSON of an error. `swarm` holds the AnswerView of a task that failed, the error's `text` how its answer began."""
    code = _OPENAI_CODES.get(error.code, error.code) if openai else error.code
    # OpenAI calls the conversation `messages`; the control API calls it `turns`.
    param = "messages" if openai and error.param == "turns" else error.param
    hint = _HINTS.get(error.code, "") if openai else ""  # The command line has its own.
    told = {"message": error.message + hint, "type": _type(error.status), "param": param, "code": code}
    if error.text:
        told["text"] = error.text
    body: dict[str, Any] = {"error": told}
    if error.answer is not None:
        body["swarm"] = error.answer
    return msgspec.json.encode(body)


def error_response(error: ApiError, *, openai: bool) -> Response:
    """The whole response that tells an error."""
    headers = dict(error.headers)
    if error.answer is not None:
        headers["x-swarm-task"] = error.answer.task
    return Response(error_body(error, openai=openai), error.status, headers, media_type="application/json")


def speaks_openai(path: str) -> bool:
    """Whether this path belongs to the OpenAI side, where OpenAI's names for codes are used."""
    return path.startswith("/v1/")


def _type(status: int) -> str:
    if status == 401:
        return "authentication_error"
    if status == 403:
        return "permission_error"
    if status == 429:
        return "rate_limit_error"
    return "server_error" if status >= 500 else "invalid_request_error"
