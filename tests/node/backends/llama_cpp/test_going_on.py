"""Going on in mid-answer with a real model: cut anywhere, the joined text is that of a single run, byte for byte."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from node.backends import GenerationRequest, Surroundings
from node.backends.contract import Answer, ask, running
from node.backends.llama_cpp.backend import LlamaCppBackend
from protocol.parts import Sampling, Turn

END_OF_TURN = 2  # <|im_end|>
OTHER = "Tell me about the history of bread in two sentences."


@asynccontextmanager
async def model(path: Path, surroundings: Surroundings, threads: int = 1) -> AsyncIterator[LlamaCppBackend]:
    async with running(backend := LlamaCppBackend(str(path), replace(surroundings, threads=threads))):
        yield backend


def wanted(text: str, **changes: object) -> GenerationRequest:
    asked = GenerationRequest("chat", "smollm2", (Turn("user", text),), 40, Sampling(seed=7), ())
    return replace(asked, **changes)  # type: ignore[arg-type]


async def told_in_pieces(backend: LlamaCppBackend, request: GenerationRequest) -> Answer:
    """The whole answer, and one token in each piece: asked for with ever more of its tokens."""
    return await ask(backend, replace(request, model=backend.model))


async def joined(backend: LlamaCppBackend, request: GenerationRequest, text: str, tokens: tuple[int, ...]) -> str:
    rest = await ask(backend, replace(request, model=backend.model, delivered=text, delivered_tokens=tokens))
    return text + rest.text


@pytest.mark.parametrize("temperature", [0.0, 0.8])
async def test_an_answer_cut_after_any_token_goes_on_to_the_same_end(
    smollm2: Path, surroundings: Surroundings, temperature: float
) -> None:
    """Also when the worker that goes on has another conversation in its cache."""
    request = wanted("Why is the sky blue?", sampling=Sampling(temperature, seed=7))
    async with model(smollm2, surroundings) as one:
        whole = await told_in_pieces(one, request)
        for count in range(1, len(whole.tokens), 4):
            begun = await ask(one, replace(request, model=one.model, tokens_max=count))
            if count % 2:
                await ask(one, replace(wanted(OTHER), model=one.model, tokens_max=3))
            assert begun.tokens == whole.tokens[:count]
            # A limit flushes what a death would not have, so the cut may be after half a character.
            assert await joined(one, request, begun.text, begun.tokens) == whole.text


async def test_text_that_is_held_back_is_neither_lost_nor_said_twice(smollm2: Path, surroundings: Surroundings) -> None:
    request = wanted("Count from one to twenty, with commas.", tokens_max=30)
    async with model(smollm2, surroundings) as one:
        plain = await told_in_pieces(one, request)
        stop = plain.text[len(plain.text) // 2 :][:6]
        never = stop[:-1] + "\x00"
        for stops in ((stop,), (never,)):
            asked = replace(request, stops=stops)
            whole = await told_in_pieces(one, asked)
            for count in range(1, len(whole.tokens), 2):
                begun = await ask(one, replace(asked, model=one.model, tokens_max=count))
                # The limit flushes what a death would have held back: the user has all but as much.
                text = begun.text[: max(0, len(begun.text) - len(stop))]
                assert await joined(one, asked, text, whole.tokens[:count]) == whole.text


async def test_characters_of_several_bytes_are_put_together_again(smollm2: Path, surroundings: Surroundings) -> None:
    """The tokens of an emoji are parts of it; cut between them, nothing of it was delivered."""
    async with model(smollm2, surroundings) as one:
        request = wanted("Repeat: 🐦🐦🐦🐦🐦🐦 é 漢字 🐦🐦🐦", tokens_max=40, sampling=Sampling(0.3, seed=7))
        whole = await told_in_pieces(one, request)
        inside = 0
        for count in range(1, len(whole.tokens), 3):
            begun = await ask(one, replace(request, model=one.model, tokens_max=count))
            inside += len(begun.tokens) < count  # The last token has no text of its own yet.
            assert await joined(one, request, begun.text, whole.tokens[:count]) == whole.text
        assert inside, "some cut must be inside of a character"


async def test_without_the_tokens_it_goes_on_from_the_text(smollm2: Path, surroundings: Surroundings) -> None:
    request = wanted("Why is the sky blue?")
    async with model(smollm2, surroundings) as one:
        begun = "The sky is blue because <|im_end|> of"
        rest = await ask(one, replace(request, model=one.model, delivered=begun))
        assert rest.text and not rest.text.startswith("The sky")


async def test_an_answer_that_was_complete_ends_at_once(smollm2: Path, surroundings: Surroundings) -> None:
    request = wanted("Say hello.", tokens_max=12)
    async with model(smollm2, surroundings) as one:
        whole = await told_in_pieces(one, request)
        rest = await ask(
            one, replace(request, model=one.model, delivered=whole.text, delivered_tokens=whole.tokens)
        )
        assert (rest.text, rest.generated.tokens_out) == ("", whole.generated.tokens_out)
        assert rest.generated.finish == whole.generated.finish


@pytest.mark.parametrize(("text", "tokens"), [("Hello", (10_000_000,)), ("", (10_000_000,)), ("Birds are", (1_000, 2_000))])
async def test_tokens_that_do_not_make_the_text_are_left_aside(
    smollm2: Path, surroundings: Surroundings, text: str, tokens: tuple[int, ...]
) -> None:
    """A worker that told nonsense and died must not cost the user the rest of the answer."""
    async with model(smollm2, surroundings) as one:
        from_the_text = await joined(one, wanted("Say hello."), text, ())
        assert await joined(one, wanted("Say hello."), text, tokens) == from_the_text
        assert len(from_the_text) > len(text)


async def test_an_end_among_the_tokens_is_the_end(smollm2: Path, surroundings: Surroundings) -> None:
    async with model(smollm2, surroundings) as one:
        begun = await ask(one, wanted("Why is the sky blue?", model=one.model, tokens_max=5))
        ended = replace(wanted("Why is the sky blue?"), model=one.model, delivered=begun.text)
        rest = await ask(one, replace(ended, delivered_tokens=(*begun.tokens, END_OF_TURN)))
        assert (rest.text, rest.generated.finish, rest.generated.tokens_out) == ("", "stop", 5)
        assert (await ask(one, replace(ended, delivered_tokens=begun.tokens))).text


async def test_two_processes_with_other_numbers_of_threads_compute_the_same(smollm2: Path, surroundings: Surroundings) -> None:
    request = wanted("Why is the sky blue?", tokens_max=30)
    async with model(smollm2, surroundings, threads=1) as one, model(smollm2, surroundings, threads=2) as two:
        whole = await told_in_pieces(one, request)
        for count in range(5, len(whole.tokens), 10):
            begun = await ask(one, replace(request, model=one.model, tokens_max=count))
            assert await joined(two, request, begun.text, begun.tokens) == whole.text
