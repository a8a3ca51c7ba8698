"""Builds the Task that a request asks for, within the bounds of the wire."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from node.api.errors import ApiError, bad_request
from node.api.names import Wanted
from node.desk import Desk
from node.detached import Detached
from node.recording import Recorder
from protocol import limits as lim
from protocol.parts import Demands, Sampling, TaskId, Turn
from swarm.values import Privacy, Task, too_long

TOKENS_DEFAULT = 512  # A long answer of a small model; more is asked for by name.
TEMPERATURE_DEFAULT = 0.7  # Of free talk. Guess: small models wander at OpenAI's 1.0.
FREE_SKILLS = ("chat", "complete")  # For all others the likeliest answer is the best.
DEADLINE_S_MAX = lim.DEADLINE_MS_MAX / 1000
SEED_MAX = 2**32 - 1

DrawBytes = Callable[[int], bytes]
_Value = TypeVar("_Value", int, float)


@dataclass(frozen=True, slots=True)
class Service:
    """What the handlers work with.

    `deadline_s` is for tasks that do not say; `draw` is the source of task ids; `started` is shown as the models' `created`.
    """

    desk: Desk
    deadline_s: float
    draw: DrawBytes
    started: int
    recorder: Recorder
    detached: Detached


@dataclass(frozen=True, slots=True)
class Wishes:
    """How a task shall be done; None is the default."""

    tokens_max: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    stops: Sequence[str] = ()
    deadline_s: float | None = None
    privacy: str | None = None
    demands: Demands = Demands()  # noqa: RUF009 It is frozen.


def make_task(service: Service, wanted: Wanted, turns: Sequence[Turn], wishes: Wishes) -> Task:
    """A task with a fresh id. Raises ApiError 400 for what no wire can carry; too many tokens are clamped instead."""
    _check_turns(turns, wishes.demands.size)
    return Task(
        id=TaskId(service.draw(16)),
        skill=wanted.skill,
        turns=tuple(turns),
        model=wanted.model,
        tokens_max=min(_or(wishes.tokens_max, TOKENS_DEFAULT), lim.TOKENS_MAX),
        sampling=_sampling(wanted, wishes),
        stops=_stops(wishes.stops),
        deadline_s=min(_or(wishes.deadline_s, service.deadline_s), DEADLINE_S_MAX),
        privacy=Privacy(wishes.privacy) if wishes.privacy else Privacy.SWARM,
        worker=wanted.worker,
        demands=wishes.demands,
    )


def times(service: Service, task: Task, count: int) -> list[Task]:
    """The same asked so many times: each has an id of its own, and a seed of its own if one was given."""
    first = task.sampling.seed
    seeds = [first and (first + number - 1) % SEED_MAX + 1 for number in range(1, count)]
    return [task, *(replace(task, id=TaskId(service.draw(16)), sampling=replace(task.sampling, seed=seed)) for seed in seeds)]


def _sampling(wanted: Wanted, wishes: Wishes) -> Sampling:
    usual = Sampling(TEMPERATURE_DEFAULT if wanted.skill in FREE_SKILLS else 0.0)
    return Sampling(
        temperature=_or(wishes.temperature, usual.temperature),
        top_p=_or(wishes.top_p, usual.top_p),
        top_k=min(_or(wishes.top_k, usual.top_k), lim.TOP_K_MAX),
        min_p=_or(wishes.min_p, usual.min_p),
        repeat_penalty=_or(wishes.repeat_penalty, usual.repeat_penalty),
        presence_penalty=_or(wishes.presence_penalty, usual.presence_penalty),
        frequency_penalty=_or(wishes.frequency_penalty, usual.frequency_penalty),
        seed=_seed(wishes.seed),
    )


def _or(value: _Value | None, default: _Value) -> _Value:
    return default if value is None else value


def _seed(seed: int | None) -> int:
    """On the wire 0 means the worker's choice, so a user's own 0 (or a multiple of 2^32) becomes the largest seed."""
    if seed is None:
        return 0
    return seed & SEED_MAX or SEED_MAX


def _stops(stops: Sequence[str]) -> tuple[str, ...]:
    kept = tuple(stop for stop in stops if stop)
    if len(kept) > lim.STOPS_MAX:
        raise bad_request(f"stop: {len(kept)} strings, {lim.STOPS_MAX} allowed.", "stop")
    if any(len(stop.encode()) > lim.STOP_BYTES_MAX for stop in kept):
        raise bad_request(f"stop: a string is longer than {lim.STOP_BYTES_MAX} bytes.", "stop")
    return kept


def _check_turns(turns: Sequence[Turn], more: int) -> None:
    """`more` bytes go into the same message."""
    if not turns:
        raise bad_request("The conversation is empty.", "turns")
    excess = too_long(turns, more)
    if excess:
        raise ApiError(400, "too_long", f"The conversation is too long for one task: {excess}.", param="turns")
