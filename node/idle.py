"""Whether the owner's own programs need this machine: then a node that offers only what is idle lets its peers wait."""

from collections.abc import Callable
from contextlib import suppress

import psutil
import trio

LOOK_S = 2.0
BUSY_CORES = 0.25  # Used by others than this node, on the average of a look: a browser that plays a video takes more.
CALM_S = 60.0  # Without that, until the machine is idle again.


class Watch:
    """Looks at what other processes take of the processors, and whether a laptop is on its battery."""

    def __init__(self) -> None:
        self._others_s = self._own_s = 0.0
        self._looked_at: float | None = None
        self._busy_at: float | None = None

    def is_busy(self, now: float) -> bool:
        """Whether the owner needs the machine, or did so a moment ago. `now` is any monotonic clock, in seconds."""
        total_s, own_s = _busy_s(), _own_s()
        others_s = total_s - own_s
        if self._looked_at is not None and now > self._looked_at:
            cores = (others_s - self._others_s) / (now - self._looked_at)
            if cores > BUSY_CORES or _on_battery():
                self._busy_at = now
        self._others_s, self._looked_at = others_s, now
        return self._busy_at is not None and now - self._busy_at < CALM_S


async def watch(tell: Callable[[bool], None], *, watch: Watch | None = None) -> None:
    """Tell each time that it changes whether the owner needs the machine; until cancelled."""
    looking, told = watch or Watch(), False
    while True:
        busy = looking.is_busy(trio.current_time())
        if busy != told:
            told = busy
            tell(busy)
        await trio.sleep(LOOK_S)


def _busy_s() -> float:
    """What all processes have had of all processors. Those that are content with what others leave do not count."""
    times = psutil.cpu_times()
    return float(times.user + times.system)


def _own_s() -> float:
    """What this process and those that it has started have had, as far as `_busy_s` counts that."""
    own = psutil.Process()
    times = own.cpu_times()
    user, system = times.user + getattr(times, "children_user", 0.0), times.system + getattr(times, "children_system", 0.0)
    for child in own.children(recursive=True):
        with suppress(psutil.Error):
            times = child.cpu_times()
            user, system = user + times.user, system + times.system
    # Niced, they are content with less, which Linux counts apart.
    return float(system if psutil.LINUX and own.nice() > 0 else user + system)


def _on_battery() -> bool:
    battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    return battery is not None and battery.power_plugged is False
