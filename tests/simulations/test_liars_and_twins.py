"""Members that hide their load, two with one identity, and clocks that are wrong: each is in the world as it says."""

from simulations.play import play
from simulations.world import World
from tests.simulations.small import askers, scenario

ASKERS = askers(rate_per_s=6)
WORKERS = '[[members]]\nname = "worker"\ncount = 6\nskills = ["chat"]\ntokens_per_second = [20, 60]\nslots = 2\n'


def test_who_hides_its_load_is_always_free_by_its_own_word() -> None:
    sly = '[[members]]\nname = "sly"\ncount = 2\nskills = ["chat"]\ntokens_per_second = [60, 60]\nhides_load = true\n'
    report = play(scenario(f"{sly}{askers(rate_per_s=12)}"), 1)
    assert report.figures["done_share"] > 0.9
    assert report.figures["moves_per_task"] == 0.0, "nobody was told of a queue"


def test_twins_have_one_identity_and_find_out() -> None:
    twins = '[[members]]\nname = "twin"\ncount = 2\nskills = ["chat"]\ntokens_per_second = [20, 60]\ntwins = true\n'
    world = World(scenario(f"{WORKERS}{twins}{ASKERS}", wired=True), 1)
    one, two = (machine for machine in world.machines if machine.is_twin)
    assert one.node == two.node and one.name != two.name
    often = "[swarm]\ndigest_period_s = 5\n"
    report = play(scenario(f"{WORKERS}{twins}{ASKERS}", often, wired=True, seconds=60.0), 1)
    assert report.figures["twins_told"] == 1.0
    assert report.figures["done_share"] == 1.0


def test_greetings_are_refused_where_a_clock_is_wrong_by_an_hour() -> None:
    late = '[[members]]\nname = "late"\ncount = 1\nskills = ["chat"]\nclock_s = -3600\n'
    report = play(scenario(f"{WORKERS}{late}{ASKERS}", wired=True), 1)
    assert report.figures["refused_links"] > 0
    assert report.figures["done_share"] == 1.0
    assert play(scenario(f"{WORKERS}{ASKERS}", wired=True), 1).figures["refused_links"] == 0
