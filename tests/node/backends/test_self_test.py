"""The self-test measures what answers, and drops what does not."""

from dataclasses import replace
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from node.backends import BackendError, Surroundings
from node.backends.contract import running
from node.backends.echo import EchoBackend
from node.backends.self_test import AFTER_FIRST_S, LONG_TEXT, TOKENS_MAX, measure, measure_each


def echo(argument: str) -> EchoBackend:
    return EchoBackend(argument, Surroundings(Path("unused"), 1))


async def test_speed_is_what_passes_on_the_clock(autojump_clock: MockClock) -> None:
    async with running(backend := echo("first_ms=300,delay_ms=20,words=24")) as capabilities:
        measured = await measure(backend, capabilities[0])
    assert measured.first_token_ms == 300
    assert measured.tokens_per_second == pytest.approx(50.0)


async def test_a_slow_model_is_measured_by_what_it_managed(autojump_clock: MockClock) -> None:
    async with running(backend := echo(f"delay_ms=400,words={TOKENS_MAX}")) as capabilities:
        started = trio.current_time()
        measured = await measure(backend, capabilities[0])
        assert trio.current_time() - started == pytest.approx(0.4 + AFTER_FIRST_S + 0.4)
    assert measured.tokens_per_second == pytest.approx(2.0)  # Four words of which the last three took 1.5 s.
    assert measured.tokens_in_per_second == pytest.approx(len(LONG_TEXT.split()) / 0.4, abs=0.1)


async def test_a_clock_too_coarse_to_measure_still_gives_a_finite_rate(autojump_clock: MockClock) -> None:
    async with running(backend := echo("words=3")) as capabilities:
        assert 0 < (await measure(backend, capabilities[0])).tokens_per_second <= 1e6


async def test_what_fails_is_not_offered_and_what_passes_is(caplog: pytest.LogCaptureFixture) -> None:
    async with running(backend := echo("skills=chat+summarize")) as (chat, summarize):
        backend.options = EchoBackend("skills=chat", Surroundings(Path("unused"), 1)).options
        passed = await measure_each(backend, (summarize, chat))
    assert [capability.skill for capability in passed] == ["chat"]
    assert "echo is not offered with summarize" in caplog.text


@pytest.mark.parametrize("argument", ["words=0", "fail_after=0"])
async def test_a_model_without_text_fails(argument: str) -> None:
    async with running(backend := echo(argument)) as capabilities:
        with pytest.raises(BackendError):
            await measure_each(backend, capabilities)


async def test_reading_is_what_a_long_text_takes_longer(autojump_clock: MockClock) -> None:
    async with running(backend := echo("first_ms=300,delay_ms=20,reads=100,skills=chat+complete")) as capabilities:
        started = trio.current_time()
        measured = await measure_each(backend, [replace(each, tokens_in_per_second=0.0) for each in capabilities])
        once_s = len(LONG_TEXT.split()) / 100
        assert trio.current_time() - started < 2 * (once_s + 0.3 + AFTER_FIRST_S), "a model reads the long text once"
    assert [each.tokens_in_per_second for each in measured] == [pytest.approx(100.0)] * 2


@pytest.mark.parametrize("argument", ["reads=1", "reads=1000000"])
async def test_a_speed_of_reading_that_cannot_be_told_is_none(argument: str, autojump_clock: MockClock) -> None:
    """Too slow, and too fast."""
    async with running(backend := echo(f"{argument},words={TOKENS_MAX}")) as capabilities:
        assert (await measure(backend, capabilities[0])).tokens_in_per_second == 0.0
