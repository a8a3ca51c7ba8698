"""Members with a planted fault: their effects are left out, doubled or changed on the way."""

from collections.abc import Callable

from swarm.effects import Effect
from swarm.events import Event
from swarm.member import Member

Tamper = Callable[[Event, list[Effect]], list[Effect]]


def mutant(tamper: Tamper) -> Callable[..., Member]:
    """A class of members whose effects are tampered with."""

    class Mutant(Member):
        def handle(self, event: Event, now: float) -> list[Effect]:
            return tamper(event, super().handle(event, now))

    return Mutant


def without(kind: type, every: int = 5) -> Tamper:
    """Leave out each fifth effect of a kind."""
    count = 0

    def tamper(event: Event, effects: list[Effect]) -> list[Effect]:
        nonlocal count
        kept = []
        for effect in effects:
            count += isinstance(effect, kind)
            if not isinstance(effect, kind) or count % every:
                kept.append(effect)
        return kept

    return tamper


def twice(kind: type) -> Tamper:
    """Every effect of a kind two times."""
    return lambda event, effects: [copy for effect in effects for copy in [effect] * (1 + isinstance(effect, kind))]
