"""Answers with the user's own words, as fast or as slowly as asked: the backend for tests and benchmarks.

Reference: `echo:`, or `echo:OPTION=VALUE,…` with

    first_ms    before the first word (default: delay_ms)
    reads       words of the input that it reads in a second, besides (default: all at once)
    delay_ms    before every other word (default 0); with 300 there is time to kill it by hand, and see another go on
    words       the answer has exactly this many words, the text over and over (default: the text once)
    slots       answers at the same time (default 8)
    model       the model's name (default `echo`)
    skills      joined by `+` (default chat+summarize+complete)
    fail_after  break with BackendError after this many words (default: never)
"""

from dataclasses import dataclass, field
from itertools import cycle, islice

import trio

from node.backends import BackendError, Generated, GenerationRequest, Piece, Surroundings
from node.backends.words import send_words, split_words
from protocol.limits import SLOTS_MAX, TOKENS_MAX
from protocol.parts import Capability

WORDS_PER_SECOND = (
    100_000.0  # Claimed where no delay is asked for: fast enough to cost nothing, and the same on every machine.
)
CONTEXT_TOKENS = 65_536
NUMERICS = b"echo 1"  # Any echo can go on with what another has begun, if both have the same words to say.


@dataclass(frozen=True, slots=True)
class EchoOptions:
    """The argument of an `echo:` reference, parsed."""

    first_ms: int
    reads: int
    delay_ms: int
    words: int | None
    slots: int
    model: str
    skills: tuple[str, ...]
    fail_after: int | None


def parse_options(argument: str) -> EchoOptions:
    """Raises BackendError that names the option."""
    given: dict[str, str] = {}
    for part in filter(None, argument.split(",")):
        name, equals, value = part.partition("=")
        if not equals or name not in {"first_ms", "reads", "delay_ms", "words", "slots", "model", "skills", "fail_after"}:
            raise BackendError(
                f'echo has no option "{part}". See `node/backends/echo.py` for its options.', retryable=False
            )
        given[name] = value

    def number(name: str, most: int) -> int | None:
        text = given.get(name)
        if text is None:
            return None
        if not text.isdecimal() or int(text) > most:
            raise BackendError(f'echo: {name} must be a whole number up to {most}, not "{text}".', retryable=False)
        return int(text)

    delay_ms = number("delay_ms", 600_000) or 0
    first_ms = number("first_ms", 600_000)
    return EchoOptions(
        first_ms=delay_ms if first_ms is None else first_ms,
        reads=number("reads", 1_000_000) or 0,
        delay_ms=delay_ms,
        words=number("words", TOKENS_MAX),
        slots=max(1, number("slots", SLOTS_MAX) or 8),
        model=given.get("model") or "echo",
        skills=tuple(filter(None, given.get("skills", "chat+summarize+complete").split("+"))),
        fail_after=number("fail_after", TOKENS_MAX),
    )


@dataclass(slots=True)
class EchoBackend:
    """Says the last turn's text again. Its speeds follow from its options, so nothing is measured."""

    argument: str
    surroundings: Surroundings
    options: EchoOptions = field(init=False)
    _slots: trio.Semaphore = field(init=False)
    _serving: bool = False

    def __post_init__(self) -> None:
        self.options = parse_options(self.argument)
        self._slots = trio.Semaphore(self.options.slots)

    @property
    def pid(self) -> None:
        """It has no process of its own."""
        return None

    async def run(self, *, task_status: trio.TaskStatus[tuple[Capability, ...]]) -> None:
        self._serving = True
        try:
            task_status.started(tuple(self._capability(skill) for skill in self.options.skills))
            await trio.sleep_forever()
        finally:
            self._serving = False

    async def generate(self, request: GenerationRequest, pieces: trio.MemorySendChannel[str | Piece]) -> Generated:
        if not self._serving:
            raise BackendError("echo is not running.")
        if request.model != self.options.model or request.skill not in self.options.skills:
            raise BackendError(
                f'echo has no model "{request.model}" with the skill "{request.skill}".', retryable=False
            )
        if not request.turns:
            raise BackendError("echo needs at least one turn to repeat.", retryable=False)
        words = split_words(request.turns[-1].text)
        if self.options.words is not None:
            words = list(islice(cycle(words or [" echo"]), self.options.words))
        async with self._slots:
            if self.options.reads:
                await trio.sleep(sum(len(split_words(turn.text)) for turn in request.turns) / self.options.reads)
            return await send_words(request, words, pieces, self._wait)

    async def _wait(self, index: int) -> None:
        if index == self.options.fail_after:
            raise BackendError(f"echo breaks after {index} words, as asked.")
        await trio.sleep((self.options.delay_ms if index else self.options.first_ms) / 1000)

    def _capability(self, skill: str) -> Capability:
        return Capability(
            skill=skill,
            model=self.options.model,
            digest=b"",
            context_tokens=CONTEXT_TOKENS,
            tokens_per_second=1000 / self.options.delay_ms if self.options.delay_ms else WORDS_PER_SECOND,
            first_token_ms=self.options.first_ms,
            slots=self.options.slots,
            labels=(),
            description="Repeats what you say. For tests.",
            numerics=NUMERICS,
            tokens_in_per_second=float(self.options.reads),
        )


def open_echo(argument: str, surroundings: Surroundings) -> EchoBackend:
    """The entry point `echo`."""
    return EchoBackend(argument, surroundings)
