"""Formats are made of a vocabulary beside the first answers; one that they cannot be made of spoils nothing else."""

from threading import Event

import pytest

from node.backends.llama_cpp import formats
from node.backends.llama_cpp.formats import FormatRefused, Formats
from node.backends.llama_cpp.model import Model
from tests.node.backends.llama_cpp.gguf_files import small_model

YES_OR_NO = 'root ::= "yes" | "no"'


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model(small_model(tmp_path_factory.mktemp("model") / "small.gguf", None))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Of llguidance's use of llama_cpp.
def test_who_needs_a_format_waits_for_it_and_nobody_else(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    waited, make = Event(), formats.lltokenizer_from_vocab

    def make_when_waited_for(*given: object, **more: object) -> object:
        assert waited.wait(60)
        return make(*given, **more)

    monkeypatch.setattr(formats, "lltokenizer_from_vocab", make_when_waited_for)
    late = Formats(model)
    waited.set()
    allowed = late.format("", YES_OR_NO, []).allowed()
    assert {token for token in model.tokenize_plain("yes")[:1] + model.tokenize_plain("no")[:1] if allowed[token]}
    assert not allowed[model.tokenize_plain("maybe")[0]]


def test_a_vocabulary_that_formats_cannot_be_made_of_is_told(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*given: object, **more: object) -> object:
        raise ValueError("token 7 is empty\nand more")

    monkeypatch.setattr(formats, "lltokenizer_from_vocab", fail)
    broken = Formats(model)
    for _ in range(2):
        with pytest.raises(FormatRefused) as refused:
            broken.format("", YES_OR_NO, [])
        assert str(refused.value) == "no grammar can be used with this model's vocabulary: token 7 is empty"
