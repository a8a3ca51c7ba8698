"""Bytes are estimated where messages never become bytes, as they are counted where they do."""

import pytest

from protocol.messages import Ping, TaskPiece
from simulations.play import play
from simulations.sizes import Sizes
from tests.simulations.small import scenario


def test_what_is_estimated_is_what_the_wire_takes() -> None:
    told = {wired: play(scenario(wired=wired), 1) for wired in (False, True)}
    each = {wired: report.figures["bytes_per_member_s"] / report.figures["messages_per_member_s"] for wired, report in told.items()}
    assert each[False] == pytest.approx(each[True], rel=0.1), "greetings are counted in one of them alone"


def test_a_longer_text_takes_more() -> None:
    sizes = Sizes(bytes(32))
    short, long = (sizes.of(TaskPiece(bytes(16), 0, "x" * length)) for length in (10, 110))
    assert long - short == 101, "and one more to say how long it is"
    assert sizes.of(Ping(1)) < short


def test_each_kind_and_size_is_encoded_once() -> None:
    sizes = Sizes(bytes(32))
    assert sizes.of(Ping(1)) == sizes.of(Ping(2))
    assert len(sizes._known) == 1
