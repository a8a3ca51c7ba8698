"""Settings that contradict each other or the wire are refused by name."""

from dataclasses import fields, replace

import pytest

from swarm.settings import Settings

MAY_BE_ZERO = (
    "choosing_draws", "choosing_focus", "exploration_share", "neighbours_kept", "prefixes_told", "queue_max", "reach_asks",
    "relays_used", "carried_max",
)  # fmt: skip


def test_the_defaults_are_valid() -> None:
    Settings().validate()


@pytest.mark.parametrize("name", [field.name for field in fields(Settings)])
def test_no_setting_is_negative(name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be positive, not -1$"):
        replace(Settings(), **{name: -1}).validate()


@pytest.mark.parametrize("name", [field.name for field in fields(Settings) if field.name not in MAY_BE_ZERO])
def test_most_settings_are_not_zero(name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be positive, not 0$"):
        replace(Settings(), **{name: 0}).validate()


@pytest.mark.parametrize("name", MAY_BE_ZERO)
def test_some_settings_may_be_zero(name: str) -> None:
    replace(Settings(), **{name: 0}).validate()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pulse_gap_s": 21.0}, "pulse_gap_s must not exceed pulse_period_s"),
        ({"pulse_period_s": 31.0}, "pulse_period_s must not exceed 30"),
        ({"neighbours_kept": 16}, "neighbours_kept must be less than half of neighbours_max"),
        ({"neighbours_target": 33}, "neighbours_target must not exceed neighbours_max"),
        ({"dial_retry_first_s": 61.0}, "dial_retry_first_s must not exceed dial_retry_max_s"),
        ({"prefixes_told": 9}, "prefixes_told must not exceed 8"),
        ({"pull_adverts": 257}, "pull_adverts must not exceed 256"),
        ({"advert_lifetime_s": 599.0}, "advert_lifetime_s must be at least twice advert_period_s"),
        ({"advert_lifetime_s": 601.0}, "advert_lifetime_s must not exceed 600"),
    ],
)
def test_relations_between_settings_hold(changes: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=f"^{words}"):
        replace(Settings(), **changes).validate()
