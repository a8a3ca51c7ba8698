"""The node's one clock: seconds since the Unix epoch that never step back and count the time a laptop sleeps."""

import time


def _elapsed_s() -> float:
    """Seconds since boot, suspended ones included where the system tells: CLOCK_MONOTONIC stops while Linux sleeps."""
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boottime is None else time.clock_gettime(boottime)


class Clock:
    """Wall time at its making, advanced by the time since boot: corrections of the wall clock do not reach it."""

    def __init__(self) -> None:
        self._offset_s = time.time() - _elapsed_s()

    def __call__(self) -> float:
        return self._offset_s + _elapsed_s()
