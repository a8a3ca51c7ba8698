"""The account of a task says why there was one more attempt."""

import pytest

from node.cli.why import why_text
from node.views import AnswerView, AttemptView


def account(why: str) -> str:
    attempts = [
        AttemptView("12D3A", "wren", "smollm2", "connection_lost", "reset", 1.6),
        AttemptView("12D3B", "heron", "smollm2", "", "", 1.4, why),
    ]
    answer = AnswerView("7f21", "chat", "", "", "12D3B", "heron", "smollm2", "stop", 9, 20, 0.1, 3.0, attempts, [])
    return why_text(answer).splitlines()[2]


@pytest.mark.parametrize(
    ("why", "told"),
    [
        ("retry", "  heron (smollm2) after 1.4 s: answered"),
        ("resume", "  heron (smollm2), which went on in the middle, after 1.4 s: answered"),
        ("hedge", "  heron (smollm2), asked as well because the first was slower than usual, after 1.4 s: answered"),
        ("silence", "  heron (smollm2), asked as well because the first gave no sign of life, after 1.4 s: answered"),
    ],
)
def test_an_attempt_tells_why_it_was_begun(why: str, told: str) -> None:
    assert account(why) == told
