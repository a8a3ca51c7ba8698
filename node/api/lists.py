"""Requests of which each part is a task of its own, so that a swarm shares the work, and what these have brought as one list."""

from collections.abc import Sequence

import msgspec
from starlette.responses import Response

from node.api.chat_answers import task_headers
from node.api.fields import SwarmWishes
from node.api.gathering import Gathered
from node.api.names import AUTO, resolve
from node.api.tasks import Service, Wishes, make_task
from protocol.parts import Turn
from swarm.values import Task


class ListFields(msgspec.Struct, kw_only=True):
    """What such requests have in common. Fields that are not known are ignored, as all servers do."""

    model: str | None = None
    swarm: SwarmWishes | None = None

    @property
    def within_s(self) -> float | None:
        """How long the whole request may take, if it says so."""
        return self.swarm.deadline_s if self.swarm else None


def tasks_of(service: Service, fields: ListFields, skill: str, parts: Sequence[Sequence[str]]) -> list[Task]:
    """One for each part, which is what its user says."""
    swarm = fields.swarm or SwarmWishes()
    wanted = resolve(service.desk, fields.model or AUTO, skill=skill)
    wishes = Wishes(tokens_max=1, deadline_s=swarm.deadline_s, privacy=swarm.privacy)
    return [make_task(service, wanted, [Turn("user", text) for text in part], wishes) for part in parts]


def listed(task: Task, gathered: Sequence[Gathered], name: str, **parts: object) -> Response:
    """`task` is the first of them, `name` what was asked for, `parts` what is in the list."""
    first, count = gathered[0].answer, sum(each.answer.tokens_in for each in gathered)
    usage = {"prompt_tokens": count, "total_tokens": count}
    body = {"object": "list", **parts, "model": first.model or name, "usage": usage, "swarm": first}
    response = Response(msgspec.json.encode(body), media_type="application/json")
    response.raw_headers.extend(task_headers(task.id, first.node, first.name, first.model))
    return response
