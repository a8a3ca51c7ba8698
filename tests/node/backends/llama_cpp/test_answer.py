"""What the tokens of an answer say, from its beginning or from where another worker has stopped."""

from pathlib import Path

import pytest

from node.backends import BackendError
from node.backends.llama_cpp import pipe
from node.backends.llama_cpp.answer import Answer
from node.backends.llama_cpp.functions import MISTRAL, CallFilter
from node.backends.llama_cpp.model import Model
from tests.node.backends.llama_cpp.gguf_files import small_model
from tests.node.backends.llama_cpp.spm_files import spm_vocabulary

GIVEN = "The extraordinary starlings' murmuration happens é every 🐦 evening."


@pytest.fixture(scope="module")
def model(smollm2: Path) -> Model:
    return Model(smollm2)


def request(**more: object) -> pipe.Generate:
    return pipe.Generate(1, "chat", [["user", "Hi"]], 99, **more)  # type: ignore[arg-type]


def said(model: Model, **more: object) -> str:
    """What an answer that is given from outside says after what was delivered."""
    answer = Answer(model, request(**more), model.bytes_of)
    begun = answer.begun()
    return begun + "".join(answer.add(token, model.bytes_of(token)) for token in answer.forced()) + answer.flush()


@pytest.mark.parametrize("cut", range(len(GIVEN)))
def test_a_given_answer_goes_on_wherever_it_was_cut(model: Model, cut: int) -> None:
    """Also within a word that is one token in the whole, and two in its parts."""
    assert GIVEN[:cut] + said(model, delivered=GIVEN[:cut], forced=GIVEN) == GIVEN
    tokens = model.tokenize_plain(GIVEN)
    assert GIVEN[:cut] + said(model, delivered=GIVEN[:cut], forced=GIVEN, forced_tokens=tokens) == GIVEN


def test_what_was_delivered_of_another_answer_is_refused(model: Model) -> None:
    with pytest.raises(BackendError, match="not the one that is given"):
        said(model, delivered="Other", forced=GIVEN)


def test_tokens_behind_the_end_of_an_answer_are_not_its_own(model: Model) -> None:
    first, *others = model.tokenize_plain("The birds")
    answer = Answer(model, request(forced="The birds", forced_tokens=[first, model.ends[0], *others]), model.bytes_of)
    assert answer.forced() == [first, *others]


def test_given_tokens_are_of_no_use_if_they_say_more_than_is_given(model: Model) -> None:
    tokens = model.tokenize_plain("Hello world")
    answer = Answer(model, request(forced="Hello", forced_tokens=tokens), model.bytes_of)
    assert b"".join(map(model.bytes_of, answer.forced())) == b"Hello"


def test_a_text_that_nothing_stands_before_is_read_as_a_prompt_is(tmp_path: Path) -> None:
    """Or its likelihood would be of other tokens than those that a prompt of these words has."""
    model = Model(small_model(tmp_path / "spm.gguf", None, **spm_vocabulary()))
    alone = pipe.Generate(1, "complete", [["user", ""]], 1, forced="hello</s>")
    assert [*model.tokenize(""), *Answer(model, alone, model.bytes_of).forced()] == model.tokenize("hello</s>")
    after = pipe.Generate(1, "complete", [["user", "hello"]], 1, forced=" you")
    assert Answer(model, after, model.bytes_of).forced() == model.tokenize_rest(" you")


def test_a_mark_that_says_nothing_is_known_again_when_another_goes_on() -> None:
    """As [TOOL_CALLS], which is a token of its own."""
    texts = {1: b"Sure", 2: b". ", 3: b"[TOOL_CALLS]", 4: b'[{"name": "f", "argu', 5: b'ments": {}}]'}

    class Marked:
        def is_end(self, token: int) -> bool:
            return False

    asked = request(tools="[]", delivered="Sure.", delivered_tokens=[1, 2, 3])
    answer = Answer(Marked(), asked, texts.__getitem__)  # type: ignore[arg-type]
    calls = CallFilter(MISTRAL, begun=True)
    shown = calls.push(answer.begun()) + "".join(calls.push(answer.add(token, texts[token])) for token in (4, 5))
    assert (shown.strip(), calls.end()) == ("", ("", [["f", "{}"]]))


@pytest.mark.parametrize("text", ["hello you", " hello", "\nhello", "é", ""])
def test_a_vocabulary_that_puts_a_space_before_everything_puts_none_within_an_answer(text: str, tmp_path: Path) -> None:
    model = Model(small_model(tmp_path / "spm.gguf", None, **spm_vocabulary()))
    assert model.bytes_of(model.tokenize_plain("a")[0]) == b" ", "or this shows nothing"
    assert b"".join(map(model.bytes_of, model.tokenize_rest(text))).decode() == text
