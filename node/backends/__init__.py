"""Where answers come from: the Backend protocol, found by entry points. One backend is one source of models."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import trio

from protocol.parts import Capability, Demands, FunctionCall, Logprob, Sampling, Turn

DESCRIPTIONS = {
    "chat": "Answers in conversation.",
    "summarize": "Sums a text up in a sentence or two.",
    "complete": "Continues a text.",
    "embed": "Turns a text into a vector.",
    "rerank": "Says how much a text has to do with a question.",
}
"""What language models can be asked for, and how that is advertised."""


class BackendError(Exception):
    """A backend cannot load or has failed. The message names the thing and the next step. The backend may be opened again.

    `retryable` is False when the same call will fail the same way (a file that is not a model, an input it cannot use);
    `too_long` says that it is because of the length of the input, which a model with more room may take.
    """

    def __init__(self, message: str, *, retryable: bool = True, too_long: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable and not too_long
        self.too_long = too_long


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One thing to generate, as a backend sees it. `model` is one of its own, and `demands` are among the features that it offers.

    `delivered` is the beginning of the answer that the user has already, from another worker, and `delivered_tokens` what it was
    made of, if that is known. Only what follows is to be sent; `tokens_max` counts the whole answer.
    """

    skill: str
    model: str
    turns: tuple[Turn, ...]
    tokens_max: int
    sampling: Sampling
    stops: tuple[str, ...] = ()
    delivered: str = ""
    delivered_tokens: tuple[int, ...] = ()
    demands: Demands = Demands()  # noqa: RUF009 It is frozen.


@dataclass(frozen=True, slots=True)
class Piece:
    """Text with the tokens drawn since the piece before, so that another worker with the same model can go on after it.

    Tokens whose text is held back (half a character, what may be the beginning of a stop string) are among them. `logprobs` are
    theirs, if the request demands them.
    """

    text: str
    tokens: tuple[int, ...]
    logprobs: tuple[Logprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Generated:
    """What came of it: `finish` is `stop`, `length` or `tool_calls`.

    `tokens_out` counts the whole answer, delivered or sent now.
    """

    finish: str
    tokens_in: int
    tokens_out: int
    calls: tuple[FunctionCall, ...] = ()


class Backend(Protocol):
    """One source of models: a file, a local server, a classifier. Owns its processes, threads and memory.

    The public contract is `node.backends.contract.check_backend`; authors of plug-ins run it too.
    """

    @property
    def pid(self) -> int | None:
        """The process that holds its memory, if it has one of its own and that is ready."""

    async def run(self, *, task_status: trio.TaskStatus[tuple[Capability, ...]]) -> None:
        """Load, test, and serve until cancelled; leaves no process behind. Raises BackendError if it cannot load.

        Reports, once ready, what passed its self-test, with measured speeds. Returns or raises BackendError later only if
        the source is gone for good; restarts after crashes are its own affair.
        """

    async def generate(self, request: GenerationRequest, pieces: trio.MemorySendChannel[str | Piece]) -> Generated:
        """Send the answer piece by piece into `pieces` (the caller closes it), and say how it ended.

        A piece is plain text, or a Piece from a model that tells its tokens. A backend whose capabilities have `numerics` goes on
        from `request.delivered` without a gap or an echo; any other refuses such a request.

        Any number of calls may run at once; those over the capability's `slots` wait their turn. Raises BackendError and
        nothing else. Cancelling a call stops its work within a second and leaves the others alone. Stop strings are never
        sent. `tokens_max` is kept.
        """


Exactness = Literal["auto", "always"]
"""Auto: where it costs nothing."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a backend may use of the node: a folder for its logs, threads and memory for a model, and whom to tell.

    `context_tokens`: how long a conversation may be. `exact`: whether an answer that anybody with this model can compute again, bit
    by bit, is worth more than a fast one. `measured` is what this source offered when it was loaded before: its speed need not be
    measured again. `tell` takes words for people on how far loading is, `note` on what a model that is ready cannot do; `available`
    whether it can work now, any time after it was ready.
    """

    logs: Path
    threads: int
    memory_bytes: int = 2**63
    context_tokens: int = 4096
    exact: Exactness = "auto"
    measured: tuple[Capability, ...] = ()
    tell: Callable[[str], None] = lambda words: None
    note: Callable[[str], None] = lambda words: None
    available: Callable[[bool], None] = lambda able: None


OpenBackend = Callable[[str, Surroundings], Backend]
"""What an entry point of the group `swarm.backends` is. The text is the part of a model's reference after `name:`.

A model's reference is `BACKEND:ARGUMENT` (`llama_cpp:/models/x.gguf`, `openai_http:http://127.0.0.1:11434/v1#llama3`,
`echo:`), or a short form that `node.backends.references` resolves: a path ending in `.gguf`, an `http(s)://` URL, a catalogue
name (`smollm2-135m`, `language`).
"""
