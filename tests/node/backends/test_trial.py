"""Trying a model: as many at once as it has slots, and figures that add up."""

from pathlib import Path

import pytest

from node.backends import Surroundings
from node.backends.contract import running
from node.backends.references import open_backend
from node.backends.trial import TOKENS, trials


@pytest.mark.parametrize(("slots", "crowds"), [(1, [1]), (3, [1, 2, 3]), (4, [1, 2, 4]), (40, [1, 2, 4, 8, 16])])
async def test_crowds_grow_up_to_the_slots(tmp_path: Path, slots: int, crowds: list[int]) -> None:
    backend = open_backend(f"echo:slots={slots}", Surroundings(tmp_path, 1))
    async with running(backend) as capabilities:
        found = [each async for each in trials(backend, capabilities[0])]
    assert [each.at_once for each in found] == crowds
    assert all(each.tokens_per_second > 0 and each.first_text_s > 0 for each in found)


async def test_what_answers_in_parallel_is_as_many_times_as_fast(tmp_path: Path) -> None:
    backend = open_backend(f"echo:slots=4,delay_ms=20,words={TOKENS}", Surroundings(tmp_path, 1))
    async with running(backend) as capabilities:
        one, _, four = [each async for each in trials(backend, capabilities[0])]
    assert four.tokens_per_second > 2 * one.tokens_per_second
