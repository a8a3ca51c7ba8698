"""The routing language of `model`: `auto`, a model's name, `skill:NAME`, `peer:NAME-OR-ID`, `peer:NAME/MODEL`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from node.api.errors import ApiError
from node.desk import Desk
from node.views import SkillView
from protocol import limits as lim
from protocol.identity import NodeId, node_from_text

AUTO = "auto"
CHAT = "chat"
NUMBERS = ("embed", "rerank")  # Skills whose answers are no texts to read.
SKILL_PREFIX = "skill:"
PEER_PREFIX = "peer:"

SETTLED_S = 5.0  # A node this young may not have heard of the workers yet; it asks instead of refusing.
_LISTED_MAX = 16  # Names in one message; more than a screen helps nobody.
_QUOTED_CHARS_MAX = 80


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a task needs. `model` empty: any. `worker` None: any."""

    skill: str
    model: str
    worker: NodeId | None


def resolve(desk: Desk, name: str, *, skill: str = "", peer: str = "") -> Wanted:
    """What a name asks for. `skill` and `peer`, where given, narrow it. Raises ApiError 404 that says what exists.

    Without a skill it is `chat`; a model or peer that is known not to chat is used for what it does offer.
    """
    skill, peer, model = _parse(name, skill, peer)
    worker = worker_of(desk, peer) if peer else None
    if not (skill or model or worker):
        return Wanted(CHAT, "", None)

    offers = [offer for offer in desk.skills() if worker is None or offer.node == peer or offer.name == peer]
    if model:
        with_model = [offer for offer in offers if offer.model == model]
        if not with_model and (_too_long(model, lim.MODEL_BYTES_MAX) or _settled(desk)):
            raise _unknown_model(model, peer, offers)
        offers = with_model
    skills = sorted({offer.skill for offer in offers})
    speaking, is_given = [each for each in skills if each not in NUMBERS], bool(skill)
    if not skill:
        skill = CHAT if CHAT in skills or not speaking else speaking[0]
    if skill not in skills and (skills or is_given) and (_too_long(skill, lim.SKILL_BYTES_MAX) or _settled(desk)):
        raise _unknown_skill(skill, model or peer, skills)
    return Wanted(skill, model, worker)


def known_names(offers: Sequence[SkillView]) -> list[str]:
    """Every name that can be asked for now: `auto`, skills, models, each group in order."""
    skills = sorted({SKILL_PREFIX + offer.skill for offer in offers})
    models = sorted({offer.model for offer in offers})
    return [AUTO, *skills, *models]


def _parse(name: str, skill: str, peer: str) -> tuple[str, str, str]:
    """The skill, peer and model that a name and its narrowing ask for together."""
    if name.startswith(SKILL_PREFIX):
        named = name.removeprefix(SKILL_PREFIX)
        if skill not in ("", named):
            raise _contradiction(f"skill {_quoted(skill)}", name)
        return named or CHAT, peer, ""
    if name.startswith(PEER_PREFIX):
        named, _, model = name.removeprefix(PEER_PREFIX).partition("/")
        if peer not in ("", named):
            raise _contradiction(f"peer {_quoted(peer)}", name)
        if not named:
            raise ApiError(404, "unknown_peer", "Write peer:NAME or peer:NAME/MODEL.", param="model")
        return skill, named, model
    return skill, peer, "" if name == AUTO else name


def worker_of(desk: Desk, peer: str) -> NodeId:
    """The node behind a name or a peer id. Raises ApiError."""
    peers = desk.peers()
    matching = sorted({view.node for view in peers if peer in (view.node, view.name)})
    if len(matching) > 1:
        raise ApiError(
            404,
            "unknown_peer",
            f"{len(matching)} nodes are named {_quoted(peer)}. Use an id instead: {_list(matching)}.",
            param="model",
        )
    if matching:
        return node_from_text(matching[0])
    if not _settled(desk):
        # A name cannot be asked for before its node is known, but an id can.
        try:
            return node_from_text(peer)
        except ValueError:
            pass
    known = _list(sorted(view.name for view in peers))
    raise ApiError(404, "unknown_peer", f"No node {_quoted(peer)} is known. Known: {known}.", param="model")


def _settled(desk: Desk) -> bool:
    return desk.state == "ready" and desk.uptime_s > SETTLED_S


def _too_long(name: str, bytes_max: int) -> bool:
    return len(name.encode()) > bytes_max


def _unknown_model(model: str, peer: str, offers: Sequence[SkillView]) -> ApiError:
    if peer:
        models = _list(sorted({offer.model for offer in offers}))
        message = f"Node {_quoted(peer)} does not offer the model {_quoted(model)}. It offers: {models}."
    else:
        message = f"No known node offers the model {_quoted(model)}. Known: {_list(known_names(offers))}."
    return ApiError(404, "unknown_model", message, param="model")


def _unknown_skill(skill: str, source: str, skills: Sequence[str]) -> ApiError:
    who = f"{_quoted(source)} does not offer" if source else "No known node offers"
    return ApiError(404, "unknown_skill", f"{who} the skill {_quoted(skill)}. Offered: {_list(skills)}.", param="model")


def _contradiction(given: str, name: str) -> ApiError:
    return ApiError(400, "bad_request", f"The {given} contradicts the model {_quoted(name)}.", param="model")


def _list(names: Iterable[str]) -> str:
    every = list(names)
    if not every:
        return "nothing yet"
    more = f" and {len(every) - _LISTED_MAX} more" if len(every) > _LISTED_MAX else ""
    return ", ".join(every[:_LISTED_MAX]) + more


def _quoted(name: str) -> str:
    short = name if len(name) <= _QUOTED_CHARS_MAX else name[:_QUOTED_CHARS_MAX] + "…"
    return f'"{short}"'
