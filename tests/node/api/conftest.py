"""The API on a free port and a Unix socket, for one test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_trio

from tests.node.api.raw_http import Served, served


@pytest_trio.trio_fixture
async def api(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path) as running:
        yield running
