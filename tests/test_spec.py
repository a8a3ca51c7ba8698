"""SPEC.md tells the truth: its tables are the registries', and each of its rules is named by a test."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.specification import SPEC, with_tables

TESTS = Path(__file__).parent
ROOT = TESTS.parent
RULE = re.compile(r"\[([A-Z]{3}-\d+)\]")


def text() -> str:
    return SPEC.read_text(encoding="utf-8")


def rules() -> list[str]:
    """The number of every rule, in the order of the document."""
    return re.findall(r"^- \*\*\[([A-Z]{3}-\d+)\]\*\*", text(), re.MULTILINE)


@cache
def cited() -> dict[str, list[str]]:
    """Which tests name a rule in their docstrings."""
    found: dict[str, list[str]] = {}
    for path in sorted(TESTS.rglob("*.py")):
        for name, docstring in _docstrings(ast.parse(path.read_text(encoding="utf-8"))):
            for rule in RULE.findall(docstring):
                found.setdefault(rule, []).append(f"{path.relative_to(ROOT)}::{name}")
    return found


def _docstrings(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        is_test = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
        is_machine = isinstance(node, ast.ClassDef) and node.name.endswith("Machine")
        if is_test or is_machine:
            yield node.name, ast.get_docstring(node) or ""  # type: ignore[arg-type, attr-defined]


def test_the_tables_are_those_of_the_registries(request: pytest.FixtureRequest) -> None:
    """[MSG-1] [EXC-1] [ERR-2] [LIM-1] Messages, the order of an attempt, codes and limits; --rewrite writes them."""
    wanted = with_tables(text())
    if request.config.getoption("--rewrite", default=False):
        SPEC.write_text(wanted, encoding="utf-8")
    assert text() == wanted, "SPEC.md differs from protocol/; if the code is right, use --rewrite"


def test_every_rule_is_named_by_a_test() -> None:
    missing = [rule for rule in rules() if rule not in cited()]
    assert rules()
    assert not missing, f"no test names {', '.join(missing)}"


def test_every_rule_that_a_test_names_exists() -> None:
    known = rules()
    unknown = {rule: tests for rule, tests in cited().items() if rule not in known}
    assert not unknown


def test_rules_are_numbered_once_and_without_gaps() -> None:
    groups: dict[str, list[int]] = {}
    for rule in rules():
        group, number = rule.split("-")
        groups.setdefault(group, []).append(int(number))
    assert {group: sorted(numbers) for group, numbers in groups.items()} == {
        group: list(range(1, len(numbers) + 1)) for group, numbers in groups.items()
    }


def test_every_must_stands_in_a_numbered_rule() -> None:
    """A demand that nothing tests is a wish; it is worded as one."""
    body = text().split("## 3. Identity")[1]
    paragraphs = re.split(r"\n\s*\n|\n(?=- )", re.sub(r"^```.*?^```", "", body, flags=re.DOTALL | re.MULTILINE))
    loose = [part.strip() for part in paragraphs if re.search(r"\bMUST\b", part) and not part.startswith("- **[")]
    assert not loose


def test_references_lead_somewhere() -> None:
    """Sections, rules, files and tables that the document speaks of."""
    sections = [int(number) for number in re.findall(r"^## (\d+)\.", text(), re.MULTILINE)]
    assert sections == list(range(1, len(sections) + 1))
    assert all(int(number) in sections for number in re.findall(r"sections? (\d+)", text()))
    groups = {rule.split("-")[0] for rule in rules()}
    assert {rule for rule in re.findall(r"\b[A-Z]{3}-\d+\b", text()) if rule.split("-")[0] in groups} == {*rules()}
    for name in re.findall(r"`(tests/[\w./]+)`", text()):
        assert (ROOT / name).exists(), name
    files = re.findall(r"^\| `(\w+\.json)` \|", text(), re.MULTILINE)
    assert sorted(files) == sorted(path.name for path in (TESTS / "vectors").glob("*.json"))


def test_the_kinds_of_offences_are_those_that_the_code_makes() -> None:
    """[ERR-3] No more and no fewer."""
    table = text().split("### Offences on a link")[1].split("## 17.")[0]
    told = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    source = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "protocol").glob("*.py")))
    made = re.findall(r'RemoteProtocolError\(\s*"(\w+)"', source)
    assert sorted(told) == sorted({*made})


def test_identifiers_in_the_text_are_those_of_the_code() -> None:
    """[ENV-3] [SWM-1] [DHT-1] Domains and protocol ids."""
    from node.libp2p import dht_mends, transport
    from protocol import envelope, genesis
    from swarm.finding import regions

    for domain in (envelope.DOMAIN, genesis.DOMAIN, regions.DOMAIN):
        assert f'"{domain.decode().removesuffix(chr(0))}\\0"' in text()
    for protocol_id in (transport.WIRE, dht_mends.KAD):
        assert f"`{protocol_id}`" in text()
