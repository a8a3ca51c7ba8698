"""How much memory this machine has for models, and how much of it a process takes."""

import psutil

from node.cgroups import memory_limits

SHARE = 0.75  # Of the whole: the rest is for the owner's programs and for what a model needs while it works.


def model_memory() -> int:
    """Bytes for all models together, unless the owner says otherwise."""
    return int(min([psutil.virtual_memory().total, *(limit for limit, _ in memory_limits())]) * SHARE)


def process_bytes(pid: int | None) -> int:
    """What a process holds, the pages of files that it has read included; 0 if there is none."""
    try:
        return int(psutil.Process(pid).memory_info().rss) if pid is not None else 0
    except psutil.Error:
        return 0
