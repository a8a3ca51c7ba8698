"""Whole answers: what a task yields, gathered until its end."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import trio

from node.api.errors import ApiError
from node.api.streaming import next_batch, raise_if_failed
from node.desk import AskEnded, AskText, Desk
from node.views import AnswerView
from protocol.parts import Logprob
from swarm.values import Task

AT_ONCE_MAX = 16  # Tasks of one request that are under way together.
LEAST_S = 0.001  # A deadline that has passed by the time that anybody looks.


@dataclass(frozen=True, slots=True)
class Gathered:
    """A complete answer."""

    text: str
    logprobs: tuple[Logprob, ...]
    answer: AnswerView


async def gather(desk: Desk, task: Task) -> Gathered:
    """Run a task to its end. Raises ApiError. How long the answer can get is bounded by the member."""
    texts: list[str] = []
    logprobs: list[Logprob] = []
    async with desk.ask(task) as items:
        while True:
            for item in await next_batch(items, float("inf")):
                if isinstance(item, AskText):
                    texts.append(item.text)
                    logprobs += item.logprobs
                elif isinstance(item, AskEnded):
                    text = "".join(texts)
                    raise_if_failed(item, text)
                    return Gathered(text, tuple(logprobs), item.answer)


async def gather_alike(desk: Desk, tasks: Sequence[Task], within_s: float | None) -> list[Gathered]:
    """Run several whose answers are to be compared: all by the model that is asked for, or else by that of the first answer.

    `within_s` as for `gather_all`. Raises the first ApiError.
    """
    if tasks[0].model and len(tasks) > 1:
        return await gather_all(desk, tasks, within_s)
    ends_at = None if within_s is None else trio.current_time() + within_s
    first = await gather(desk, tasks[0])  # Which was given that time as its own.
    alike = [replace(task, model=first.answer.model) for task in tasks[1:]]
    return [first, *await gather_all(desk, alike, None if ends_at is None else ends_at - trio.current_time())]


async def gather_all(desk: Desk, tasks: Sequence[Task], within_s: float | None) -> list[Gathered]:
    """Run several, some at once; the answers in the order of the tasks. Raises the first ApiError, and stops the others.

    `within_s` is how long all of them may take together; None: each may take as long as it says.
    """
    found: dict[int, Gathered] = {}
    limit = trio.CapacityLimiter(AT_ONCE_MAX)
    failure: ApiError | None = None
    ends_at = None if within_s is None else trio.current_time() + within_s

    async def one(number: int) -> None:
        nonlocal failure
        task = tasks[number]
        try:
            async with limit:
                if ends_at is not None:
                    # With no time left it is asked all the same: that says so in the same words.
                    task = replace(task, deadline_s=max(LEAST_S, ends_at - trio.current_time()))
                found[number] = await gather(desk, task)
        except ApiError as error:
            failure = failure or error
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for number in range(len(tasks)):
            nursery.start_soon(one, number)
    if failure is not None:
        raise failure
    return [found[number] for number in range(len(tasks))]
