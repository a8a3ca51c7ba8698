"""Which of some texts a model would rather say: each is read as its answer, and its tokens' probabilities are multiplied."""

from collections.abc import Sequence
from functools import partial

from node.backends.llama_cpp.sampling import Logits, logprobs_of
from node.backends.llama_cpp.scheduler import Text


class Ballot:
    """The options of one request. What they and the prompt have in common is computed once: the scheduler holds it.

    All first tokens are told by the prompt alone, so that options of one token cost no more than the prompt does.
    """

    def __init__(self, prompt: list[int], options: Sequence[list[int]]) -> None:
        """No option is empty."""
        self._prompt, self.options = prompt, options
        self._longer = iter(number for number, option in enumerate(options) if len(option) > 1)
        self._pending = 1
        self.logprobs = [0.0] * len(options)
        """Of each option, as far as it has been read."""

    def first(self) -> Text:
        """The text to read first."""
        return Text(list(self._prompt), self._tell_first)

    @property
    def is_read(self) -> bool:
        """Whether the text that was given out is read."""
        return self._pending == 0

    def next(self) -> Text | None:
        """The text to read next; None when all are read."""
        number = next(self._longer, None)
        if number is None:
            return None
        option = self.options[number]
        self._pending = len(option) - 1
        return Text([*self._prompt, *option[:-1]], partial(self._tell, number), known=len(option) - 2)

    def _tell_first(self, logits: Logits) -> int:
        firsts = [option[0] for option in self.options]
        self.logprobs = logprobs_of(logits, firsts)
        self._pending = 0
        return firsts[0]

    def _tell(self, number: int, logits: Logits) -> int:
        option = self.options[number]
        token = option[len(option) - self._pending]
        self.logprobs[number] += logprobs_of(logits, [token])[0]
        self._pending -= 1
        return token
