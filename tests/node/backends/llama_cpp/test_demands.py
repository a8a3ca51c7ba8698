"""What a request may demand: formats, options, given answers, log-probabilities, with a real model."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trio

from node.backends import BackendError, GenerationRequest, Surroundings
from node.backends.contract import Answer, ask, running
from node.backends.llama_cpp.backend import LlamaCppBackend
from protocol.parts import Demands, Logprob, Sampling, Turn

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "birds": {"type": "array", "items": {"enum": ["starling", "wren"]}, "minItems": 1, "maxItems": 2},
    },
    "required": ["name", "age", "birds"],
    "additionalProperties": False,
}
STORY = GenerationRequest("chat", "smollm2", (Turn("user", "Tell me about a bird watcher."),), 64, Sampling(seed=1))


@pytest.fixture
async def model(smollm2: Path, surroundings: Surroundings) -> AsyncIterator[LlamaCppBackend]:
    async with running(backend := LlamaCppBackend(f"smollm2={smollm2}", surroundings)):
        yield backend


def demanding(request: GenerationRequest = STORY, /, **demands: object) -> GenerationRequest:
    return replace(request, demands=Demands(**demands))  # type: ignore[arg-type]


def told(answer: Answer) -> list[Logprob]:
    return [logprob for piece in answer.pieces for logprob in piece.logprobs]


async def together(backend: LlamaCppBackend, requests: list[GenerationRequest]) -> list[Answer]:
    answers: dict[int, Answer] = {}

    async def one(number: int) -> None:
        answers[number] = await ask(backend, requests[number])

    async with trio.open_nursery() as nursery:
        for number in range(len(requests)):
            nursery.start_soon(one, number)
    return [answers[number] for number in range(len(requests))]


async def test_an_answer_is_of_its_schema_however_hot(model: LlamaCppBackend) -> None:
    for sampling in (Sampling(), Sampling(0.8, seed=1), Sampling(1.5, seed=2), Sampling(2.0, min_p=0.0, top_k=0, seed=3)):
        answer = await ask(model, replace(demanding(schema=json.dumps(PERSON)), sampling=sampling))
        person = json.loads(answer.text)
        assert set(person) == {"name", "age", "birds"}
        assert 0 <= person["age"] <= 120
        assert set(person["birds"]) <= {"starling", "wren"}
        assert answer.generated.finish == "stop"


async def test_a_format_that_is_cut_off_says_so(model: LlamaCppBackend) -> None:
    answer = await ask(model, replace(demanding(schema=json.dumps(PERSON)), tokens_max=4))
    assert answer.text.startswith('{"name')
    assert (answer.generated.finish, answer.generated.tokens_out) == ("length", 4)


async def test_a_format_goes_on_in_the_middle_as_it_would_have(model: LlamaCppBackend) -> None:
    asked = replace(demanding(schema=json.dumps(PERSON)), sampling=Sampling(1.0, seed=5))
    whole = await ask(model, asked)
    for count in range(1, len(whole.pieces)):
        text = "".join(piece.text for piece in whole.pieces[:count])
        tokens = tuple(token for piece in whole.pieces[:count] for token in piece.tokens)
        rest = await ask(model, replace(asked, delivered=text, delivered_tokens=tokens))
        assert text + rest.text == whole.text
    elsewhere = replace(asked, delivered="Once upon a time")
    with pytest.raises(BackendError, match="delivered is not of this schema"):
        await ask(model, elsewhere)


async def test_what_cannot_be_met_is_refused_in_words(model: LlamaCppBackend) -> None:
    bad: list[tuple[dict[str, object], str]] = [
        ({"schema": "{"}, "the schema cannot be read"),
        ({"schema": '{"type": "bird"}'}, "the schema cannot be used: Invalid type"),
        ({"schema": '{"$ref": "#/nowhere"}'}, "the schema cannot be used"),
        ({"schema": '{"type": "string", "pattern": "(["}'}, "the schema cannot be used: .*unclosed"),
        ({"schema": '{"$ref": "#"}'}, "no way on"),
        ({"grammar": "root ::= root"}, "no way on"),
        ({"grammar": 'root ::= "a" root'}, "no way on"),
        ({"schema": "[" * 8_000}, "the schema"),
        ({"grammar": "root ::= ("}, "the grammar cannot be read"),
        ({"grammar": "tree ::= [x]"}, "the grammar cannot be read: No 'root' rule"),
        ({"grammar": "root ::= " + "(" * 4_000 + '"a"' + ")" * 4_000}, "the grammar is nested too deeply"),
        ({"options": ["", "a"]}, "an option has no text"),
        ({"options": ["a " * 4_090]}, "with an option it has"),
        ({"forced": "a " * 4_090}, "with the answer it has"),
    ]
    for demands, complaint in bad:
        with pytest.raises(BackendError, match=complaint) as caught:
            await ask(model, demanding(**demands))
        assert not caught.value.retryable
    assert (await ask(model, replace(STORY, tokens_max=2))).text, "others are not affected"


async def test_a_grammar_that_has_no_way_on_fails_alone(model: LlamaCppBackend) -> None:
    good, bad = await together(model, [replace(STORY, tokens_max=8), demanding(grammar='root ::= "yes" | "no"')])
    assert bad.text in ("yes", "no")
    pid = model.pid
    with pytest.raises(BackendError, match="the answer's format has no way on"):
        await ask(model, demanding(schema='{"$ref": "#"}'))
    assert model.pid == pid, "its process lives"
    assert (await ask(model, replace(STORY, tokens_max=8))).text == good.text


async def test_all_kinds_at_once_answer_as_they_do_alone(model: LlamaCppBackend) -> None:
    text = (await ask(model, STORY)).text
    requests = [
        STORY,
        demanding(schema=json.dumps(PERSON)),
        demanding(options=("wren", "starling", "a flock of starlings", "a flock of wrens")),
        demanding(forced=text, logprobs=2),
        replace(demanding(logprobs=5), sampling=Sampling(0.8, repeat_penalty=1.2, frequency_penalty=0.5, seed=3)),
        demanding(grammar='root ::= [a-z]+ " " [a-z]+ "."'),
    ]
    alone = [await ask(model, request) for request in requests]
    for request, one, other in zip(requests, alone, await together(model, requests), strict=True):
        assert (one.text, one.tokens, told(one), one.generated) == (other.text, other.tokens, told(other), other.generated), request


async def test_an_answer_that_is_given_is_as_likely_as_when_it_was_drawn(model: LlamaCppBackend) -> None:
    """Drawn token by token, and read in one go: the same bits."""
    asked = replace(demanding(logprobs=4), sampling=Sampling(0.9, seed=2), tokens_max=100)
    drawn = await ask(model, asked)
    forced = await ask(model, replace(demanding(forced=drawn.text, forced_tokens=drawn.tokens, logprobs=4), tokens_max=0))
    assert told(forced) == told(drawn)
    assert (forced.text, forced.generated.finish, forced.generated.tokens_out) == (drawn.text, "stop", len(drawn.tokens))
    shares = np.exp([each.logprob for each in told(drawn)[0].top])
    assert 0 < shares.sum() <= 1


async def test_what_is_told_of_a_token_is_what_the_model_alone_thinks(model: LlamaCppBackend) -> None:
    """Before temperature, penalties and formats act."""
    plain = told(await ask(model, replace(demanding(logprobs=4), tokens_max=1)))[0]
    strange = replace(demanding(logprobs=4, grammar='root ::= "zebra"'), tokens_max=1)
    bent = told(await ask(model, replace(strange, sampling=Sampling(2.0, repeat_penalty=3.0, seed=1))))[0]
    assert bent.top == plain.top
    assert bent.logprob < plain.top[-1].logprob


async def test_the_likeliest_option_is_chosen_and_all_are_told(model: LlamaCppBackend) -> None:
    request = replace(STORY, skill="complete", turns=(Turn("user", "The capital of France is"),))
    answer = await ask(model, demanding(request, options=(" Berlin", " Paris", " New York City", " London")))
    [choice] = told(answer)
    assert answer.text == " Paris"
    assert [other.data for other in choice.top] == sorted(
        (other.data for other in choice.top), key=lambda data: -dict((o.data, o.logprob) for o in choice.top)[data]
    )
    forced = await ask(model, demanding(request, forced=" New York City", logprobs=1))
    [option] = [other for other in choice.top if other.data == b" New York City"]
    assert option.logprob == pytest.approx(sum(each.logprob for each in told(forced)), abs=1e-9)


async def test_penalties_keep_a_model_from_repeating_itself(model: LlamaCppBackend) -> None:
    request = replace(STORY, skill="complete", turns=(Turn("user", "a bird, a bird, a bird, a bird, a"),), tokens_max=24)
    plain = (await ask(model, request)).text
    assert plain.count("bird") > 5
    for sampling in (Sampling(repeat_penalty=1.5), Sampling(frequency_penalty=2.0), Sampling(presence_penalty=2.0)):
        bent = (await ask(model, replace(request, sampling=sampling))).text
        assert bent.count("bird") < plain.count("bird"), sampling
