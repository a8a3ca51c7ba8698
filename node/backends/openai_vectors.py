"""Vectors and judgements of an OpenAI-compatible server, in the words of the skills `embed` and `rerank`."""

import json
import math
from collections.abc import Sequence
from typing import TypeGuard

from node.backends import BackendError, Generated
from node.backends.openai_endpoint import Endpoint
from node.vectors import NUMBERS_MAX, rounded
from protocol.limits import CONTEXT_TOKENS_MAX
from protocol.parts import Turn


async def embed(endpoint: Endpoint, model: str, turns: Sequence[Turn]) -> tuple[str, Generated]:
    """A vector of length 1 of the last turn, as text. Raises BackendError."""
    said = await endpoint.call("/embeddings", {"model": model, "input": turns[-1].text, "encoding_format": "float"})
    vector = _first(said, "data", "embedding")
    if not isinstance(vector, list) or not 0 < len(vector) <= NUMBERS_MAX or not all(map(_is_number, vector)):
        raise BackendError(f"{endpoint.url} sends what is no vector.")
    length = math.hypot(*vector) or 1.0
    return json.dumps([rounded(number / length) for number in vector]), _generated(said)


async def rerank(endpoint: Endpoint, model: str, turns: Sequence[Turn]) -> tuple[str, Generated]:
    """How much a text, the second turn, has to do with a question, the first, as text. Raises BackendError."""
    if len(turns) != 2:
        raise BackendError("rerank needs a question and a text, a turn each.", retryable=False)
    question, text = turns
    said = await endpoint.call("/rerank", {"model": model, "query": question.text, "documents": [text.text]})
    score = _first(said, "results", "relevance_score")
    if not _is_number(score):
        raise BackendError(f"{endpoint.url} sends what is no judgement.")
    return json.dumps(rounded(score)), _generated(said)


def _first(said: dict[str, object], name: str, part: str) -> object:
    listed = said.get(name)
    first = listed[0] if isinstance(listed, list) and listed else None
    return first.get(part) if isinstance(first, dict) else None


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and type(value) is not bool and abs(value) < 1e30


def _generated(said: dict[str, object]) -> Generated:
    usage = said.get("usage")
    count = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return Generated("stop", count if type(count) is int and 0 <= count <= CONTEXT_TOKENS_MAX else 0, 1)
