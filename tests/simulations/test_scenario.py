"""Scenario files are read strictly, and what is wrong with one is said with file, key and what was meant."""

from pathlib import Path

import pytest

from simulations.scenario import ScenarioError, load, names, parse
from swarm.settings import Settings

GOOD = """
about = "two"
seconds = 10
[[members]]
name = "worker"
count = 2
skills = ["chat"]
[[workload]]
skills = ["chat"]
rate_per_s = 1
[[faults]]
kind = "crash"
at_s = 5
count = 1
[swarm]
queue_max = 3
[variants.greedy]
choosing_draws = 0
"""


@pytest.mark.parametrize("name", names())
def test_every_scenario_of_the_project_can_be_read(name: str) -> None:
    scenario = load(name)
    assert scenario.name == name
    for variant in scenario.variants:
        load(f"{name}:{variant}")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("seconds = 10", "secnds = 10"), r"w\.toml: unknown key secnds \(did you mean seconds\?\)"),
        (("count = 2", "cuont = 2"), r"unknown key members\.cuont \(did you mean count\?\)"),
        (("rate_per_s", "rate_s"), r"unknown key workload\.rate_s \(did you mean rate_per_s\?\)"),
        (("at_s", "at"), r"unknown key faults\.at \(did you mean at_s\?\)"),
        (("queue_max", "queue_mx"), r"unknown key swarm\.queue_mx \(did you mean queue_max\?\)"),
        (
            ("choosing_draws", "choosing_drws"),
            r"unknown key variants\.greedy\.choosing_drws \(did you mean choosing_draws\?\)",
        ),
        (("rate_per_s = 1", "rate_per_s = 1\nload = 1"), "either rate_per_s or load says how much is asked"),
        (("rate_per_s = 1", ""), "either rate_per_s or load says how much is asked"),
        (("choosing_draws = 0", "size = 0"), r"variants\.greedy\.size must be positive"),
        (("queue_max = 3", "queue_max = -3"), r"\[swarm\] queue_max must be positive"),
        (("queue_max = 3", 'queue_max = "many"'), r"swarm\.queue_max: Expected `int`"),
        (('kind = "crash"', 'kind = "fire"'), r"Invalid enum value 'fire' - at `\$\.faults\[0\]\.kind`"),
        (("seconds = 10", "seconds = -1"), r"Expected `float` > 0\.0 - at `\$\.seconds`"),
        (("at_s = 5\ncount = 1", "at_s = 5"), r"faults\.crash: either count or share"),
        (("at_s = 5", 'at_s = 5\ngroup = "wroker"'), r"no members named 'wroker' \(did you mean worker\?\)"),
        (("about", 'name = "x"\nabout'), r"unknown key name"),
        (("[[members]]", "[[members"), r"w\.toml: "),
    ],
)
def test_what_is_wrong_is_said_with_its_place(change: tuple[str, str], complaint: str) -> None:
    parse(GOOD, "w.toml")
    with pytest.raises(ScenarioError, match=complaint):
        parse(GOOD.replace(*change), "w.toml")


def test_two_groups_cannot_have_one_name() -> None:
    with pytest.raises(ScenarioError, match="same name"):
        parse(GOOD + '[[members]]\nname = "worker"\ncount = 1\n', "w.toml")


def test_the_swarm_table_overrides_settings_and_a_variant_overrides_the_table(tmp_path: Path) -> None:
    file = tmp_path / "w.toml"
    file.write_text(GOOD.replace("choosing_draws = 0", "choosing_draws = 0\nqueue_max = 4"), encoding="utf-8")
    assert load(str(file)).settings() == Settings(queue_max=3)
    varied = load(f"{file}:greedy")
    assert varied.settings() == Settings(queue_max=4, choosing_draws=0)
    assert varied.name == f"{file}:greedy"


@pytest.mark.parametrize(
    ("reference", "complaint"),
    [
        ("clam", r"no scenario 'clam' \(did you mean calm\?\)"),
        ("herd:gredy", r"no variant 'gredy' \(did you mean greedy\?\)"),
    ],
)
def test_an_unknown_scenario_or_variant_is_named_with_what_was_meant(reference: str, complaint: str) -> None:
    with pytest.raises(ScenarioError, match=complaint):
        load(reference)


def test_a_variant_may_have_another_size() -> None:
    small, large = load("scale:500"), load("scale:10000")
    assert [sum(table.count for table in each.members) for each in (small, large)] == [500, 10_000]
    assert large.workload[0].rate_per_s == 20 * small.workload[0].rate_per_s
    assert large.settings() == small.settings() == load("scale").settings()
