"""The language classifier keeps the contract, is right about plain prose, and survives any text."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.backends import BackendError, GenerationRequest, Surroundings
from node.backends.contract import ask, check_backend, running
from node.backends.language import MODEL, SKILL, UNKNOWN, LanguageBackend, identify, load, open_language
from node.backends.language_names import COMMON, NAMES
from protocol.parts import Sampling, Turn

MODEL_LOADED, DIGEST = load()
SURROUNDINGS = Surroundings(Path("unused"), 1)


async def test_language_keeps_the_contract() -> None:
    capabilities = await check_backend(lambda: LanguageBackend(SURROUNDINGS))
    assert [(c.skill, c.model, c.digest) for c in capabilities] == [(SKILL, MODEL, DIGEST)]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("O gato dorme na cadeira enquanto a chuva cai lá fora.", "Portuguese (pt), "),
        ("The quick brown fox jumps over the lazy dog.", "English (en), "),
        ("DIE KATZE SCHLÄFT AUF DEM STUHL UND TRÄUMT", "German (de), "),
        ("Le chat dort\nsur la chaise\r\n\x00et rêve.", "French (fr), "),
        ("猫は椅子で寝ています。", "Japanese (ja), "),
        ("Кошка спит на стуле.", "Russian (ru), "),
    ],
)
async def test_the_answer_names_language_code_and_share(text: str, answer: str) -> None:
    async with running(backend := LanguageBackend(SURROUNDINGS)):
        request = GenerationRequest(SKILL, MODEL, (Turn("user", text),), 16, Sampling(), ())
        said = (await ask(backend, request)).text
    assert said.startswith(answer)
    assert 0.5 < float(said.removeprefix(answer)) <= 1.0


@pytest.mark.parametrize("text", ["", " \n", "😀 1234 5678!", "\x00", "x" * 100_000, "\ud800"])
def test_text_without_language_is_unknown(text: str) -> None:
    assert identify(MODEL_LOADED, text) == UNKNOWN


@given(st.text(st.characters(codec=None), max_size=200))
def test_any_text_gets_one_line(text: str) -> None:
    line = identify(MODEL_LOADED, text)
    assert "\n" not in line and line.count(",") == 1


def test_every_label_of_the_model_has_a_name() -> None:
    labels, _ = MODEL_LOADED.predict("a", k=500)
    assert {label.removeprefix("__label__") for label in labels} <= set(NAMES)
    assert set(COMMON) <= set(NAMES)


def test_an_argument_is_refused() -> None:
    with pytest.raises(BackendError):
        open_language("large", SURROUNDINGS)


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    with pytest.raises(BackendError, match="pip install"):
        load()
    assert os.listdir(tmp_path) == []
