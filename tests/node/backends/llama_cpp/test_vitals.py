"""Who stands still is told from who computes, and from who only waits for its turn."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio

from node.backends.llama_cpp.vitals import Vitals

LOOKS, LOOK_S = 4, 0.2

WAITING = "import threading; print(flush=True); threading.Event().wait()"
# Its main thread holds the interpreter's lock, for which the others ask all the time.
POLLING = """
import ctypes, threading, time
for _ in range(16):
    threading.Thread(target=time.sleep, args=(0.01,), daemon=True).start()
print(flush=True)
ctypes.PyDLL(None).sleep(1_000)
"""
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


async def seen(pid: int) -> list[str]:
    """What the last looks tell; before, a process may have had something left to do."""
    vitals = Vitals(pid)
    looks = []
    for _ in range(LOOKS):
        await trio.sleep(LOOK_S)
        looks.append(await vitals.standstill())
    return looks[-2:]


async def test_who_waits_for_ever_stands_still() -> None:
    with running(WAITING) as process:
        assert await seen(process.pid) == ["stood still"] * 2


async def test_who_only_asks_whether_it_may_go_on_stands_still() -> None:
    with running(POLLING) as process:
        vitals, looks = Vitals(process.pid), []
        for _ in range(40):
            await trio.sleep(0.02)  # In so little time nothing of it adds up to computing.
            looks.append(await vitals.standstill())
    assert looks[2:].count("stood still") >= 30, looks


async def test_who_computes_does_not_until_it_is_stopped() -> None:
    with running(COMPUTING) as process:
        assert await seen(process.pid) == ["", ""]
        process.send_signal(signal.SIGSTOP)
        assert await seen(process.pid) == ["was stopped"] * 2


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
async def test_who_waits_for_a_processor_does_not() -> None:
    with running(GREEDY), running(STARVED) as process:
        assert await seen(process.pid) == ["", ""]


async def test_who_is_gone_does_not() -> None:
    with running(WAITING) as process:
        vitals = Vitals(process.pid)
    assert await vitals.standstill() == ""
