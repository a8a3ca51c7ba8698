"""What can be seen of a process without its help: whether it stands still."""

import os
from pathlib import Path

import psutil

_STILL = {
    psutil.STATUS_SLEEPING: "stood still",
    psutil.STATUS_STOPPED: "was stopped",  # SIGSTOP,
    psutil.STATUS_TRACING_STOP: "was stopped",  # or a debugger.
}
IDLE_S = 0.015  # So little processor time is no computing: threads that wait for the interpreter's lock wake up to ask for it.


class Vitals:
    """The signs of life of one process, as its system tells them."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._computed_s = 0.0

    def standstill(self) -> str:
        """How it has stood still since this was asked last, in words that complete "its process …"; nothing if it has not.

        A process with a thread that waits for a processor or for a disk, as all do on a machine that swaps, does not stand still.
        One that sleeps does, if nothing of it has computed. macOS does not tell who sleeps: there only the stopped are seen.
        """
        try:
            with self._process.oneshot():
                state, times = self._process.status(), self._process.cpu_times()
        except psutil.Error:
            return ""
        computed_s = times.user + times.system
        has_computed, self._computed_s = computed_s - self._computed_s > IDLE_S, computed_s
        return "" if has_computed or self._waits() else _STILL.get(state, "")

    def _waits(self) -> bool:
        """Whether a thread would go on if the machine let it. Only Linux tells."""
        threads = Path(f"/proc/{self._process.pid}/task")
        if not threads.is_dir():
            return False
        try:
            lines = [(threads / name / "stat").read_bytes() for name in os.listdir(threads)]
        except OSError:
            return True  # One has just ended, which is life enough.
        return any(line.rpartition(b") ")[2][:1] in (b"R", b"D") for line in lines)
