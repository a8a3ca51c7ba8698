"""Real nodes, and networks of namespaces to put them in."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.networks import Network, network
from tests.processes import Starter, real_nodes


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Starter]:
    """Starts nodes in this test's folder, and ends them after it."""
    with real_nodes(tmp_path) as starter:
        yield starter


@pytest.fixture
def net() -> Iterator[Network]:
    with network() as made:
        yield made
