"""Plans in a line, and a swarm that answers as a function says."""

from collections.abc import Callable
from typing import Any

from protocol.parts import Turn
from swarm.expressions import Value, reference_of, template_of
from swarm.leading.progress import Progress
from swarm.plans import Ask, Branch, Call, Compose, Filter, Map, Plan, Reduce, Step
from tests.swarm.samples import task

PLAN = b"p" * 16


def ask(text: str, **more: Any) -> Ask:
    asked = task(turns=(Turn("user", text),), skill=more.pop("skill", "chat"))
    return Ask(asked, (template_of(text),), **more)


def call(name: str, text: str, **more: Any) -> Call:
    return Call(name, ask(text, **more))


def over(name: str, items: str, text: str = "${item}", **more: Any) -> Map:
    return Map(name, reference_of(items), ask(text, **more))


def keep(name: str, items: str, where: Any, by: str = "") -> Filter:
    return Filter(name, reference_of(items), where, reference_of(by) if by else None)


def reduce(name: str, items: str, function: str, where: Any = None) -> Reduce:
    return Reduce(name, reference_of(items), function, where)


def branch(name: str, on: str, where: Any, then: str, otherwise: str) -> Branch:
    return Branch(name, reference_of(on), where, reference_of(then), reference_of(otherwise))


def compose(name: str, text: str) -> Compose:
    return Compose(name, template_of(text))


def plan(*steps: Step, out: str = "", tasks_max: int = 100, deadline_s: float = 60.0, **inputs: Value) -> Plan:
    return Plan(steps, inputs, reference_of(out or "${" + steps[-1].id + "}"), tasks_max, deadline_s)


class Played:
    """A plan carried out to its end: `asked` are the texts in order, `answer` gives each answer, or None for none."""

    def __init__(self, made: Plan, answer: Callable[[str], str | None] = str.upper, known: Any = ()) -> None:
        self.progress = Progress(PLAN, made, dict(known))
        self.asked: list[str] = []
        self.keys: dict[str, str] = {}
        while (unit := self.progress.take()) is not None:
            text = unit.task.turns[-1].text
            self.asked.append(text)
            said = answer(text)
            if said is None:
                self.progress.failed(unit, "nobody knows")
            else:
                self.keys[unit.key] = said
                self.progress.answered(unit, said)

    @property
    def value(self) -> Value:
        assert self.progress.is_done, self.progress.failure
        return self.progress.value()

    @property
    def failure(self) -> str:
        assert not self.progress.is_done
        return self.progress.failure
