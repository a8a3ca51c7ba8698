"""One step of the scheduler, as the child's worker takes it."""

from node.backends.llama_cpp.scheduler import Grown, Scheduler


def step(scheduler: Scheduler) -> list[Grown]:
    """Plan a batch and compute it, if there is anything to do."""
    return scheduler.compute() if scheduler.plan() else []
