"""The `swarm` command: a thin client of the node's control API, with click and the standard library alone."""


def main() -> None:
    """The entry point. Never returns."""
    from node.cli.program import run_and_exit

    run_and_exit()
