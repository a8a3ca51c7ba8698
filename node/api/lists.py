"""What several tasks of one request have brought, as one list."""

from collections.abc import Sequence

import msgspec
from starlette.responses import Response

from node.api.chat_answers import task_headers
from node.api.gathering import Gathered
from swarm.values import Task


def listed(task: Task, gathered: Sequence[Gathered], name: str, **parts: object) -> Response:
    """`task` is the first of them, `name` what was asked for, `parts` what is in the list."""
    first, count = gathered[0].answer, sum(each.answer.tokens_in for each in gathered)
    usage = {"prompt_tokens": count, "total_tokens": count}
    body = {"object": "list", **parts, "model": first.model or name, "usage": usage, "swarm": first}
    response = Response(msgspec.json.encode(body), media_type="application/json")
    response.raw_headers.extend(task_headers(task.id, first.node, first.name, first.model))
    return response
