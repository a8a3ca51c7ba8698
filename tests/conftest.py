"""Options and fixtures for all tests: golden files, rewritten only by --rewrite."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

Golden = Callable[[str, str], None]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite", action="store_true", help="write golden files anew; the commit says why they changed")


def pytest_configure() -> None:
    """Processes that tests start can be interrupted, also where a shell has put the tests into the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    """`golden(name, text)` compares with the file `golden/NAME` beside the test, or writes it under --rewrite."""
    folder = Path(request.path).parent / "golden"

    def compare(name: str, text: str) -> None:
        file = folder / name
        if request.config.getoption("--rewrite"):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        assert file.exists(), f"{file} is missing; write it with --rewrite and read what was written"
        assert text == file.read_text(encoding="utf-8"), f"differs from {file}; if that is meant, use --rewrite"

    return compare
