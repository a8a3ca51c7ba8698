"""What can be seen of a process without its help: whether it stands still."""

import os
from pathlib import Path

import psutil
import trio

_STILL = {"S": "stood still", "T": "was stopped", "t": "was stopped"}  # By SIGSTOP, or by a debugger.
IDLE_S = 0.015  # So little processor time is no computing: threads that wait for the interpreter's lock wake up to ask for it,
GLANCES, GLANCE_S = 3, 0.002  # every 5 ms, and may be caught at that, but not several times in a row.


class Vitals:
    """The signs of life of one process, as its system tells them."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._computed_s = 0.0

    async def standstill(self) -> str:
        """How it has stood still since this was asked last, in words that complete "its process …"; nothing if it has not.

        A process with a thread that waits for a processor or for a disk, as all do on a machine that swaps, does not stand still.
        One that sleeps does, if nothing of it has computed. macOS does not tell who sleeps: there only the stopped are seen.
        """
        try:
            times = self._process.cpu_times()
            computed_s = times.user + times.system
            has_computed, self._computed_s = computed_s - self._computed_s > IDLE_S, computed_s
            for glance in range(0 if has_computed else GLANCES):
                if glance:
                    await trio.sleep(GLANCE_S)
                if words := self._stillness():
                    return words
        except (OSError, psutil.Error):
            pass  # It has just ended, or a thread of it has, which is life enough.
        return ""

    def _stillness(self) -> str:
        """How it stands still at this moment, if none of its threads would go on if only the machine let it."""
        threads = Path(f"/proc/{self._process.pid}/task")
        if not threads.is_dir():
            return _STILL["T"] if self._process.status() == psutil.STATUS_STOPPED else ""
        lines = [(threads / name / "stat").read_text("latin-1") for name in os.listdir(threads)]
        words = {_STILL.get(line.rpartition(") ")[2][:1], "") for line in lines}
        return "" if "" in words else max(words, default="")
