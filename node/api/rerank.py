"""/v1/rerank: which documents have most to do with a question."""

import math

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from node.api.bodies import read_json
from node.api.errors import bad_request, failed_task
from node.api.gathering import Gathered, gather_alike
from node.api.lists import ListFields, listed, tasks_of
from node.api.names import AUTO
from node.api.tasks import Service
from node.api.waiting import Awaited
from protocol import errors as codes
from swarm.values import Task

RERANK = "rerank"
DOCUMENTS_MAX = 256  # Of one request.


class Document(msgspec.Struct):
    text: str


class RerankRequest(ListFields, kw_only=True):
    """The fields that Jina, Cohere and llama-server have in common."""

    query: str
    documents: list[str | Document]
    top_n: int | None = None
    return_documents: bool | None = None


_DECODER = msgspec.json.Decoder(RerankRequest)
_SCORE = msgspec.json.Decoder(float)


async def rerank(service: Service, request: Request) -> ASGIApp:
    asked = await read_json(request, _DECODER)
    texts = [each if isinstance(each, str) else each.text for each in asked.documents]
    if not 1 <= len(texts) <= DOCUMENTS_MAX:
        raise bad_request(f"documents: {len(texts)} texts, 1 to {DOCUMENTS_MAX} allowed.", "documents")
    if asked.top_n is not None and asked.top_n < 1:
        raise bad_request(f"top_n: {asked.top_n} is less than 1.", "top_n")
    if not asked.query or not all(texts):
        raise bad_request("The query or a document is empty.", "documents" if asked.query else "query")
    tasks = tasks_of(service, asked, RERANK, [[asked.query, text] for text in texts])
    return Awaited(lambda: _ranked(service, tasks, texts, asked))


async def _ranked(service: Service, tasks: list[Task], texts: list[str], asked: RerankRequest) -> Response:
    gathered = await gather_alike(service.desk, tasks, asked.within_s)
    scores = [score_of(each) for each in gathered]
    order = sorted(range(len(texts)), key=lambda number: (-scores[number], number))[: asked.top_n]
    results = [
        {"index": number, "relevance_score": scores[number]}
        | ({"document": {"text": texts[number]}} if asked.return_documents else {})
        for number in order
    ]
    return listed(tasks[0], gathered, asked.model or AUTO, results=results)


def score_of(each: Gathered) -> float:
    """The number in an answer. Raises ApiError for a worker that has sent something else."""
    try:
        score = _SCORE.decode(each.text)
    except (msgspec.DecodeError, UnicodeEncodeError):
        score = math.nan
    if not math.isfinite(score):
        raise failed_task(codes.BACKEND_FAILED, "The worker has sent something that is no number.", each.answer)
    return score
