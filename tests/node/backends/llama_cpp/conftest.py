"""Models on disk and a place for logs, for the tests of this folder."""

from pathlib import Path

import pytest
import trio

from node.backends import Surroundings
from node.backends.contract import running
from node.backends.llama_cpp.backend import LlamaCppBackend
from protocol.parts import Capability
from tests.node.backends.llama_cpp.gguf_files import SMOLLM2, small_model

PLAIN_TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"


@pytest.fixture(scope="session")
def nonsense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of one layer with a chat template."""
    return small_model(tmp_path_factory.mktemp("models") / "nonsense.gguf", PLAIN_TEMPLATE)


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct, as its package brings it."""
    return SMOLLM2


@pytest.fixture(scope="session")
def measured(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Capability, ...]:
    """What SmolLM2 offers here. Measuring its speed takes longer than loading it."""

    async def measure() -> tuple[Capability, ...]:
        async with running(LlamaCppBackend(str(smollm2), Surroundings(tmp_path_factory.mktemp("logs"), 1))) as offered:
            return offered

    return trio.run(measure)


@pytest.fixture
def surroundings(tmp_path: Path, measured: tuple[Capability, ...]) -> Surroundings:
    return Surroundings(tmp_path / "logs", 1, measured=measured)
