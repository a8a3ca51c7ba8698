"""`python -m benchmarks [NAME …]`: runs the named measurements, or all, one after the other."""

import sys
import tempfile
from importlib import import_module
from pathlib import Path

from benchmarks.figures import Figure, show

MANY = ("rendezvous", "gossip", "liveness", "losses", "attempts")  # Nodes; each takes some minutes.
NAMES = (
    "latency", "journal", "throughput", "startup", "failover", "midstream", "resume", "idle", "wire", "crowd", "specialists", *MANY,
)  # fmt: skip
OTHERS = ("engine",)  # Need a program that the project does not have: `make bench-engine`.


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in (*NAMES, *OTHERS)]
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are {', '.join((*NAMES, *OTHERS))}", file=sys.stderr)
        return 2
    missed: list[Figure] = []
    for name in names or NAMES:
        module = import_module(f"benchmarks.{name}")
        with tempfile.TemporaryDirectory(prefix="starlings-bench-") as folder:
            figures: list[Figure] = module.measure(Path(folder))
        show(f"{name}: {str(module.__doc__).splitlines()[0]}", figures)
        missed += [figure for figure in figures if figure.reached is False]
    print(f"\n{len(missed)} of the goals missed" if missed else "\nall goals reached")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
