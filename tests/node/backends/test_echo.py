"""The echo keeps the contract, and its options do what they say."""

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from node.backends import BackendError, GenerationRequest, Surroundings
from node.backends.contract import ask, check_backend, running
from node.backends.echo import EchoBackend
from protocol.parts import Sampling, Turn


def echo(argument: str = "") -> EchoBackend:
    return EchoBackend(argument, Surroundings(Path("unused"), 1))


def request(text: str, *, tokens_max: int = 100) -> GenerationRequest:
    return GenerationRequest("chat", "echo", (Turn("user", text),), tokens_max, Sampling(), ())


@pytest.mark.parametrize("argument", ["", "delay_ms=20,slots=1", "words=5,slots=2,first_ms=300"])
async def test_echo_keeps_the_contract(argument: str, autojump_clock: MockClock) -> None:
    await check_backend(lambda: echo(argument))


async def test_words_and_blanks_come_back_as_they_were() -> None:
    async with running(backend := echo()):
        answer = await ask(backend, request(" two  words\n"))
    assert [piece.text for piece in answer.pieces] == [" two", "  words\n"]
    assert (answer.generated.finish, answer.generated.tokens_in, answer.generated.tokens_out) == ("stop", 2, 2)


async def test_answer_has_as_many_words_as_asked() -> None:
    async with running(backend := echo("words=5")):
        assert (await ask(backend, request("one two"))).text == "one twoone twoone"


async def test_delays_pass_on_the_clock_before_each_word(autojump_clock: MockClock) -> None:
    async with running(backend := echo("first_ms=500,delay_ms=100")) as capabilities:
        started = trio.current_time()
        await ask(backend, request("one two three"))
        assert trio.current_time() - started == pytest.approx(0.7)
    assert (capabilities[0].first_token_ms, capabilities[0].tokens_per_second) == (500, 10.0)


async def test_more_calls_than_slots_wait_their_turn(autojump_clock: MockClock) -> None:
    async with running(backend := echo("delay_ms=100,slots=2")):
        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon(ask, backend, request("one"))
        assert trio.current_time() - started == pytest.approx(0.3)


async def test_echo_can_be_told_to_break() -> None:
    async with running(backend := echo("fail_after=1")):
        with pytest.raises(BackendError) as raised:
            await ask(backend, request("one two"))
    assert raised.value.retryable


@pytest.mark.parametrize("argument", ["speed=3", "words", "words=-1", "slots=many", "words=99999999"])
def test_unknown_options_are_named(argument: str) -> None:
    with pytest.raises(BackendError, match=argument.partition("=")[0]):
        echo(argument)
