"""Models on disk and a place for logs, for the tests of this folder."""

from pathlib import Path

import pytest

from node.backends import Surroundings
from tests.node.backends.llama_cpp.gguf_files import SMOLLM2, small_model

PLAIN_TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"


@pytest.fixture(scope="session")
def nonsense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of one layer with a chat template."""
    return small_model(tmp_path_factory.mktemp("models") / "nonsense.gguf", PLAIN_TEMPLATE)


@pytest.fixture
def surroundings(tmp_path: Path) -> Surroundings:
    return Surroundings(tmp_path / "logs", 1)


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct, as its package brings it."""
    return SMOLLM2
