"""Stop strings never leave the filter, however the text is cut."""

from hypothesis import given
from hypothesis import strategies as st

from node.backends.stops import StopFilter

LETTERS = st.text("ab\n", max_size=12)


def through(filter_: StopFilter, pieces: list[str]) -> str:
    return "".join([filter_.push(piece) for piece in pieces] + [filter_.flush()])


@given(pieces=st.lists(LETTERS, max_size=8), stops=st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=3))
def test_text_ends_before_the_first_stop_string_wherever_pieces_are_cut(pieces: list[str], stops: list[str]) -> None:
    whole = "".join(pieces)
    ends = [whole.index(stop) for stop in stops if stop in whole]
    # Of stop strings that overlap, the one that is complete first decides; it may have begun later.
    completed = min((whole.index(stop) + len(stop) for stop in stops if stop in whole), default=None)
    filter_ = StopFilter(stops)
    text = through(filter_, list(whole))
    if completed is None:
        assert text == whole and not filter_.stopped
    else:
        assert filter_.stopped
        assert text == whole[: min(whole[:completed].find(s) for s in stops if s in whole[:completed])]
        assert len(text) >= min(ends)
    filter_ = StopFilter(stops)
    assert not any(stop in through(filter_, pieces) for stop in stops)


def test_text_that_cannot_begin_a_stop_string_is_not_held_back() -> None:
    filter_ = StopFilter(["\n\n"])
    assert filter_.push("a line\n") == "a line"
    assert filter_.push("and more") == "\nand more"


def test_what_only_began_like_a_stop_string_comes_out_at_the_end() -> None:
    filter_ = StopFilter(["<end>"])
    assert filter_.push("a<en") == "a"
    assert filter_.flush() == "<en"


def test_empty_stop_strings_stop_nothing() -> None:
    assert through(StopFilter([""]), ["a", "b"]) == "ab"
