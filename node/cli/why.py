"""The account of one task after its answer: who answered, how fast, who was tried before, and how they were chosen."""

from node.cli.tables import route_text
from node.cli.terminal import duration, plain
from node.views import AnswerView, AttemptView

BEGUN = {
    "hedge": ", asked as well because the first was slower than usual,",
    "silence": ", asked as well because the first gave no sign of life,",
    "moved": ", which had less to do,",
    "resume": ", which went on in the middle,",
}
"""Why there was one more attempt, where that is not plain from the one before."""


def why_text(answer: AnswerView) -> str:
    """Some lines for people."""
    lines = [headline(answer)]
    if len(answer.attempts) > 1 or answer.code:
        lines += [attempt_text(attempt) for attempt in answer.attempts]
    return "\n".join([*lines, *(route_text(route) for route in answer.routes)])


def headline(answer: AnswerView) -> str:
    """Who answered and how fast, on one line."""
    facts = [f"{plain(answer.name)} ({plain(answer.model)})" if answer.name else "nobody answered"]
    facts.append(duration(answer.seconds))
    if answer.first_piece_s is not None:
        facts.append(f"first text after {duration(answer.first_piece_s)}")
        spent = answer.seconds - answer.first_piece_s
        if answer.tokens_out > 1 and spent > 0:
            facts.append(f"{(answer.tokens_out - 1) / spent:.0f} tok/s")
    facts.append(f"{answer.tokens_in} tokens in, {answer.tokens_out} out")
    if answer.finish == "length":
        facts.append("cut at the longest answer")
    return f"— {' · '.join(facts)} · task {plain(answer.task)}"


def attempt_text(attempt: AttemptView) -> str:
    """How one attempt went, on one line."""
    ended = "answered" if not attempt.code else f"{plain(attempt.code)}: {plain(attempt.reason)}"
    begun = BEGUN.get(attempt.why, "")
    return f"  {plain(attempt.name)} ({plain(attempt.model)}){begun} after {duration(attempt.seconds)}: {ended}"
