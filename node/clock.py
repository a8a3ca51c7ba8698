"""The node's one clock: seconds since the Unix epoch that never step back and count the time a laptop sleeps."""

import logging
import time

LEAP_S = 5.0  # By which the wall clock may be off unheeded: what NTP corrects at leisure is less.

log = logging.getLogger(__name__)


def _elapsed_s() -> float:
    """Seconds since boot, suspended ones included where the system tells: CLOCK_MONOTONIC stops while Linux sleeps."""
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boottime is None else time.clock_gettime(boottime)


class Clock:
    """Wall time at its making, advanced by the time since boot. If the wall clock is set forward it follows, never back.

    A board without a clock of its own wakes up in the past, and learns the time from the network after this has started.
    """

    def __init__(self) -> None:
        self._offset_s = time.time() - _elapsed_s()
        self._has_warned = False

    def __call__(self) -> float:
        now = self._offset_s + _elapsed_s()
        ahead_s = time.time() - now
        if ahead_s > LEAP_S:
            log.info("the clock was set forward by %.0f s", ahead_s)
            self._offset_s += ahead_s
            return now + ahead_s
        if ahead_s < -LEAP_S and not self._has_warned:
            self._has_warned = True
            log.warning(
                "the clock was set back by %.0f s, which this node does not follow: restart it if it was wrong before", -ahead_s
            )
        return now
