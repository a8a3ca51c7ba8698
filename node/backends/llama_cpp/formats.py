"""What an answer may look like, as a schema or a grammar has it: which tokens may follow what was said.

llguidance finds them, for all tokens of the vocabulary in some ten microseconds; it takes grammars of strangers and bounds what
they may cost.
"""

from concurrent.futures import ThreadPoolExecutor

import llguidance
import numpy as np
import numpy.typing as npt
from llguidance.gbnf_to_lark import gbnf_to_lark
from llguidance.llamacpp import lltokenizer_from_vocab

from node.backends.llama_cpp.functions import ONE_WAY
from node.backends.llama_cpp.model import Model

REASON_CHARACTERS_MAX = 160


class FormatRefused(Exception):
    """A schema or a grammar that cannot be used. The message is for people."""


class Formats:
    """The schemas and grammars for one vocabulary."""

    def __init__(self, model: Model) -> None:
        # It takes a second for a quarter of a million tokens; answers without a format need not wait for it.
        self._tokenizer = ThreadPoolExecutor(1).submit(lltokenizer_from_vocab, model.vocabulary, eos_token=model.ends)

    def format(self, schema: str, grammar: str, begun: list[int], call: str = "") -> "Format":
        """What may follow after `begun`; `call` is in the library's own language. Raises FormatRefused."""
        what = "schema" if schema else "grammar" if grammar else "schema of a function"
        try:
            if schema:
                source = llguidance.LLMatcher.grammar_from_json_schema(schema, overrides=ONE_WAY)  # type: ignore[arg-type]
            else:
                source = llguidance.LLMatcher.grammar_from_lark(gbnf_to_lark(grammar) if grammar else call)
        except RecursionError:
            raise FormatRefused(f"the {what} is nested too deeply") from None
        except Exception as error:  # noqa: BLE001 The library raises plain Exception for a bad grammar.
            raise FormatRefused(f"the {what} cannot be read: {_short(str(error))}") from None
        try:
            tokenizer = self._tokenizer.result()
        except Exception as error:  # noqa: BLE001 As above; of a vocabulary this time.
            raise FormatRefused(f"no {what} can be used with this model's vocabulary: {_short(str(error))}") from None
        matcher = llguidance.LLMatcher(tokenizer, source, log_level=0)
        if matcher.is_error():
            raise FormatRefused(f"the {what} cannot be used: {_short(matcher.get_error())}")
        if not matcher.consume_tokens(begun):
            raise FormatRefused(f"the answer that was delivered is not of this {what}")
        return Format(matcher, tokenizer.vocab_size)


class Format:
    """One answer's format, as far as the answer has come."""

    def __init__(self, matcher: llguidance.LLMatcher, vocabulary_size: int) -> None:
        self._matcher, self._size = matcher, vocabulary_size

    def allowed(self) -> npt.NDArray[np.bool_]:
        """For each token, whether it may be next. Raises FormatRefused where the format has no way on."""
        mask = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        if self._matcher.is_error():
            raise FormatRefused(f"the answer's format has no way on: {_short(self._matcher.get_error())}")
        return np.unpackbits(mask, count=self._size, bitorder="little").view(np.bool_)

    def take(self, token: int) -> None:
        """Go on after this token, which was allowed."""
        self._matcher.consume_token(token)


def _short(reason: str) -> str:
    """The first line of an error, and where that only announces it, the last."""
    lines = [line.strip() for line in reason.strip().splitlines()]
    shown = f"{lines[0]} {lines[-1]}" if len(lines) > 1 and lines[0].endswith(":") else "".join(lines[:1])
    return shown[:REASON_CHARACTERS_MAX]
