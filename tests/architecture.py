"""The law of the house as functions from source text to violations; `test_architecture.py` applies them to every file."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

LINES_MAX = 450
NAMES_BANNED = {"utils", "util", "helpers", "helper", "managers", "manager", "common", "base", "misc"}

# Who may import whom, by the first folder. What is not listed is not imported.
ARROWS = {
    "protocol": {"protocol"},
    "swarm": {"protocol", "swarm"},
    "node": {"protocol", "swarm", "node"},
    "simulations": {"protocol", "swarm", "simulations"},
    "tools": {"tools"},
    "benchmarks": {"protocol", "swarm", "node", "simulations", "benchmarks", "tests"},  # Real nodes as processes.
    "tests": {"protocol", "swarm", "node", "simulations", "benchmarks", "tools", "tests"},
}
OURS = set(ARROWS)

# The parts of a member do not hold each other; choosing reads what finding has found. `member.py` joins them.
PARTS = {"finding": {"finding"}, "choosing": {"choosing", "finding"}, "doing": {"doing"}, "leading": {"leading"}}

# All that the pure folders may know of the standard library: no clock, no I/O, no threads, no async, no log, no entropy.
PURE = {
    "abc", "array", "base64", "binascii", "bisect", "collections", "copy", "dataclasses", "enum", "fractions", "functools",
    "graphlib", "hashlib", "heapq", "hmac", "ipaddress", "itertools", "json", "math",
    "numbers", "operator", "random", "re", "statistics",
    "string", "struct", "types", "typing", "unicodedata",
}  # fmt: skip
PURE_OUTSIDE = {"protocol": {"msgpack", "nacl"}, "swarm": set[str]()}
PURE_NAMES = {"random": {"Random"}, "nacl": {"exceptions", "public", "signing", "bindings"}}

# What would make two runs with one seed differ. The report of a simulation may say how long it took, and what it was before;
# several may be played at once.
WORLDLY = {
    "asyncio", "concurrent", "datetime", "multiprocessing", "os", "secrets", "select", "signal", "socket", "ssl",
    "subprocess", "tempfile", "threading", "time", "trio", "uuid",
}  # fmt: skip
OUTSIDE_OF_RUNS = {
    "simulations/play.py": {"time"},
    "simulations/processes.py": {"multiprocessing", "os", "signal"},
    "simulations/revisions.py": {"subprocess"},
}

ENGINE = tuple(f"node/backends/llama_cpp/{name}.py" for name in ("model", "context", "batch", "embedder"))
IN_CHILD = ("child", "worker", "answer", "scheduler", "context", "embedder", "formats", "mailbox", "sampling", "ballot", "tuning")
CHILD = (*(f"node/backends/llama_cpp/{name}.py" for name in IN_CHILD), "tests/node/backends/", "benchmarks/")

# Packages that one place alone may import.
ONLY_IN = {
    "libp2p": ("node/libp2p/", "tests/node/libp2p/", "benchmarks/"),
    "multiaddr": ("node/libp2p/", "tests/node/libp2p/"),
    "llama_cpp": (*ENGINE, "tools/first_words.py", "tests/node/backends/", "benchmarks/"),
    # Load libraries that can end their process: only the child may.
    "node.backends.llama_cpp.model": CHILD,
    "node.backends.llama_cpp.context": CHILD,
    "node.backends.llama_cpp.worker": CHILD,
    "node.backends.llama_cpp.embedder": CHILD,
    "node.backends.llama_cpp.formats": CHILD,
}
BUILTINS_BANNED = {
    "breakpoint",
    "eval",
    "exec",
    "hash",
    "id",
    "input",
    "open",
    "print",
    "__import__",
}  # hash: salted per run.

# Folders of a machine where somebody works; a text that names one works nowhere else.
MACHINE_PATH = re.compile(r"(?<![\w.~-])/(?:root|work|home/[a-z]\w*|Users/\w+)/|[A-Z]:\\+Users\\")


@dataclass(frozen=True, slots=True)
class Source:
    """One Python file: its path from the project's root, and its text."""

    path: str
    text: str

    @property
    def folder(self) -> str:
        return PurePosixPath(self.path).parts[0] if "/" in self.path else ""


def violations(source: Source, sets: "SetNames | None" = None) -> list[str]:
    """Every rule that this file breaks, as `path:line: sentence`. `sets`: what is a set elsewhere in its folder."""
    tree = ast.parse(source.text, source.path)
    found = [*_shape(source, tree), *_arrows(source, tree)]
    if source.folder in PURE_OUTSIDE:
        found += _purity(tree)
    if source.folder in {*PURE_OUTSIDE, "simulations"}:
        found += _set_order(tree, sets or SetNames())
    return [f"{source.path}:{line}: {sentence}" for line, sentence in sorted(set(found))]


Found = Iterator[tuple[int, str]]


def _shape(source: Source, tree: ast.Module) -> Found:
    path = PurePosixPath(source.path)
    for name in (*path.parts[:-1], path.stem):
        if name in NAMES_BANNED:
            yield 1, f"`{name}` says nothing of what is inside"
    lines = source.text.count("\n")
    if lines > LINES_MAX:
        yield lines, f"{lines} lines: this file wants to be two"
    purpose = (ast.get_docstring(tree) or "").partition("\n")[0]
    if not purpose:
        yield 1, "no sentence at the top that says what this file is for"
    elif purpose[-1] not in ".:?":
        yield 1, "the first line is not a sentence"


def _imports(tree: ast.Module) -> Iterator[tuple[int, str, str]]:
    """Line, module and name (empty for `import module`)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from ((node.lineno, module, alias.name) for alias in node.names)


def _arrows(source: Source, tree: ast.Module) -> Found:
    for line, module, name in _imports(tree):
        top = module.partition(".")[0]
        whole = f"{module}.{name}" if name else module
        if module.startswith("."):
            yield line, "a relative import hides which folder it crosses into"
        elif top in OURS and source.folder in ARROWS and top not in ARROWS[source.folder]:
            yield line, f"{source.folder}/ imports {top}/, against the arrows"
        for guarded, places in ONLY_IN.items():
            inside = any(module_ == guarded or module_.startswith(f"{guarded}.") for module_ in (module, whole))
            if inside and not source.path.startswith(places):
                yield line, f"only {places[0]} may import {guarded}"
        if source.folder == "simulations" and top in WORLDLY - OUTSIDE_OF_RUNS.get(source.path, set()):
            yield line, f"a simulation that knows {top} is not decided by its seed"
        if source.folder == "simulations" and top == "random" and name != "Random":
            yield line, "dice are handed in: only `from random import Random`"
        yield from ((line, sentence) for sentence in _part_arrows(source.path, module))


def _part_arrows(path: str, module: str) -> Iterator[str]:
    here, there = PurePosixPath(path).parts, module.split(".")
    if here[0] != "swarm" or there[0] != "swarm" or len(there) < 2:
        return
    part = here[1] if here[1] in PARTS else ""
    if part and there[1] in PARTS.keys() - PARTS[part]:
        yield f"{part}/ holds {there[1]}/: member.py joins them"
    if there[1] == "member" and here[1:] != ("__init__.py",):
        yield "the parts do not know the member"
    if not part and here[-1] not in ("member.py", "snapshot.py") and there[1] in PARTS:
        yield f"a leaf that knows {there[1]}/ is none"


def _purity(tree: ast.Module) -> Found:
    for line, module, name in _imports(tree):
        top = module.partition(".")[0]
        allowed = PURE | set().union(*PURE_OUTSIDE.values()) | OURS
        if top not in allowed:
            yield line, f"{top} does not belong into the pure folders"
        elif top in PURE_NAMES and not {name, *module.split(".")[1:]} & PURE_NAMES[top]:
            yield line, f"of {top} only {', '.join(sorted(PURE_NAMES[top]))}"
    for node in ast.walk(tree):
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
            yield node.lineno, "nothing waits here"
        elif isinstance(node, ast.Global):
            yield node.lineno, "state outside of every object"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in BUILTINS_BANNED:
            yield node.lineno, f"{node.func.id}() reaches outside, or differs from run to run"
        elif isinstance(node, ast.Call) and _dotted(node.func) == "Random" and not node.args:
            yield node.lineno, "dice without a seed"


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    return f"{_dotted(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else ""


# --- Sets: they may be asked and counted, never walked, since their order differs from run to run. -------------------

SET_TYPES = {"set", "frozenset", "Set", "FrozenSet", "AbstractSet", "MutableSet"}
SET_METHODS = {"union", "intersection", "difference", "symmetric_difference"}
ORDER_FREE = {"all", "any", "frozenset", "len", "set", "sorted", "sum"}  # min and max break ties by order.
WALKERS = {
    "dict.fromkeys",
    "enumerate",
    "filter",
    "iter",
    "list",
    "map",
    "max",
    "min",
    "next",
    "reversed",
    "tuple",
    "zip",
}


@dataclass(slots=True)
class SetNames:
    """Names that hold sets: fields and attributes, and functions that return one."""

    attributes: set[str] = field(default_factory=set)
    functions: set[str] = field(default_factory=set)

    def learn(self, text: str) -> None:
        """Collect what this file declares to be a set."""
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and node.returns is not None and _set_type(node.returns):
                self.functions.add(node.name)
            elif isinstance(node, ast.ClassDef):
                fields = [row for row in node.body if isinstance(row, ast.AnnAssign) and _set_type(row.annotation)]
                self.attributes.update(row.target.id for row in fields if isinstance(row.target, ast.Name))
            elif (
                isinstance(node, ast.AnnAssign)
                and isinstance(node.target, ast.Attribute)
                and _set_type(node.annotation)
            ):
                self.attributes.add(node.target.attr)
            elif isinstance(node, ast.Assign) and _SetScope(SetNames(), set()).is_set(node.value):
                self.attributes.update(target.attr for target in node.targets if isinstance(target, ast.Attribute))


def _set_type(annotation: ast.expr) -> bool:
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        annotation = ast.parse(annotation.value, mode="eval").body
    if isinstance(annotation, ast.BinOp):
        return _set_type(annotation.left) or _set_type(annotation.right)
    if isinstance(annotation, ast.Subscript):
        if _dotted(annotation.value).rpartition(".")[2] in {"Final", "Annotated", "ClassVar"}:
            inner = annotation.slice
            return _set_type(inner.elts[0] if isinstance(inner, ast.Tuple) else inner)
        annotation = annotation.value
    return _dotted(annotation).rpartition(".")[2] in SET_TYPES


@dataclass(frozen=True, slots=True)
class _SetScope:
    """What is known to be a set at one place: declared names, and the variables of the function."""

    declared: SetNames
    variables: set[str]

    def is_set(self, node: ast.expr) -> bool:
        if isinstance(node, ast.Set | ast.SetComp):
            return True
        if isinstance(node, ast.Name):
            return node.id in self.variables
        if isinstance(node, ast.Attribute):
            return node.attr in self.declared.attributes
        if isinstance(node, ast.IfExp):
            return self.is_set(node.body) or self.is_set(node.orelse)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr | ast.BitAnd | ast.Sub | ast.BitXor):
            return any(self.is_set(side) or _is_view(side) for side in (node.left, node.right))
        if isinstance(node, ast.Call):
            name = _dotted(node.func).rpartition(".")[2]
            method = isinstance(node.func, ast.Attribute)
            return name in self.declared.functions or (name in SET_METHODS if method else name in {"set", "frozenset"})
        return False


def _is_view(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in {"keys", "items"}


def _set_order(tree: ast.Module, declared: SetNames) -> Found:
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.Lambda)]
    inside = {id(child) for function in functions for child in ast.walk(function) if child is not function}
    outside = [node for node in ast.walk(tree) if id(node) not in inside]
    for scope in (outside, *(list(ast.walk(function)) for function in functions)):
        known = _SetScope(declared, _set_variables(scope, declared))
        yield from {(line, "a set is walked here; its order differs from run to run") for line in _walks(scope, known)}


def _set_variables(scope: list[ast.AST], declared: SetNames) -> set[str]:
    variables: set[str] = set()
    for _ in range(2):  # Twice, for a name that is made from another.
        known = _SetScope(declared, variables)
        for node in scope:
            if isinstance(node, ast.arg) and node.annotation is not None and _set_type(node.annotation):
                variables.add(node.arg)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and _set_type(node.annotation):
                variables.add(node.target.id)
            elif isinstance(node, ast.Assign) and known.is_set(node.value):
                variables.update(target.id for target in node.targets if isinstance(target, ast.Name))
            elif isinstance(node, ast.NamedExpr) and known.is_set(node.value):
                variables.add(node.target.id)
    return variables


def _walks(scope: list[ast.AST], known: _SetScope) -> Iterator[int]:
    harmless = {
        id(argument)
        for node in scope
        if isinstance(node, ast.Call) and _dotted(node.func) in ORDER_FREE
        for argument in node.args
        if isinstance(argument, ast.GeneratorExp | ast.ListComp)
    }
    for node in scope:
        if isinstance(node, ast.For) and known.is_set(node.iter):
            yield node.lineno
        elif isinstance(node, ast.ListComp | ast.DictComp | ast.GeneratorExp) and id(node) not in harmless:
            yield from (node.lineno for generator in node.generators if known.is_set(generator.iter))
        elif isinstance(node, ast.Starred | ast.YieldFrom) and known.is_set(node.value):
            yield node.lineno
        elif isinstance(node, ast.Call):
            walks = _dotted(node.func) in WALKERS or (
                isinstance(node.func, ast.Attribute) and node.func.attr in {"join", "extend"}
            )
            if walks and any(known.is_set(argument) for argument in node.args):
                yield node.lineno
            if (
                isinstance(node.func, ast.Attribute)
                and node.func.attr == "pop"
                and not node.args
                and known.is_set(node.func.value)
            ):
                yield node.lineno
