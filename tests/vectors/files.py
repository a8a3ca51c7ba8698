"""Every file of vectors, made anew from fixed seeds; `pytest --rewrite tests/protocol/test_vectors.py` writes them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.vectors import names, talks, wire

FOLDER = Path(__file__).parent
MAKERS: tuple[Callable[[], Any], ...] = (
    names.identities, names.signatures, names.swarms, names.providers, names.prefixes,
    wire.bodies, wire.envelopes, wire.adverts, wire.frames,
    talks.links, talks.attempts,
)  # fmt: skip


def files() -> dict[str, Any]:
    """What each file holds."""
    return {f"{make.__name__}.json": make() for make in MAKERS}
