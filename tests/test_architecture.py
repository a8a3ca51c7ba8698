"""The house keeps its law: arrows, purity, sizes and names, in every file; and the law itself can be broken."""

from pathlib import Path

import pytest

from tests.architecture import ARROWS, MACHINE_PATH, OURS, PURE_OUTSIDE, SetNames, Source, violations

ROOT = Path(__file__).resolve().parent.parent
TEXTS = {".cfg", ".cmake", ".css", ".html", ".in", ".js", ".json", ".md", ".py", ".toml", ".txt", ".yaml", ".yml", ""}
NOT_OURS = {
    ".git",
    ".venv",
    ".cache",
    ".hypothesis",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    "__pycache__",
    "dist",
}


def sources() -> list[Source]:
    """Every Python file of the project."""
    paths = sorted(path for folder in ARROWS for path in (ROOT / folder).rglob("*.py"))
    return [Source(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")) for path in paths]


def declared_sets(folder: str, files: list[Source]) -> SetNames:
    """What the files that `folder` may import declare to be a set."""
    names = SetNames()
    for source in files:
        if source.folder in ARROWS[folder]:
            names.learn(source.text)
    return names


def test_every_file_keeps_the_law() -> None:
    files = sources()
    assert len(files) > 100, "the files were not found"
    sets = {folder: declared_sets(folder, files) for folder in (*PURE_OUTSIDE, "simulations")}
    broken = [sentence for source in files for sentence in violations(source, sets.get(source.folder))]
    assert not broken, "\n" + "\n".join(broken)


def test_every_folder_of_the_picture_is_there_and_no_other_holds_code() -> None:
    with_code = {path.relative_to(ROOT).parts[0] for path in ROOT.glob("*/*.py")} - NOT_OURS
    assert with_code == OURS


def test_no_text_names_a_folder_of_one_machine() -> None:
    named = []
    for path in sorted(ROOT.rglob("*")):
        inside = path.relative_to(ROOT)
        if NOT_OURS & set(inside.parts) or not path.is_file() or path.suffix not in TEXTS or path == Path(__file__):
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            if MACHINE_PATH.search(line):
                named.append(f"{inside}:{number}: {line.strip()[:100]}")
    assert not named, "\n" + "\n".join(named)


PURPOSE = '"""A file."""\n'

BROKEN = [
    ("protocol/x.py", "import swarm.values", "against the arrows"),
    ("swarm/x.py", "from node.clock import now", "against the arrows"),
    ("node/x.py", "from simulations.world import World", "against the arrows"),
    ("simulations/x.py", "def f():\n    import node", "against the arrows"),
    ("tools/x.py", "import node", "against the arrows"),
    ("node/cli/x.py", "from libp2p import new_host", "only node/libp2p/"),
    ("node/cli/x.py", "import multiaddr", "only node/libp2p/"),
    ("node/backends/llama_cpp/backend.py", "import llama_cpp as ll", "only node/backends/llama_cpp/model.py"),
    ("node/models.py", "from node.backends.llama_cpp.model import Model", "only node/backends/llama_cpp/child.py"),
    ("node/models.py", "from node.backends.llama_cpp import worker", "only node/backends/llama_cpp/child.py"),
    ("node/x.py", "from . import clock", "relative import"),
    ("swarm/finding/x.py", "from swarm.doing.asking import Asking", "member.py joins them"),
    ("swarm/doing/x.py", "from swarm.member import Member", "do not know the member"),
    ("swarm/values.py", "from swarm.finding.roster import Roster", "is none"),
    ("simulations/x.py", "import time", "not decided by its seed"),
    ("simulations/x.py", "import random", "dice are handed in"),
    ("protocol/x.py", "import time", "does not belong"),
    ("protocol/x.py", "import os", "does not belong"),
    ("swarm/x.py", "import trio", "does not belong"),
    ("swarm/x.py", "import asyncio", "does not belong"),
    ("swarm/x.py", "from threading import Lock", "does not belong"),
    ("swarm/x.py", "import logging", "does not belong"),
    ("swarm/x.py", "import uuid", "does not belong"),
    ("swarm/x.py", "import secrets", "does not belong"),
    ("swarm/x.py", "import socket", "does not belong"),
    ("swarm/x.py", "from datetime import datetime", "does not belong"),
    ("swarm/x.py", "import msgspec", "does not belong"),
    ("swarm/x.py", "import random", "of random only Random"),
    ("swarm/x.py", "from random import choice", "of random only Random"),
    ("protocol/x.py", "from nacl.utils import random", "of nacl only"),
    ("swarm/x.py", "from random import Random\ndice = Random()", "dice without a seed"),
    ("swarm/x.py", "async def f(): ...", "nothing waits here"),
    ("swarm/x.py", "def f():\n    print(1)", "reaches outside"),
    ("swarm/x.py", "order = hash('a')", "reaches outside"),
    ("swarm/x.py", "def f():\n    global g\n    g = 1", "outside of every object"),
    ("node/utils.py", "", "says nothing"),
    ("node/common/x.py", "", "says nothing"),
    ("node/x.py", "x = 1\n" * 450, "wants to be two"),
]


@pytest.mark.parametrize(("path", "code", "sentence"), BROKEN)
def test_broken_law_is_told(path: str, code: str, sentence: str) -> None:
    told = violations(Source(path, f"{PURPOSE}{code}\n"))
    assert len(told) == 1, told
    assert sentence in told[0]


@pytest.mark.parametrize("text", ["x = 1\n", '"""no sentence"""\n', ""])
def test_file_without_a_purpose_is_told(text: str) -> None:
    assert len(violations(Source("node/x.py", text))) == 1


SETS_WALKED = [
    "for x in {1, 2}: pass",
    "for x in set(y): pass",
    "for x in frozenset(y): pass",
    "for x in a.keys() & b.keys(): pass",
    "for x in a.keys() - {1}: pass",
    "x = [a for a in {1, 2}]",
    "x = {a: 1 for a in set(y)}",
    "x = list({1, 2})",
    "x = tuple(set(y))",
    "x = next(iter(set(y)))",
    "x = max({1, 2}, key=f)",
    "x = ','.join(set(y))",
    "x = [*{1, 2}]",
    "f(*set(y))",
    "for x in enumerate({1, 2}): pass",
    "for x in first.union(second): pass",
    "def f(given: set[int]):\n    for x in given: pass",
    "def f(given: 'frozenset[int] | None'):\n    return [x for x in given]",
    "def f():\n    mine = set()\n    for x in mine: pass",
    "def f():\n    mine = {1}\n    other = mine | more\n    return list(other)",
    "def f():\n    mine = {1}\n    return mine.pop()",
    "class C:\n    known: frozenset[int]\ndef f(c):\n    return tuple(c.known)",
    "class C:\n    def __init__(self):\n        self._open: set[int] = set()\n    def f(self):\n        for x in self._open: pass",
    "class C:\n    def __init__(self):\n        self._open = set()\n    def f(self):\n        return [x for x in self._open]",
    "def ready() -> set[int]: ...\ndef f():\n    for x in ready(): pass",
    "def f():\n    return sorted([x for x in {1, 2}]) + [x for x in {1, 2}]",
]


@pytest.mark.parametrize("code", SETS_WALKED)
def test_walk_over_a_set_is_told(code: str) -> None:
    source = Source("swarm/x.py", f"{PURPOSE}{code}\n")
    names = SetNames()
    names.learn(source.text)
    told = violations(source, names)
    assert len(told) == 1, told
    assert "a set is walked" in told[0]


SETS_ASKED = [
    "x = 1 in {1, 2}",
    "for x in sorted({1, 2}): pass",
    "x = len({1, 2})",
    "x = any(a > 1 for a in {1, 2})",
    "x = sorted(a + 1 for a in {1, 2})",
    "x = {a + 1 for a in {1, 2}}",
    "x = {1} | {2}",
    "for x in {1: 2}: pass",
    "for x in a.keys(): pass",
    "for x in dict.fromkeys([1, 2]): pass",
    "def f(given: list[int]):\n    for x in given: pass",
    "def f(given: dict[str, set[int]]):\n    for x in given: pass",
    "def f():\n    mine = {1}\n    return mine\ndef g(mine: list[int]):\n    return tuple(mine)",
]


@pytest.mark.parametrize("code", SETS_ASKED)
def test_set_may_be_asked_counted_and_sorted(code: str) -> None:
    assert violations(Source("swarm/x.py", f"{PURPOSE}{code}\n")) == []


ALLOWED = [
    ("protocol/x.py", "import hashlib\nimport msgpack\nfrom nacl.signing import SigningKey"),
    ("swarm/x.py", "from random import Random\nfrom protocol.errors import ErrorCode"),
    ("swarm/choosing/x.py", "from swarm.finding.roster import Roster"),
    ("swarm/member.py", "from swarm.finding.roster import Roster\nfrom swarm.doing.asking import Asking"),
    ("node/libp2p/x.py", "from libp2p import new_host\nimport multiaddr"),
    ("node/backends/llama_cpp/x.py", "from node.backends.llama_cpp import pipe"),
    ("simulations/x.py", "from swarm.member import Member\nimport msgspec"),
    ("tests/x.py", "import node, simulations, swarm, protocol"),
    ("node/x.py", "async def f():\n    for x in {1, 2}: print(x)"),
]


@pytest.mark.parametrize(("path", "code"), ALLOWED)
def test_what_the_law_allows_is_not_told(path: str, code: str) -> None:
    assert violations(Source(path, f"{PURPOSE}{code}\n")) == []


@pytest.mark.parametrize(
    "line", ["see /ro" + "ot/x/y", "cd '/wo" + "rk/main'", "open('/ho" + "me/ann/a')", "/Us" + "ers/ann/a"]
)
def test_machine_path_is_told(line: str) -> None:
    assert MACHINE_PATH.search(line)


@pytest.mark.parametrize(
    "line", ["~/work/x", "GET /v1/models", "https://host/home/x", "a/work/b", "$HOME/.cache", "/tmp/x"]
)
def test_other_path_is_not_told(line: str) -> None:
    assert not MACHINE_PATH.search(line)
