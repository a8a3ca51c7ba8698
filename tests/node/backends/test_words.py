"""Splitting into words loses nothing."""

from hypothesis import given
from hypothesis import strategies as st

from node.backends.words import split_words


@given(st.text(" a\n\té", max_size=30))
def test_words_joined_are_the_text(text: str) -> None:
    words = split_words(text)
    assert "".join(words) == (text if text.strip() else "")
    assert len(words) == len(text.split())
