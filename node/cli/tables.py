"""The tables that several commands draw: peers, models, and who would answer."""

from collections.abc import Sequence

import click

from node.cli.terminal import duration, plain, short_id, table
from node.views import CandidateView, ModelView, PeerView, RouteView

NONE = "—"


def peers_table(peers: Sequence[PeerView], *, ids: bool) -> str:
    """One line for each node, this one first, then by name."""
    header = ["PEER", "STATE", "PATH", "RTT", "MODELS", "SKILLS", "TOK/S", *(["NODE"] if ids else [])]
    rows = []
    for peer in sorted(peers, key=lambda peer: (peer.state != "self", peer.name, peer.node)):
        rows.append(
            [
                peer.name + ("*" if peer.state == "self" else ""),
                _state(peer),
                "self" if peer.state == "self" else peer.path or NONE,
                NONE if peer.rtt_ms is None else f"{peer.rtt_ms:.0f} ms",
                " ".join(peer.models) or NONE,
                " ".join(peer.skills) or NONE,
                NONE if peer.tokens_per_second is None else f"{peer.tokens_per_second:.0f}",
                *([short_id(peer.node)] if ids else []),
            ]
        )
    return table(header, rows, right=["RTT", "TOK/S"])


def _state(peer: PeerView) -> str:
    if peer.state in ("self", "connected"):
        load = f"busy {peer.busy}/{peer.slots}" if peer.busy else "idle"
        return load + (f" +{peer.queued}" if peer.queued else "")
    if peer.state == "known":
        return f"heard {duration(peer.heard_s)} ago"
    return peer.state


def models_table(models: Sequence[ModelView]) -> str:
    """One line for each model source of this node."""
    rows = [
        [
            model.model or NONE,
            _model_state(model),
            NONE if not model.memory_bytes else f"{model.memory_bytes / 2**20:,.0f} MB",
            " ".join(model.skills) or NONE,
            NONE if model.tokens_per_second is None else f"{model.tokens_per_second:.0f}",
            NONE if model.first_token_ms is None else f"{model.first_token_ms} ms",
            model.ref,
        ]
        for model in models
    ]
    return table(["MODEL", "STATE", "MEMORY", "SKILLS", "TOK/S", "FIRST", "FROM"], rows, right=["MEMORY", "TOK/S", "FIRST"])


def _model_state(model: ModelView) -> str:
    if model.state == "loading" and model.detail:
        return f"loading: {model.detail}"
    return "ready, pinned" if model.state == "ready" and model.pinned else model.state


def model_trouble(models: Sequence[ModelView]) -> list[str]:
    """A line for each model that failed, or cannot do all that it might."""
    return [
        f"{click.style('!', fg='yellow')} {plain(model.ref)}: {plain(model.detail)}"
        for model in models
        if model.state == "failed" or (model.state == "ready" and model.detail)
    ]


def route_text(route: RouteView) -> str:
    """Who would answer: candidates from best to worst with what their cost is made of, then who was left out and why."""
    count = len(route.candidates)
    lines = [f"skill {plain(route.skill)}, {count} candidate{'' if count == 1 else 's'}"]
    rows = [
        [str(place), candidate.name, duration(candidate.cost_s), candidate.model, _parts(candidate), _mark(candidate)]
        for place, candidate in enumerate(route.candidates, 1)
    ]
    rows += [["-", left.name, NONE, "", left.reason, ""] for left in route.excluded]
    if rows:
        lines.append(table(["", "PEER", "COST", "MODEL", "BECAUSE", ""], rows, right=["COST"]))
    return "\n".join(lines)


def _parts(candidate: CandidateView) -> str:
    return " · ".join(f"{name} {value}" for name, value in candidate.parts)


def _mark(candidate: CandidateView) -> str:
    if candidate.chosen:
        return "← taken"
    return "drawn" if candidate.drawn else ""
