"""Each invariant catches what it is there for: a member or a world with one planted fault, and nothing said of the sound ones."""

from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest

from protocol.identity import NodeId
from protocol.messages import TaskAccepted, TaskPiece
from simulations.play import play
from simulations.world import WorldFailure
from swarm.effects import Conclude, DeadlinePassed, Effect, Generate, Reply, Send, SetTimer
from swarm.events import Event, Received
from swarm.finding.gossip import Notary
from swarm.member import Member
from swarm.settings import Settings
from tests.simulations.small import askers, scenario
from tests.simulations.tampering import mutant, twice, without

SLOW = """
[[members]]
name = "worker"
count = 6
skills = ["chat"]
tokens_per_second = [2, 4]
""" + askers(deadline_s=8)

def without_deadlines(event: Event, effects: list[Effect]) -> list[Effect]:
    return [
        effect for effect in effects if not (isinstance(effect, SetTimer) and isinstance(effect.timer, DeadlinePassed))
    ]


def late_deadlines(event: Event, effects: list[Effect]) -> list[Effect]:
    return [
        replace(effect, delay_s=effect.delay_s + 0.5)
        if isinstance(effect, SetTimer) and isinstance(effect.timer, DeadlinePassed)
        else effect
        for effect in effects
    ]


def swapped_words(event: Event, effects: list[Effect]) -> list[Effect]:
    return [
        replace(effect, text="9 ") if isinstance(effect, Reply) and effect.text == "2 " else effect
        for effect in effects
    ]


def cut_short(event: Event, effects: list[Effect]) -> list[Effect]:
    """Swallow the last text of every answer."""
    return [effect for effect in effects if not (isinstance(effect, Reply) and effect.text == "3 ")]


def accepts_twice(event: Event, effects: list[Effect]) -> list[Effect]:
    """Breaks the table of exchanges."""
    accepted = [effect for effect in effects if isinstance(effect, Send) and isinstance(effect.message, TaskAccepted)]
    return [*effects, *accepted]


class Greedy(Member):
    """Ignores how many slots its models have."""

    def handle(self, event: Event, now: float) -> list[Effect]:
        effects = super().handle(event, now)
        while True:
            more = [
                Generate(service.request, service.model)
                for service in self.serving._services.values()
                if service.begun_at is None
            ]
            for service in self.serving._services.values():
                service.begun_at = service.begun_at or now
            if not more:
                return effects
            effects += more


class Hoarder(Member):
    """Accepts whatever comes."""

    def __init__(self, node: NodeId, name: str, settings: Settings, notary: Notary, dice: Random) -> None:
        super().__init__(node, name, replace(settings, queue_max=10_000), notary, dice)


class Collector(Member):
    """Remembers every event, for ever."""

    def handle(self, event: Event, now: float) -> list[Effect]:
        self.contacts.__dict__.setdefault("_seen", []).extend([event] * 20)
        return super().handle(event, now)


class Amnesiac(Member):
    """Forgets to close the books on a task."""

    def handle(self, event: Event, now: float) -> list[Effect]:
        before = dict(self.asking._open)
        effects = super().handle(event, now)
        if any(isinstance(effect, Conclude) for effect in effects):
            self.asking._open.update(before)
        return effects


class Raising(Member):
    """Has a bug."""

    def handle(self, event: Event, now: float) -> list[Effect]:
        assert not (isinstance(event, Received) and isinstance(event.message, TaskPiece)), "planted"
        return super().handle(event, now)


PLANTED = [
    (mutant(without(Conclude)), "a task without an end"),
    (mutant(without_deadlines), "a task without an end|a task ends"),
    (mutant(twice(Conclude)), "a second end"),
    (mutant(twice(Reply)), "a user reads"),
    (mutant(swapped_words), "a user reads"),
    (mutant(cut_short), "3 of 4 pieces"),
    (mutant(late_deadlines), "after its deadline"),
    (mutant(twice(Generate)), "generated twice"),
    (mutant(accepts_twice), "LocalProtocolError: TaskAccepted as worker"),
    (Greedy, "slots allow"),
    (Hoarder, "attempts in the queue"),
    (Collector, "contacts._seen"),
    (Amnesiac, "a task without an end|is not done|second end"),
    (Raising, "AssertionError: planted"),
]


def test_sound_members_are_not_blamed() -> None:
    assert play(scenario(SLOW, seconds=30.0), 1).figures["tasks"] > 50


def test_a_failure_tells_seed_time_and_what_came_before() -> None:
    with pytest.raises(WorldFailure) as caught:
        play(scenario(SLOW, seconds=30.0), 5, make_member=mutant(twice(Reply)))
    assert "swarm sim run ? --seed 5" in str(caught.value)
    assert caught.value.at > 8.0
    assert any(" Reply(" in line for line in caught.value.lines[-4:])


@pytest.mark.parametrize(("planted", "complaint"), PLANTED)
def test_a_planted_fault_is_caught(planted: Callable[..., Member], complaint: str) -> None:
    busy = scenario(SLOW.replace("rate_per_s = 4", "rate_per_s = 40") if planted is Hoarder else SLOW, seconds=30.0)
    with pytest.raises(WorldFailure, match=complaint):
        play(busy, 1, make_member=planted)
