"""Which features an OpenAI-compatible server has: many pass over in silence what they do not know, so each is tried once."""

import json
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import trio

from node.backends import Backend, BackendError, Generated, GenerationRequest, Piece
from protocol.parts import FEATURES, Demands, Sampling, Turn

TOKENS = 64
PIECES_MAX = 2 * TOKENS + 2  # All of them: nobody reads before the end.
WETNESS = '{"type":"object","properties":{"wet":{"type":"boolean"}},"required":["wet"],"additionalProperties":false}'
WEATHER = json.dumps([{"type": "function", "function": {
    "name": "weather",
    "description": "Tells what the weather is like in a town.",
    "parameters": {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]},
}}])  # fmt: skip
TOP = 3

_log = logging.getLogger(__name__)

_Passes = Callable[[str, Sequence[Piece], Generated], bool]


@dataclass(frozen=True, slots=True)
class _Trial:
    """What is asked, and whether an answer (its text, its pieces, how it ended) shows that the demand was understood."""

    text: str
    demands: Demands
    passes: _Passes


def _is_about_wetness(text: str, pieces: Sequence[Piece], generated: Generated) -> bool:
    said = json.loads(text)
    return isinstance(said, dict) and type(said.get("wet")) is bool


def _tells_likelihoods(text: str, pieces: Sequence[Piece], generated: Generated) -> bool:
    told = [logprob for piece in pieces for logprob in piece.logprobs]
    return bool(told) and all(len(each.top) == TOP for each in told)


def _calls_the_weather(text: str, pieces: Sequence[Piece], generated: Generated) -> bool:
    return [call.name for call in generated.calls] == ["weather"] and "town" in json.loads(generated.calls[0].arguments)


_TRIALS = {
    "schema": _Trial("Is water wet? Answer in JSON.", Demands(schema=WETNESS), _is_about_wetness),
    "logprobs": _Trial("Say hello.", Demands(logprobs=TOP + 1), _tells_likelihoods),
    "tools": _Trial("How is the weather in Oslo? Call the function.", Demands(tools=WEATHER, tool="weather"), _calls_the_weather),
}


async def features_of(backend: Backend, model: str) -> tuple[str, ...]:
    """The features that this chat model behind a server honours. Never raises for what it does not."""
    honoured: set[str] = set()

    async def attempt(feature: str, trial: _Trial) -> None:
        turns = (Turn("user", trial.text),)
        asked = GenerationRequest("chat", model, turns, TOKENS, Sampling(seed=1), demands=trial.demands)
        sending, receiving = trio.open_memory_channel[str | Piece](PIECES_MAX)
        pieces: list[Piece] = []
        try:
            async with sending, receiving:
                generated = await backend.generate(asked, sending)
                with suppress(trio.WouldBlock):
                    while True:
                        piece = receiving.receive_nowait()
                        pieces.append(piece if isinstance(piece, Piece) else Piece(piece, ()))
            if trial.passes("".join(piece.text for piece in pieces), pieces, generated):
                honoured.add(feature)
        except (BackendError, ValueError, TypeError) as error:
            _log.info("%s does not honour %s: %s", model, feature, error)

    async with trio.open_nursery() as nursery:
        for feature, trial in _TRIALS.items():
            nursery.start_soon(attempt, feature, trial)
    return tuple(feature for feature in FEATURES if feature in honoured)
