"""Who holds a conversation: the longest beginning counts, others' do not, and nothing is remembered for ever."""

from dataclasses import replace

import pytest

from protocol.parts import Turn
from swarm.choosing.affinity import BEGINNINGS_MAX, REMEMBERED_S, Affinity
from swarm.values import Task
from tests.swarm.samples import BOB, CYD, NOW, task


def conversation(*texts: str) -> Task:
    roles = ("user", "assistant")
    return task(turns=tuple(Turn(roles[number % 2], text) for number, text in enumerate(texts)))


def test_whoever_answered_last_holds_the_conversation() -> None:
    affinity = Affinity()
    affinity.remember(conversation("12345"), "12345", BOB, NOW)
    assert affinity.held(conversation("12345", "12345", "1234567890"), NOW) == {BOB: pytest.approx(0.5)}
    affinity.remember(conversation("12345", "12345", "1234567890"), "yes", CYD, NOW)
    assert affinity.held(conversation("12345", "12345", "1234567890", "yes", "?"), NOW) == {
        BOB: pytest.approx(10 / 24),
        CYD: pytest.approx(23 / 24),
    }


@pytest.mark.parametrize("texts", [("other", "12345", "x"), ("12345", "other", "x"), ("1", "2", "3")])
def test_another_conversation_is_held_by_nobody_or_less(texts: tuple[str, ...]) -> None:
    affinity = Affinity()
    affinity.remember(conversation("12345"), "12345", BOB, NOW)
    held = affinity.held(conversation(*texts), NOW)
    assert held == ({BOB: pytest.approx(5 / 11)} if texts[0] == "12345" else {})


def test_the_same_words_in_another_role_or_cut_elsewhere_are_another_conversation() -> None:
    affinity = Affinity()
    affinity.remember(conversation("ab", "cd", "e"), "f", BOB, NOW)
    assert affinity.held(conversation("abc", "d", "e", "f", "g"), NOW) == {}
    swapped = tuple(Turn("system", turn.text) for turn in conversation("ab", "cd", "e", "f").turns)
    assert affinity.held(task(turns=swapped), NOW) == {}


def test_what_is_old_is_not_held_any_more_and_what_is_too_much_is_forgotten() -> None:
    affinity = Affinity()
    affinity.remember(conversation("a"), "b", BOB, NOW)
    assert affinity.held(conversation("a", "b", "c"), NOW + REMEMBERED_S) != {}
    assert affinity.held(conversation("a", "b", "c"), NOW + REMEMBERED_S + 1) == {}
    for number in range(BEGINNINGS_MAX):
        affinity.remember(conversation(f"{number}"), "x", CYD, NOW)
    assert affinity.held(conversation("a", "b", "c"), NOW) == {}
    assert affinity.held(conversation(f"{BEGINNINGS_MAX - 1}", "x", "c"), NOW) != {}


def test_who_has_read_the_instructions_holds_them_for_every_conversation() -> None:
    affinity = Affinity()
    instructions = Turn("system", "i" * 300)
    first, second = (task(turns=(instructions, Turn("user", question))) for question in ("one", "u" * 100))
    affinity.remember(first, "answer", BOB, NOW)
    assert affinity.held(second, NOW) == {BOB: 0.75}
    affinity.remember(second, "answer", CYD, NOW)
    later = replace(first, turns=(*first.turns, Turn("assistant", "answer"), Turn("user", "two")))
    assert affinity.held(later, NOW) == {CYD: pytest.approx(300 / 312), BOB: pytest.approx(309 / 312)}
    assert affinity.held(task(turns=(Turn("system", "j" * 300), Turn("user", "one"))), NOW) == {}
