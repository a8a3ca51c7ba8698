"""What an answer's tokens say: whole characters, no stop string, and nothing that was delivered before."""

import codecs
from collections.abc import Callable
from functools import cached_property

from node.backends import BackendError
from node.backends.llama_cpp import pipe
from node.backends.llama_cpp.model import Model
from node.backends.stops import Remaining, StopFilter


class Answer:
    """An answer's tokens and the text that they make; of that, what was not delivered before.

    Tokens that were delivered go through the same decoder and the same stop filter again, so that half a character, or what may be
    the beginning of a stop string, is held back here as it was there.
    """

    def __init__(self, model: Model, request: pipe.Generate, bytes_of: Callable[[int], bytes]) -> None:
        """`bytes_of`: what a token says."""
        self._model, self._request, self._bytes_of = model, request, bytes_of
        self._decoder = _decoder()
        stops = [] if request.forced else request.stops
        self._stops, self._remaining = StopFilter(stops), Remaining(request.delivered)
        self._ended = False
        self.tokens: list[int] = []

    @property
    def is_over(self) -> bool:
        """Whether a stop string has been met, or the end was delivered already."""
        return self._stops.stopped or self._ended

    def begun(self) -> str:
        """Take in what was delivered; returns what follows from it already.

        Tokens that do not make the text are left aside: whoever told them, the text is what the user has seen. Of an answer that
        is given from outside, its own tokens count. Raises BackendError if that does not begin with what was delivered.
        """
        delivered, tokens = self._request.delivered, self._request.delivered_tokens
        if self._request.forced:
            if not self._request.forced.startswith(delivered):
                raise BackendError("the answer that was delivered is not the one that is given", retryable=False)
            tokens = self._within(delivered.encode())
            return "".join(self.add(token, self._bytes_of(token)) for token in tokens)
        ends = next((at for at, token in enumerate(tokens) if self._model.is_end(token)), len(tokens))
        said = self._said(tokens[:ends])
        if said is None or not said.startswith(delivered):
            self.tokens = self._model.tokenize_rest(delivered)
            return self._remaining.after(self._stops.push(delivered))
        new = ""
        for token in tokens[:ends]:
            if not self.is_over:
                new += self.add(token, self._bytes_of(token))
        self._ended = ends < len(tokens)
        return new

    def forced(self) -> list[int]:
        """The tokens that follow on those that are there, of an answer that is given from outside."""
        return self._given[len(self.tokens) :]

    def _within(self, data: bytes) -> list[int]:
        """The tokens of the given answer that say no more than this, its beginning."""
        at, tokens = 0, self._given
        for count, token in enumerate(tokens):
            part = self._bytes_of(token)
            if data[at : at + len(part)] != part:
                return tokens[:count]
            at += len(part)
        return tokens

    @cached_property
    def _given(self) -> list[int]:
        """The tokens of an answer that is given from outside."""
        text, tokens = self._request.forced, self._request.forced_tokens
        goes_on_after_its_end = any(map(self._model.is_end, tokens[:-1]))
        if self._said(tokens) == text and not goes_on_after_its_end:
            return tokens
        stands_alone = self._request.skill == "complete" and not self._request.turns[-1][1]
        return self._model.tokenize_first(text) if stands_alone else self._model.tokenize_rest(text)

    def _said(self, tokens: list[int]) -> str | None:
        """What these tokens say, but for half a character at the end; None if the model does not have them."""
        try:
            return _decoder().decode(b"".join(map(self._bytes_of, tokens)))
        except ValueError:
            return None

    def add(self, token: int, data: bytes) -> str:
        """Take in the next token; returns what the user can be given now."""
        self.tokens.append(token)
        return self._remaining.after(self._stops.push(self._decoder.decode(data)))

    def flush(self) -> str:
        """The answer is over. Bytes that no character was made of are dropped: the answer was cut inside of one."""
        return self._remaining.after(self._stops.flush())


def _decoder() -> codecs.IncrementalDecoder:
    return codecs.getincrementaldecoder("utf-8")("replace")
