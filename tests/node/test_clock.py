"""The node's clock follows the wall clock forward and never back; a machine that has slept knows it before anything else."""

import logging
import time
from typing import Any

import pytest
import trio
import trio.testing

from node import clock
from node.clock import Clock
from node.driver import LATE_S_MAX, Driver
from swarm.effects import Effect, SweepDue
from swarm.events import Event, LoopLate, Started, TimerFired


def test_a_clock_that_was_wrong_at_start_is_put_right(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    wall_s, elapsed_s = 1_000.0, 7.0
    monkeypatch.setattr(time, "time", lambda: wall_s)
    monkeypatch.setattr(clock, "_elapsed_s", lambda: elapsed_s)
    now = Clock()
    elapsed_s += 3.0
    assert now() == 1_003.0, "a clock that hardly moves is not looked at"
    wall_s = 2e9
    assert now() == now() == 2e9
    elapsed_s += 10.0
    assert now() == 2e9 + 10.0
    wall_s = 1_000.0
    with caplog.at_level(logging.WARNING):
        assert now() == now() == 2e9 + 10.0
    [warning] = caplog.messages
    assert "restart it" in warning


class Told:
    """A member that notes what it is told."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def handle(self, event: Event, now: float) -> list[Effect]:
        self.events.append(event)
        return []


def driven(member: Any, now: Any) -> Driver:
    nothing: Any = None
    return Driver(member, nothing, now, nothing, nothing, nothing)


async def test_a_machine_that_has_slept_knows_it_before_anything_else(autojump_clock: trio.testing.MockClock) -> None:
    slept_s, member = 0.0, Told()
    driver = driven(member, lambda: trio.current_time() + slept_s)
    driver.post(Started(()))
    driver._set_timer(0.1, SweepDue())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        await trio.testing.wait_all_tasks_blocked()
        slept_s += 30_000.0
        await trio.sleep(5)
        assert member.events[1:] == [LoopLate(LATE_S_MAX), TimerFired(SweepDue())]
        slept_s += 2.0
        await trio.sleep(5)
        assert member.events[3:] == [LoopLate(pytest.approx(2.0))], "also if no timer is set"
        slept_s += 3.0
        driver.post(Started(()))
        assert member.events[4:] == [LoopLate(pytest.approx(3.0)), Started(())]
        nursery.cancel_scope.cancel()
