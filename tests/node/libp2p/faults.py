"""Shows the faults of py-libp2p 0.8.1 that are mended: runs each scenario without its mend, in a child of its own.

`python -m tests.node.libp2p.faults MEND…` prints a line of JSON for each; status FAULTY means that the fault was seen.
"""

import json
import os
import signal
import sys
import traceback
from typing import TextIO

from node.libp2p import mends
from tests.node.libp2p import dht_faults, host_faults, muxer_faults, scenarios

FAULTY = 3
CHILDREN_MAX = 8  # At once; they mostly wait.
MODULES = (host_faults, muxer_faults, dht_faults)  # Importing them enters their scenarios.


def main() -> None:
    """Run the named scenarios, each in a child of its own that lacks its mend; print what each child said as JSON."""
    names = sys.argv[1:]
    for at in range(0, len(names), CHILDREN_MAX):
        some = names[at : at + CHILDREN_MAX]
        for name, (child, reading) in zip(some, [_child(name) for name in some], strict=True):
            with os.fdopen(reading) as pipe:
                said = pipe.read()
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            print(json.dumps({"mend": name, "status": status, "said": said}))


def _child(name: str) -> tuple[int, int]:
    """Fork, for the library takes long to import; no loop runs in the parent. Gives the child and what it says."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        with os.fdopen(writing, "w") as said:
            status = _without(name, said)
        os._exit(status)
    os.close(writing)
    return child, reading


def _without(name: str, said: TextIO) -> int:
    signal.alarm(60)
    mends.apply(without=(name,))
    try:
        scenarios.run(name)
    except Exception as error:  # Whatever a host dies of is what the test wants to see.
        for leaf in _leaves(error):
            said.write(f"{leaf!r}\n")
            traceback.print_tb(leaf.__traceback__, limit=-3, file=said)
        return FAULTY
    return 0


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for part in error.exceptions for leaf in _leaves(part)]
    return [error]


if __name__ == "__main__":
    main()
