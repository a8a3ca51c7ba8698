"""Words what the member says of choices and ends as views, in one place for the API, the journal and `--why`."""

from node.views import AnswerView, AttemptView, CallView, CandidateView, ExcludedView, RouteView
from protocol.errors import ErrorCode
from protocol.identity import node_text
from swarm.values import Outcome, Routing, Task


def route_view(skill: str, routing: Routing) -> RouteView:
    """Who would answer, or was chosen."""
    candidates = [
        CandidateView(
            node=node_text(found.node),
            name=found.name,
            model=found.model,
            cost_s=round(found.cost_s, 4),
            drawn=found.node in routing.drawn,
            chosen=found.node == routing.chosen,
            parts=list(found.parts),
        )
        for found in routing.candidates
    ]
    excluded = [ExcludedView(node_text(found.node), found.name, found.reason) for found in routing.excluded]
    return RouteView(skill, candidates, excluded)


def answer_view(task: Task, outcome: Outcome, routes: list[RouteView], gap_s: float | None) -> AnswerView:
    """How a task ended. `gap_s` is the longest silence in the middle of it."""
    usage = outcome.usage
    return AnswerView(
        task=task.id.hex(),
        skill=task.skill,
        code=outcome.code.name if outcome.code else "",
        reason=outcome.reason,
        node=node_text(outcome.worker) if outcome.worker else "",
        name=outcome.worker_name,
        model=outcome.model,
        finish=usage.finish if usage else "",
        tokens_in=usage.tokens_in if usage else 0,
        tokens_out=usage.tokens_out if usage else 0,
        first_piece_s=outcome.first_piece_s,
        seconds=outcome.seconds,
        attempts=[
            AttemptView(
                node_text(end.worker), end.name, end.model, end.code.name if end.code else "", end.reason,
                round(end.seconds, 4), end.why, round(end.begun_s, 4), _rounded(end.accepted_s), _rounded(end.first_piece_s),
                end.pieces,
            )
            for end in outcome.attempts
        ],
        routes=routes,
        gap_s=_rounded(gap_s),
        worker_first_token_s=usage.first_token_s if usage else None,
        worker_s=usage.total_s if usage else None,
        calls=[CallView(call.id, call.name, call.arguments) for call in usage.calls] if usage else [],
    )  # fmt: skip


def unfinished_view(task: Task, routes: list[RouteView], code: ErrorCode | None = None, reason: str = "") -> AnswerView:
    """As far as a task has come, or had when it was cut off."""
    return AnswerView(
        task.id.hex(), task.skill, code.name if code else "", reason, "", "", "", "", 0, 0, None, 0.0, [], routes
    )


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)
