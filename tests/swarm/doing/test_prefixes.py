"""What a worker tells of what its models hold: only what several have sent, only as long as there is room for it."""

import pytest

from protocol.identity import NodeId
from protocol.messages import TaskRequest
from protocol.parts import Demands, Turn
from protocol.prefixes import prefix_of
from swarm.doing.prefixes import Prefixes
from tests.swarm.samples import ADA, BOB, CYD, DAN, request

PLACES = 4


def asked(letter: str, question: str = "why?", tools: str = "") -> TaskRequest:
    """By a program whose instructions consist of this letter."""
    return request(turns=(Turn("system", letter * 300), Turn("user", question)), demands=Demands(tools=tools))


def digest(letter: str, model: str = "small", tools: str = "") -> bytes:
    return prefix_of(model, asked(letter).turns, tools)[0]


def held(*tasks: tuple[NodeId, TaskRequest], places: int = PLACES) -> Prefixes:
    """Ada's, after these."""
    prefixes = Prefixes(ADA)
    for requester, task in tasks:
        prefixes.begun(requester, task, "small", places)
    return prefixes


def test_only_what_two_others_have_sent_is_told() -> None:
    """[ADV-11] Neither what one has sent often, nor what this node's own user has asked."""
    assert held((BOB, asked("a")), (BOB, asked("a", "again"))).shared() == ()
    assert held((BOB, asked("a")), (ADA, asked("a"))).shared() == ()
    assert held((BOB, asked("a")), (CYD, asked("b"))).shared() == ()
    assert held((BOB, asked("a")), (CYD, asked("a", "other"))).shared() == (digest("a"),)


@pytest.mark.parametrize("other", [asked("a", tools="[1]"), request(turns=(Turn("user", "a" * 300),))])
def test_other_functions_and_questions_are_no_part_of_it(other: TaskRequest) -> None:
    assert held((BOB, asked("a")), (CYD, other)).shared() == ()


def test_short_instructions_are_not_worth_it() -> None:
    short = request(turns=(Turn("system", "Be brief."), Turn("user", "why?")))
    assert held((BOB, short), (CYD, short)).shared() == ()


def test_what_was_pushed_out_is_not_told_and_its_requesters_are_forgotten() -> None:
    prefixes = held((BOB, asked("a")), (CYD, asked("a")))
    for number in range(PLACES - 1):
        prefixes.begun(DAN, asked("xyz"[number]), "small", PLACES)
    assert prefixes.shared() == (digest("a"),)
    prefixes.begun(DAN, request(turns=(Turn("user", "no instructions"),)), "small", PLACES)
    assert prefixes.shared() == ()
    prefixes.begun(BOB, asked("a"), "small", PLACES)
    assert prefixes.shared() == ()


def test_what_is_used_stays() -> None:
    prefixes = held((BOB, asked("a")), (CYD, asked("a")), (BOB, asked("b")), (CYD, asked("b")))
    assert prefixes.shared() == (digest("a"), digest("b"))
    for number in range(PLACES):
        prefixes.begun(DAN, asked("wxyz"[number]), "small", PLACES)
        prefixes.begun(DAN, asked("a"), "small", PLACES)
    assert prefixes.shared() == (digest("a"),)


def test_each_model_has_its_own_and_takes_it_along() -> None:
    prefixes = held((BOB, asked("a")))
    prefixes.begun(CYD, asked("a"), "other", PLACES)
    assert prefixes.shared() == ()
    prefixes.begun(BOB, asked("a"), "other", PLACES)
    assert prefixes.shared() == (digest("a", "other"),)
    prefixes.keep(["small"])
    assert prefixes.shared() == ()
