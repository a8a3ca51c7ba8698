"""The API on a free port and a Unix socket, for one test, and OpenAI's own client of it."""

from collections.abc import AsyncIterator
from pathlib import Path

import openai
import pytest_trio

from tests.node.api.raw_http import KEY, Served, served


@pytest_trio.trio_fixture
async def api(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path) as running:
        yield running


@pytest_trio.trio_fixture
async def client(api: Served) -> AsyncIterator[openai.AsyncOpenAI]:
    """The asynchronous client on trio, validating strictly."""
    async with openai.AsyncOpenAI(
        base_url=f"{api.url}/v1", api_key=KEY, max_retries=0, timeout=20, _strict_response_validation=True
    ) as made:
        yield made
