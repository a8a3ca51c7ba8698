"""Set this folder up: check the machine, make .venv from the pinned packages, build the engine. Run with any Python 3.

This file alone must parse and run on old Pythons, so that they can say what is missing; the rest is imported later.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

PYTHON_MIN = (3, 11)  # tomllib, exception groups; what pyproject.toml says too.
ROOT = Path(__file__).resolve().parent.parent


def newer_python() -> str:
    """The path of another Python on PATH that is new enough, or an empty text."""
    check = "import sys; sys.exit(sys.version_info < {!r})".format(PYTHON_MIN)
    for minor in (13, 12, 11, 14):
        found = shutil.which("python3.%d" % minor)
        if found and subprocess.call([found, "-c", check], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0:
            return found
    return ""


def main() -> int:
    """Set up as the arguments say. 0: ready; 1: something failed and was explained; 130: interrupted."""
    if sys.version_info < PYTHON_MIN:
        newer = newer_python()
        if newer:
            os.execv(newer, [newer] + sys.argv)
        have = "%d.%d" % sys.version_info[:2]
        print("setup: Python 3.11 or newer is needed; this is %s, and PATH holds no newer one." % have, file=sys.stderr)
        print(
            "Install one (Debian and Ubuntu: sudo apt install python3.11 python3.11-venv; macOS: brew install python@3.12)",
            file=sys.stderr,
        )
        print("and run this again, or name it: make PYTHON=/path/to/python3.12", file=sys.stderr)
        return 1

    parser = argparse.ArgumentParser(prog="tools/setup.py", description="Make .venv ready to run and to test a node.")
    parser.add_argument("--dev", action="store_true", help="install what the tests and checks need, too")
    parser.add_argument(
        "--no-engine", action="store_true", help="leave the inference engine out: no C++ compiler needed"
    )
    parser.add_argument("--rebuild-engine", action="store_true", help="compile the engine anew, whatever is cached")
    chosen = parser.parse_args()

    sys.path[0] = str(ROOT)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # Ends like Ctrl-C: no compiler is left behind.
    from tools.installation import Wishes, set_up

    try:
        return set_up(ROOT, Wishes(dev=chosen.dev, engine=not chosen.no_engine, rebuild=chosen.rebuild_engine))
    except KeyboardInterrupt:
        print("\nsetup: stopped. Run it again to go on from here.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
