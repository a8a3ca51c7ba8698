"""How things are written for people, and how the node's JSON is read."""

import json
from dataclasses import asdict

import pytest

from node.cli.client import read_events
from node.cli.reading import read
from node.cli.terminal import duration, plain, short_id, size
from node.exits import Failure
from node.views import AnswerView, StatusView
from tests.node.cli import control_api as canned


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.0421, "42 ms"),
        (0.94, "0.9 s"),
        (41, "41s"),
        (61, "1m 01s"),
        (8040, "2h 14m"),
        (273_600, "3d 4h"),
    ],
)
def test_durations_fit_a_column(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_sizes_and_ids_are_short() -> None:
    assert [size(count) for count in (512, 91_000_000, 14_200_000_000)] == ["512 B", "91.0 MB", "14.2 GB"]
    assert short_id(canned.KESTREL) == "12D3KooW…f9Qc"
    assert short_id("short") == "short"


def test_only_what_is_dangerous_is_taken_out_of_text() -> None:
    assert plain("schöne 隼鳥 👩\u200d🚀") == "schöne 隼鳥 👩\u200d🚀"
    assert plain("a\nb") == "a\ufffdb"
    assert plain("a\n\tb\r\x1b[0m\u202e\x9b", lines=True) == "a\n\tb\ufffd\ufffd[0m\ufffd\ufffd"


@pytest.mark.parametrize("view", [canned.status(), canned.answer(), canned.route(), canned.peers()[1]])
def test_views_are_read_back_as_they_were(view: StatusView) -> None:
    assert read(type(view), json.loads(json.dumps(asdict(view)))) == view


@pytest.mark.parametrize(
    ("field", "value"),
    [("seconds", "soon"), ("tokens_in", 1.5), ("tokens_in", True), ("attempts", {}), ("attempts", [3]), ("name", None)],
)
def test_a_field_of_another_type_is_named_by_its_view(field: str, value: object) -> None:
    with pytest.raises(Failure, match="not a AnswerView"):
        read(AnswerView, asdict(canned.answer()) | {field: value})


def test_events_are_read_as_the_standard_says() -> None:
    stream = b": comment\n\ndata: one\n\nevent: two\ndata: a\ndata:b\nid: 7\n\n\nevent: empty\n\ndata: cr\r\n\r\ndata: cut off\n"
    found = list(read_events(iter(stream.splitlines(keepends=True))))
    assert found == [("message", "one"), ("two", "a\nb"), ("message", "cr")]
