"""Names what exists when a task asked for what does not."""

from typing import Any

from node.cli.client import ControlClient
from node.exits import ExitCode, Failure

_SKILLS_MAX = 12  # A hint is a line or two; the whole list is in `swarm skills`.
_MODELS_MAX = 6


def with_offers(failure: Failure, client: ControlClient) -> Failure:
    """The failure, with the skills and models that there are as its hint if nobody could do the task."""
    if failure.exit is not ExitCode.NO_CAPABLE_PEER or failure.code == "unknown_peer":
        return failure
    try:
        offered = _offered(client.get("/skills"))
    except Failure:
        return failure  # The node has gone meanwhile; what it said before is still right.
    if not offered:
        hint = "Nobody offers anything yet. Add a model with: swarm models add FILE.gguf"
    else:
        listed = "; ".join(
            f"{skill} ({_some(models, _MODELS_MAX)})" for skill, models in list(offered.items())[:_SKILLS_MAX]
        )
        more = f"; and {len(offered) - _SKILLS_MAX} more" if len(offered) > _SKILLS_MAX else ""
        hint = f"There are: {listed}{more}. See: swarm skills"
    return Failure(failure.code, failure.message, hint=hint, exit=failure.exit)


def _offered(answer: Any) -> dict[str, list[str]]:
    """Models by skill, both in alphabetical order."""
    found: dict[str, set[str]] = {}
    for offer in _dicts(answer.get("skills") if isinstance(answer, dict) else None):
        found.setdefault(str(offer.get("skill", "")), set()).add(str(offer.get("model", "")))
    return {skill: sorted(found[skill]) for skill in sorted(found)}


def _some(names: list[str], most: int) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _dicts(found: Any) -> list[dict[str, Any]]:
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []
