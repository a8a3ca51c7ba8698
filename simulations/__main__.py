"""Runs the simulator without the `swarm` command: `python -m simulations run calm`."""

import sys

from simulations.command import main

sys.exit(main(sys.argv[1:]))
