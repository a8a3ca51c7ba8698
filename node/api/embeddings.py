"""/v1/embeddings: texts become vectors."""

import base64
import struct
from typing import Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from node.api.bodies import read_json
from node.api.errors import bad_request, failed_task
from node.api.fields import unsupported
from node.api.gathering import Gathered, gather_alike
from node.api.lists import ListFields, listed, tasks_of
from node.api.names import AUTO
from node.api.tasks import Service
from node.api.waiting import Awaited
from node.vectors import NUMBERS_MAX
from protocol import errors as codes
from swarm.values import Task

EMBED = "embed"
INPUTS_MAX = 2048  # Of one request; as in the OpenAI API.

NUMBER_MAX = 3.4028235e38  # Of 32 bits, as base64 has them.


class EmbeddingRequest(ListFields, kw_only=True):
    """The fields that are known."""

    input: str | list[str | int | list[int]]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None


_DECODER = msgspec.json.Decoder(EmbeddingRequest)
_VECTOR = msgspec.json.Decoder(list[float])


async def embeddings(service: Service, request: Request) -> ASGIApp:
    asked = await read_json(request, _DECODER)
    texts = _texts(asked)
    if asked.dimensions is not None:
        raise unsupported("dimensions", "a vector is as long as the model makes it")
    tasks = tasks_of(service, asked, EMBED, [[text] for text in texts])
    return Awaited(lambda: _embed(service, tasks, asked))


def _texts(asked: EmbeddingRequest) -> list[str]:
    inputs = [asked.input] if isinstance(asked.input, str) else asked.input
    if not 1 <= len(inputs) <= INPUTS_MAX:
        raise bad_request(f"input: {len(inputs)} texts, 1 to {INPUTS_MAX} allowed.", "input")
    texts = [text for text in inputs if isinstance(text, str)]
    if len(texts) < len(inputs):
        raise unsupported("input", "tokens have other numbers in each model", "Send text")
    if not all(texts):
        raise bad_request("input: a text is empty.", "input")
    return texts


async def _embed(service: Service, tasks: list[Task], asked: EmbeddingRequest) -> Response:
    gathered = await gather_alike(service.desk, tasks, asked.within_s)
    vectors = [vector_of(each) for each in gathered]
    for each, vector in zip(gathered, vectors, strict=True):
        if len(vector) != len(vectors[0]):
            raise failed_task(codes.BACKEND_FAILED, "The workers have sent vectors of several lengths.", each.answer)
    in_base64 = asked.encoding_format == "base64"
    data = [
        {"object": "embedding", "index": number, "embedding": _in_base64(vector) if in_base64 else vector}
        for number, vector in enumerate(vectors)
    ]
    return listed(tasks[0], gathered, asked.model or AUTO, data=data)


def _in_base64(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def vector_of(each: Gathered) -> list[float]:
    """The numbers in an answer. Raises ApiError for a worker that has sent something else."""
    try:
        vector = _VECTOR.decode(each.text)
    except (msgspec.DecodeError, UnicodeEncodeError):
        vector = []
    if not 0 < len(vector) <= NUMBERS_MAX or not all(abs(number) <= NUMBER_MAX for number in vector):
        raise failed_task(codes.BACKEND_FAILED, "The worker has sent something that is no vector.", each.answer)
    return vector
