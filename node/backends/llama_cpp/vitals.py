"""What can be seen of a process without its help: whether it stands still."""

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

        Whoever waits for a processor or for a disk, as all do on a machine that swaps, does not stand still. Who sleeps does, if
        none of its threads has computed. macOS does not tell who sleeps: there only the stopped are seen.
        """
        try:
            with self._process.oneshot():
                state, times = self._process.status(), self._process.cpu_times()
        except psutil.Error:
            return ""
        computed_s = times.user + times.system
        has_computed, self._computed_s = computed_s - self._computed_s > IDLE_S, computed_s
        return "" if has_computed else _STILL.get(state, "")
