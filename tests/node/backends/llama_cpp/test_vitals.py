"""Who stands still is told from who computes, and from who only waits for its turn."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from node.backends.llama_cpp.vitals import Vitals

LOOKS, LOOK_S = 4, 0.2

WAITING = "import threading; print(flush=True); threading.Event().wait()"
COMPUTING = "print(flush=True)\nwhile True: pass"
# Its main thread sleeps until the other one is done, which on a busy core gets next to nothing.
STARVED = """
import os, threading
def compute():
    while True: pass
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
thread = threading.Thread(target=compute)
thread.start()
print(flush=True)
thread.join()
"""
GREEDY = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n" + COMPUTING


@contextmanager
def running(program: str) -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None and process.stdout.readline()
            yield process
        finally:
            process.kill()


def seen(pid: int) -> list[str]:
    """What the last looks tell; before, a process may have had something left to do."""
    vitals = Vitals(pid)
    looks = []
    for _ in range(LOOKS):
        time.sleep(LOOK_S)
        looks.append(vitals.standstill())
    return looks[-2:]


def test_who_waits_for_ever_stands_still() -> None:
    with running(WAITING) as process:
        assert seen(process.pid) == ["stood still"] * 2


def test_who_computes_does_not_until_it_is_stopped() -> None:
    with running(COMPUTING) as process:
        assert seen(process.pid) == ["", ""]
        process.send_signal(signal.SIGSTOP)
        assert seen(process.pid) == ["was stopped"] * 2


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_who_waits_for_a_processor_does_not() -> None:
    with running(GREEDY), running(STARVED) as process:
        assert seen(process.pid) == ["", ""]


def test_who_is_gone_does_not() -> None:
    with running(WAITING) as process:
        vitals = Vitals(process.pid)
    assert vitals.standstill() == ""
