"""`python -m node.cli` is the `swarm` command."""

from node.cli import main

main()
