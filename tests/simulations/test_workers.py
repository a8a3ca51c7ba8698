"""Virtual models: when pieces come, how an answer ends, and what stopping, crashing and slowness do to it."""

import pytest

from protocol import errors
from protocol.parts import Turn
from simulations.workers import NOISE, STOP_S, answer_tokens, piece_text
from swarm.events import GenerationFailed, GenerationFinished, PieceGenerated
from tests.simulations.small import PAIR, Pair

ENDS = (GenerationFinished, GenerationFailed)


def test_an_answer_comes_in_pieces_at_the_models_speed_and_ends_once() -> None:
    pair = Pair()
    began = pair.world.agenda.now
    attempt = pair.generate(tokens_max=20)
    pair.wait(30.0)
    pieces = pair.log.of(pair.near, PieceGenerated)
    assert [piece.text for piece in pieces] == [piece_text(index) for index in range(4)]
    (finished,) = pair.log.of(pair.near, *ENDS)
    assert (finished.attempt, finished.usage.tokens_out, finished.usage.finish) == (attempt, 20, "length")
    # 20 tokens at 10 a second, after 0.1 s.
    assert finished.usage.total_s == pytest.approx(2.1, rel=NOISE)
    assert pair.log.times(pair.near, GenerationFinished)[0] - began == pytest.approx(finished.usage.total_s)
    assert pair.near.process is not None and not pair.near.process.generations


def test_a_slow_machine_takes_longer() -> None:
    pair = Pair()
    pair.near.pace = 3.0
    pair.generate(tokens_max=20)
    pair.wait(30.0)
    assert pair.log.of(pair.near, GenerationFinished)[0].usage.total_s == pytest.approx(6.3, rel=NOISE)


def test_a_stopped_model_says_so_soon_and_nothing_after() -> None:
    pair = Pair()
    attempt = pair.generate()
    pair.wait(0.5)
    pair.stop(attempt)
    pair.stop(attempt)
    pair.wait(30.0)
    (failed,) = pair.log.of(pair.near, *ENDS)
    assert (failed.attempt, failed.code) == (attempt, errors.CANCELLED.number)
    assert pair.log.times(pair.near, GenerationFailed)[0] == pytest.approx(1.5 + STOP_S)
    assert all(at <= 1.5 + STOP_S for at in pair.log.times(pair.near, PieceGenerated))


def test_stopping_what_has_finished_changes_nothing() -> None:
    pair = Pair()
    attempt = pair.generate()
    pair.wait(30.0)
    pair.stop(attempt)
    pair.wait(30.0)
    assert len(pair.log.of(pair.near, *ENDS)) == 1


def test_an_answer_of_a_failing_model_breaks_off() -> None:
    pair = Pair(PAIR.replace("[network]", "failing = 1\n[network]"))
    pair.generate()
    pair.wait(30.0)
    (failed,) = pair.log.of(pair.near, *ENDS)
    assert failed.code == errors.BACKEND_FAILED.number
    assert len(pair.log.of(pair.near, PieceGenerated)) < 4


def test_nothing_comes_of_the_work_of_a_crashed_process() -> None:
    pair = Pair()
    pair.generate()
    pair.world.crash(pair.near)
    pair.world.start(pair.near)
    pair.wait(30.0)
    assert not pair.log.of(pair.near, PieceGenerated, *ENDS)


def test_the_length_of_an_answer_is_a_property_of_the_question() -> None:
    lengths = [answer_tokens(bytes([number, 0]) + bytes(14), 64) for number in range(256)]
    assert min(lengths) == 1
    assert answer_tokens(b"\xff" * 16, 64) == 64
    assert lengths == sorted(lengths)


def test_answers_that_share_a_processor_take_longer_side_by_side() -> None:
    """Sixteen together are four times as fast as one: the last of them takes nearly four times as long."""
    pair = Pair(PAIR.replace("[network]", "slots = 16\nspeedup = 4\n[network]"))
    for number in range(16):
        pair.generate(tokens_max=20, number=number)
    pair.wait(60.0)
    took_s = [finished.usage.total_s for finished in pair.log.of(pair.near, GenerationFinished)]
    assert min(took_s) == pytest.approx(2.1, rel=NOISE)
    assert max(took_s) == pytest.approx(2.1 * (1 + 15 * (1 / 4 - 1 / 16)), rel=NOISE)


def test_an_input_is_read_once_by_a_model_that_remembers_its_beginning() -> None:
    pair = Pair(PAIR.replace("[network]", "slots = 2\ntokens_in_per_second = [100, 100]\n[network]"))
    took_s = []
    for letter in "aabcab":
        pair.generate(tokens_max=1, turns=(Turn("system", letter * 4_000), Turn("user", "why?")))
        pair.wait(30.0)
        took_s.append(pair.log.of(pair.near, GenerationFinished)[-1].usage.total_s)
    cold_s, warm_s = pytest.approx(10.1, rel=NOISE), pytest.approx(0.11, rel=2 * NOISE)
    assert took_s == [cold_s, warm_s, cold_s, cold_s, cold_s, cold_s], "with room for two, the third pushes out the first"
    assert pair.world.workers.input_held == pytest.approx(1 / 6, abs=0.01)
