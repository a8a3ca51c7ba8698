"""Every mend of py-libp2p is needed: the fault is seen without it, in a process of its own, and gone with it."""

import json
import os
import subprocess
import sys

import pytest

from node.libp2p import mends
from tests.node.libp2p import faults, scenarios

NAMES = [mend.__name__ for mend in mends.MENDS]


def test_every_mend_has_a_scenario() -> None:
    assert sorted(scenarios.SCENARIOS) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_fault_is_gone_with_the_mend(name: str) -> None:
    mends.apply()
    scenarios.run(name)


@pytest.fixture(scope="module")
def without() -> dict[str, tuple[int, str]]:
    """How each scenario ended without its mend."""
    if not hasattr(os, "fork"):
        pytest.skip("needs a system that can fork")
    command = [sys.executable, "-m", "tests.node.libp2p.faults", *NAMES]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    reports = map(json.loads, result.stdout.splitlines())
    return {report["mend"]: (report["status"], report["said"]) for report in reports}


@pytest.mark.parametrize("name", NAMES)
def test_fault_is_there_without_the_mend(name: str, without: dict[str, tuple[int, str]]) -> None:
    status, said = without[name]
    assert status == faults.FAULTY and scenarios.FAULTS[name] in said, said


def test_another_version_of_the_library_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mends, "version", lambda name: "0.9.0")
    with pytest.raises(RuntimeError, match=r"libp2p 0\.9\.0 is installed.*pip install libp2p==0\.8\.1"):
        mends.apply()
