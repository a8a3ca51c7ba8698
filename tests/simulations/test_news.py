"""How fast news travels is measured, and the measure can tell a swarm that hears from one that does not."""

from simulations.faults import Faults
from simulations.news import PATIENCE_S, News
from simulations.play import play
from simulations.spam import Spam
from simulations.world import World
from swarm.finding.places import PER_PLACE_MAX
from tests.simulations.small import Idle, scenario

CHANGES = """
[[faults]]
kind = "change"
group = "worker"
at_s = 12
count = 1
"""
DEATH = """
[[faults]]
kind = "vanish"
group = "worker"
at_s = 12
count = 1
"""
SPAM = """
[[members]]
name = "worker"
count = 8
skills = ["chat"]
[[members]]
name = "asker"
count = 4
[[members]]
name = "adversary"
count = 1
spam_per_s = 30
poisons = 3
[[workload]]
skills = ["chat"]
by = "asker"
rate_per_s = 1
tokens = [8, 32]
"""


def test_what_changes_is_heard_by_all_within_moments() -> None:
    report = play(scenario(rest=CHANGES), 1)
    assert 0 < report.figures["told_p95_s"] < 2
    assert report.figures["known_share"] == 1


def test_what_nobody_tells_is_counted_as_never_heard() -> None:
    world = World(scenario(rest=CHANGES), 1)
    news = News(world)
    Faults(world, news)
    world.run(12.0)
    for process in [machine.process for machine in world.machines]:
        for waiting in process.member.gossip._backlog._waiting.values():
            waiting.clear()
        process.links.clear()
    world.run(80.0)
    assert max(news.told) >= PATIENCE_S


def test_those_gone_without_a_word_are_forgotten_by_all() -> None:
    report = play(scenario(rest=DEATH, seconds=30.0), 1)
    assert 0 < report.figures["gone_p95_s"] <= report.figures["gone_max_s"] < 12


def test_an_idle_world_has_no_news() -> None:
    world = World(scenario(rest=CHANGES), 1, Idle)
    news = News(world)
    Faults(world, news)
    world.run(20.0)
    assert (news.told, news.gone, news.left) == ([], [], [])


def test_inventions_of_an_adversary_stay_few_in_every_view() -> None:
    world = World(scenario(SPAM, seconds=40.0), 1)
    spam = Spam(world)
    world.run(30.0)
    assert len(spam.invented) > 1000
    for machine in world.machines:
        known = [found.node for found in machine.process.member.index]
        assert sum(node in spam.invented for node in known) <= PER_PLACE_MAX
