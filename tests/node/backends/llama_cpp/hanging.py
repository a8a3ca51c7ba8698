"""A model's processes that hang at a signal: what a deadlock in the engine would look like from outside."""

import signal
from pathlib import Path

WAITING, SLEEPING, COMPUTING = signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP

# Found by the interpreter as it starts. A handler runs on the thread that computes, between two of its steps.
_SITE = f"""
import ctypes, signal, threading, time

def wait(*_):
    threading.Event().wait()

def sleep(*_):
    ctypes.PyDLL(None).sleep(1_000)  # The thread that gives signs of life waits for the interpreter as well.

def compute(*_):
    until = time.process_time() + 2
    while time.process_time() < until:
        sum(range(1 << 24))  # Not interrupted.

signal.signal({WAITING:d}, wait)
signal.signal({SLEEPING:d}, sleep)
signal.signal({COMPUTING:d}, compute)
"""


def write_site(folder: Path) -> Path:
    """Processes that are started with this folder in `sys.path` obey the signals: hang, hang in silence, be slow for 2 s."""
    (folder / "sitecustomize.py").write_text(_SITE, "utf-8")
    return folder
