"""Whole answers: what a task yields, gathered until its end."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import trio

from node.api.errors import ApiError, failed_task
from node.api.streaming import next_batch, raise_if_failed
from node.desk import AskEnded, AskText, Desk
from node.views import AnswerView
from protocol import errors as codes
from protocol.parts import Logprob
from swarm.values import Task

ANSWER_BYTES_MAX = 4 * 1024 * 1024  # Far over the longest honest answer of 32,768 tokens; gathering must end somewhere.
AT_ONCE_MAX = 16  # Tasks of one request that are under way together.


@dataclass(frozen=True, slots=True)
class Gathered:
    """A complete answer."""

    text: str
    logprobs: tuple[Logprob, ...]
    answer: AnswerView


async def gather(desk: Desk, task: Task) -> Gathered:
    """Run a task to its end. Raises ApiError."""
    texts: list[str] = []
    logprobs: list[Logprob] = []
    room = ANSWER_BYTES_MAX
    async with desk.ask(task) as items:
        while True:
            for item in await next_batch(items, float("inf")):
                if isinstance(item, AskText):
                    texts.append(item.text)
                    logprobs += item.logprobs
                    room -= len(item.text.encode(errors="replace"))
                    if room < 0:
                        raise failed_task(codes.STREAM_BROKEN, "The worker sent more text than any answer has.", None)
                elif isinstance(item, AskEnded):
                    text = "".join(texts)
                    raise_if_failed(item, text)
                    return Gathered(text, tuple(logprobs), item.answer)


async def gather_alike(desk: Desk, tasks: Sequence[Task]) -> list[Gathered]:
    """Run several whose answers are to be compared: all by the model that was chosen for the first. Raises the first ApiError."""
    first = await gather(desk, tasks[0])
    return [first, *await gather_all(desk, [replace(task, model=first.answer.model) for task in tasks[1:]])]


async def gather_all(desk: Desk, tasks: Sequence[Task]) -> list[Gathered]:
    """Run several, some at once; the answers in the order of the tasks. Raises the first ApiError, and stops the others."""
    found: dict[int, Gathered] = {}
    limit = trio.CapacityLimiter(AT_ONCE_MAX)
    failure: ApiError | None = None

    async def one(number: int) -> None:
        nonlocal failure
        try:
            async with limit:
                found[number] = await gather(desk, tasks[number])
        except ApiError as error:
            failure = failure or error
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for number in range(len(tasks)):
            nursery.start_soon(one, number)
    if failure is not None:
        raise failure
    return [found[number] for number in range(len(tasks))]
