"""Whether the owner needs the machine, seen from what other processes take of it."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import trio
from trio.testing import MockClock

from node import idle
from tests.processes import ControlError, Starter


class Machine:
    """Processor seconds that others and this node have had."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.others_s = self.own_s = 1_000.0
        self.plugged: bool | None = None
        monkeypatch.setattr(idle, "_busy_s", lambda: self.others_s + self.own_s)
        monkeypatch.setattr(idle, "_own_s", lambda: self.own_s)
        battery = lambda: None if self.plugged is None else SimpleNamespace(power_plugged=self.plugged)  # noqa: E731
        monkeypatch.setattr(idle.psutil, "sensors_battery", battery, raising=False)


def test_only_what_others_do_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    machine, watch = Machine(monkeypatch), idle.Watch()
    assert not watch.is_busy(0)
    machine.own_s += 8
    assert not watch.is_busy(2), "this node and its models do not disturb themselves"
    machine.others_s += 0.4
    assert not watch.is_busy(4), "a fifth of a core is what every desktop does"
    machine.others_s += 1
    assert watch.is_busy(6)
    assert watch.is_busy(65), "who pauses for a moment is still there"
    assert not watch.is_busy(67)


def test_a_laptop_on_its_battery_is_its_owners(monkeypatch: pytest.MonkeyPatch) -> None:
    machine, watch = Machine(monkeypatch), idle.Watch()
    watch.is_busy(0)
    machine.plugged = True
    assert not watch.is_busy(2)
    machine.plugged = False
    assert watch.is_busy(4)


async def test_only_changes_are_told(monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock) -> None:
    machine, told = Machine(monkeypatch), []

    async with trio.open_nursery() as nursery:
        nursery.start_soon(idle.watch, lambda busy: told.append((round(trio.current_time() - began), busy)))
        began = trio.current_time()
        await trio.sleep(11)
        machine.others_s += 5
        await trio.sleep(120)
        nursery.cancel_scope.cancel()
    assert told == [(12, True), (72, False)]


def test_a_node_of_an_owner_at_work_answers_its_owner_alone(start: Starter) -> None:
    worker = start.start("worker", models=("echo:",), **{"offer.when": "idle"})
    asker = start.start("asker", join=worker.addresses[:1])
    asker.wait_for("chat")
    program = subprocess.Popen([sys.executable, "-c", "import time\nend = time.time() + 60\nwhile time.time() < end: pass"])
    try:
        asker.wait_until(lambda: not asker.control("GET", "skills")["skills"])
        assert worker.control("GET", "status")["reserved"]
        assert worker.ask("mine")[0] == "mine"
        with pytest.raises(ControlError, match="deadline_exceeded"):
            asker.ask("yours", deadline_s=2)
    finally:
        program.kill()
        program.wait()
