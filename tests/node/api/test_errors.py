"""Every code that the API can say is documented, and every end of a task has a status."""

import re
from pathlib import Path

import node.api
from node.api.errors import API_CODES, failed_task
from protocol.errors import ERROR_CODES

SOURCES = [path.read_text(encoding="utf-8") for path in Path(node.api.__file__).parent.glob("*.py")]


async def test_every_code_that_is_said_is_documented_and_the_other_way_round() -> None:
    said = {code for source in SOURCES for code in re.findall(r'ApiError\(\s*[\w.]+,\s*"(\w+)"', source)}
    own = said - {code.name for code in ERROR_CODES.values()}
    assert own | {"bad_request"} == set(API_CODES)


async def test_no_end_of_a_task_looks_like_a_success() -> None:
    for code in ERROR_CODES.values():
        error = failed_task(code, "", None)
        assert error.status >= 400
        assert (error.code, error.message) == (code.name, code.meaning)
