"""What a worker would cost a task, held against a dumb version of the formula and against what people expect of it."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.choosing.scoring import PREFIX_SAVES, RTT_UNKNOWN_S, SPEED_UNKNOWN, STRANGER_COST, Best, score
from swarm.choosing.standing import Standing
from swarm.values import Candidate
from tests.swarm.samples import BOB, advert, capability, task

SEEN = Standing(inflight=0, successes=2.0, failures=0.0, first_token_s=0.5, tokens_per_second=40.0)


def cost(
    *, rtt_s: float | None = 0.01, standing: Standing | None = SEEN, busy: int = 0, queued: int = 0, slots: int = 1,
    tokens: int = 100, speed: float = 20.0, first_ms: int = 200,
) -> Candidate:  # fmt: skip
    offered = capability("chat", tokens_per_second=speed, first_token_ms=first_ms, slots=slots)
    told = advert(offered, busy=busy, queued=queued)
    return score(task(tokens_max=tokens), told, offered, BOB, rtt_s, standing, 128)


def dumb_cost_s(rtt_s, first_token_s, tokens, speed, busy, queued, inflight, slots, successes, failures):  # type: ignore[no-untyped-def]
    """The same, step by step, as one would explain it."""
    alone_s = rtt_s + first_token_s
    for _ in range(tokens):
        alone_s += 1 / speed
    others = busy + queued
    if inflight > others:
        others = inflight
    rounds = 1 + (others - 0.5) / slots if others else 1  # Who is at work is half done.
    tries = (4.2 + successes + 4 * failures) / (4 + successes)
    return alone_s * rounds * tries


@given(
    rtt_s=st.floats(0, 1),
    first_token_s=st.floats(0, 10),
    tokens=st.integers(1, 128),
    speed=st.floats(0.1, 1000),
    busy=st.integers(0, 8),
    queued=st.integers(0, 16),
    inflight=st.integers(0, 30),
    slots=st.integers(1, 8),
    successes=st.floats(0, 100),
    failures=st.floats(0, 100),
)
def test_the_cost_agrees_with_a_dumb_version_of_itself(  # type: ignore[no-untyped-def]
    rtt_s, first_token_s, tokens, speed, busy, queued, inflight, slots, successes, failures
) -> None:
    standing = Standing(inflight, successes, failures, first_token_s, speed)
    found = cost(rtt_s=rtt_s, standing=standing, busy=busy, queued=queued, slots=slots, tokens=tokens)
    expected = dumb_cost_s(rtt_s, first_token_s, tokens, speed, busy, queued, inflight, slots, successes, failures)
    assert found.cost_s == pytest.approx(expected)


def test_the_parts_of_a_cost_have_names_and_units() -> None:
    found = cost(busy=1, slots=2)
    assert found.parts == (
        ("distance", "10 ms"),
        ("first token", "500 ms seen"),
        ("speed", "40 tok/s"),
        ("load", "1/2"),
        ("success", "0.97"),
    )
    assert (found.node, found.name, found.model) == (BOB, "bob", "smollm2")


@pytest.mark.parametrize("standing", [None, Standing()])
def test_a_stranger_is_taken_at_its_word_until_it_has_been_seen(standing: Standing | None) -> None:
    found = cost(standing=standing)
    assert found.cost_s == pytest.approx((0.01 + 0.2 + 100 / 20) * 1.05)
    assert ("first token", "200 ms claimed") in found.parts


def test_what_cannot_be_known_is_guessed() -> None:
    found = cost(rtt_s=None, standing=None, speed=0.0)
    assert found.cost_s == pytest.approx((RTT_UNKNOWN_S + 0.2 + 100 / SPEED_UNKNOWN) * 1.05)


def test_a_model_without_slots_costs_and_does_not_fail() -> None:
    assert cost(slots=0, busy=1).cost_s == cost(slots=1, busy=1).cost_s


def test_long_answers_are_compared_at_the_expected_length() -> None:
    assert cost(tokens=128).cost_s == cost(tokens=4096).cost_s


@pytest.mark.parametrize(
    "worse",
    [
        {"rtt_s": 0.3},
        {"busy": 1},
        {"queued": 1},
        {"standing": replace(SEEN, inflight=1)},
        {"standing": replace(SEEN, failures=1.0)},
        {"standing": replace(SEEN, first_token_s=2.0)},
        {"standing": replace(SEEN, tokens_per_second=10.0)},
        {"standing": None, "first_ms": 900, "speed": 5.0},
    ],
    ids=str,
)
def test_whatever_is_worse_costs_more(worse: dict) -> None:  # type: ignore[type-arg]
    assert cost(**worse).cost_s > cost().cost_s


# --- What is believed -----------------------------------------------------------------------------------------------------


def scored(standing: Standing | None, *, speed: float = 20.0, first_ms: int = 200, busy: int = 0, **more: object) -> Candidate:
    offered = capability("chat", tokens_per_second=speed, first_token_ms=first_ms)
    return score(task(tokens_max=100), advert(offered, busy=busy), offered, BOB, 0.0, standing, 128, **more)  # type: ignore[arg-type]


def test_no_claim_is_better_than_the_best_that_was_seen() -> None:
    best = Best(first_token_s=0.3, tokens_per_second=50.0)
    boaster = scored(None, speed=1e9, first_ms=0, best=best)
    assert boaster.cost_s == scored(None, speed=50.0, first_ms=300, best=best).cost_s
    proven = Standing(first_token_s=0.3, tokens_per_second=50.0)
    assert boaster.cost_s == pytest.approx(STRANGER_COST * scored(proven, best=best).cost_s)


def test_claims_are_believed_as_far_as_they_held() -> None:
    found = scored(Standing(trust=0.25), speed=80.0)
    assert found.cost_s == pytest.approx(scored(None, speed=20.0).cost_s)
    assert ("trust", "0.25") in found.parts


def test_what_was_seen_fades_into_what_is_claimed() -> None:
    slow = Standing(first_token_s=5.0, tokens_per_second=1.0, answered_at=1000.0)
    costs = [scored(slow, now=1000.0 + age_s, fades_s=300.0).cost_s for age_s in (0, 100, 1000, 10_000)]
    assert costs == sorted(costs, reverse=True)
    assert costs[0] == pytest.approx((5.0 + 100.0) * 1.05)
    assert costs[-1] == pytest.approx(scored(None).cost_s)


def test_the_holder_of_a_conversation_reads_less() -> None:
    found = scored(SEEN, held=0.5)
    assert scored(SEEN).cost_s - found.cost_s == pytest.approx(0.5 * 0.5 * PREFIX_SAVES / SEEN.success)
    assert ("prefix", "50 % held") in found.parts
    assert scored(SEEN, held=1.0, busy=3).cost_s > scored(SEEN).cost_s, "it yields to load"


def test_load_is_the_most_that_anybody_has_told() -> None:
    alone = scored(None).cost_s
    assert scored(None, busy=2).cost_s == pytest.approx(2.5 * alone)
    told = Standing(ahead=4, ahead_heard_at=100.0)
    assert scored(told, busy=2, now=100.5).cost_s == pytest.approx(4.5 * alone)
    assert scored(told, busy=2, now=200.0).cost_s == pytest.approx(2.5 * alone), "its queue has moved on"
    assert scored(told, busy=2, now=100.5, heard_at=100.2).cost_s == pytest.approx(2.5 * alone), "it has told since"


def test_what_this_node_has_placed_and_seen_end_brings_a_load_up_to_date() -> None:
    alone = scored(None).cost_s
    placed = Standing(inflight=2, placed_at=(90.0, 110.0))
    assert scored(placed, busy=2, heard_at=100.0).cost_s == pytest.approx(3.5 * alone), "its advert cannot know of one"
    ended = Standing(placed_at=(90.0,), ended_at=(110.0,))
    assert scored(ended, busy=1, heard_at=100.0).cost_s == pytest.approx(alone), "it was this node's own"
    both = Standing(placed_at=(105.0,), ended_at=(110.0,))
    assert scored(both, busy=1, heard_at=100.0).cost_s == pytest.approx(1.5 * alone), "somebody else is there"


# --- Reading ---------------------------------------------------------------------------------------------------------------

INPUT = 4_000  # Bytes, and so 1,000 tokens.


def reader(speed_in: float, *, standing: Standing | None = SEEN, bytes_in: int = INPUT, **more: object) -> Candidate:
    offered = capability("chat", tokens_per_second=40.0, first_token_ms=500, tokens_in_per_second=speed_in)
    return score(
        task(tokens_max=100), advert(offered), offered, BOB, 0.0, standing, 128, bytes_in=bytes_in, **more  # type: ignore[arg-type]
    )


def seconds(found: Candidate) -> float:
    """What of a cost is time."""
    assert found.terms is not None
    return found.cost_s * found.terms.success


def test_a_long_input_costs_the_time_that_it_takes_to_read() -> None:
    assert seconds(reader(500.0)) - seconds(reader(500.0, bytes_in=0)) == pytest.approx(2.0)
    assert seconds(reader(0.0)) == seconds(reader(0.0, bytes_in=0)), "of who tells no speed nothing is known"
    assert ("reading", "2000 ms") in reader(500.0).parts
    assert not any(name == "reading" for name, _ in reader(500.0, bytes_in=80).parts)


@pytest.mark.parametrize("share", [{"held": 0.8}, {"told": 0.8}, {"held": 0.8, "told": 0.3}], ids=str)
def test_what_is_held_need_not_be_read(share: dict[str, float]) -> None:
    assert seconds(reader(500.0)) - seconds(reader(500.0, **share)) == pytest.approx(0.8 * PREFIX_SAVES * 2.0)
    assert ("prefix", "80 % held") in reader(500.0, **share).parts


def test_a_stranger_reads_no_faster_than_any_that_was_seen_and_holds_nothing() -> None:
    best = Best(first_token_s=0.5, tokens_per_second=40.0, tokens_in_per_second=500.0)
    boaster = reader(1e9, standing=None, best=best, told=1.0)
    assert boaster.cost_s == reader(500.0, standing=None, best=best).cost_s
    assert reader(1e9, best=best, told=1.0).cost_s < reader(1e9, best=best).cost_s, "who was seen to answer is believed"
    assert reader(500.0, standing=None, told=1.0).cost_s < reader(500.0, standing=None).cost_s, "and all, where all are strangers"


# --- Sharing a processor ---------------------------------------------------------------------------------------------------


def sharer(speedup: float, busy: int, slots: int = 16) -> Candidate:
    offered = capability("chat", slots=slots, speedup=speedup)
    return score(task(tokens_max=100), advert(offered, busy=busy), offered, BOB, 0.0, SEEN, 128)


def test_others_count_for_more_where_all_slots_share_a_processor() -> None:
    assert sharer(2.0, 0).cost_s == sharer(0.0, 0).cost_s
    assert sharer(2.0, 8).cost_s / sharer(2.0, 0).cost_s == pytest.approx(1 + 7.5 / 2)
    assert sharer(0.0, 8).cost_s / sharer(0.0, 0).cost_s == pytest.approx(1 + 7.5 / 16)
    assert sharer(99.0, 8).cost_s == sharer(16.0, 8).cost_s == sharer(0.0, 8).cost_s, "no more than slots"
    assert sharer(0.1, 8).cost_s == sharer(1.0, 8).cost_s, "no slower than one after the other"


def test_what_is_seen_beside_others_is_taken_for_what_it_is() -> None:
    terms = [sharer(2.0, busy).terms for busy in (0, 8, 99)]
    assert [each.shared for each in terms if each] == [1.0, 1 + 8 * (1 / 2 - 1 / 16), 1 + 15 * (1 / 2 - 1 / 16)]
    alone = sharer(0.0, 8).terms
    assert alone is not None
    assert alone.shared == 1.0
