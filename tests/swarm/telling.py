"""Effects as lines for people: ids become names, and what never changes in a transcript is left out."""

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

from protocol.errors import ErrorCode, error_code
from protocol.messages import Advert, Signed, TaskRequest
from protocol.parts import Turn
from swarm.effects import AcceptOverdue, Dial, Effect, Generate, Notify, Routed, Send, SetTimer
from swarm.values import AttemptEnd, Contact, Outcome, Routing, Subject
from tests.swarm.small_world import EPOCH_S

NODE_BYTES, LABELLED_BYTES = 32, 16
VERSIONS = ("card", "seen", "pulse")  # Fields that hold the version of an advert or a pulse.


class Teller:
    """Knows the names of nodes and the labels of tasks; attempts are labelled as they appear: t1/1, t1/2, …"""

    def __init__(self, name: Callable[[bytes], str]) -> None:
        self._name = name
        self.labels: dict[bytes, str] = {}

    def learn(self, wanted: list[Effect]) -> None:
        """Give labels to the attempts that begin here; each sets its own accept limit."""
        for effect in wanted:
            match effect:
                case SetTimer(_, AcceptOverdue(task, attempt)):
                    label = self.labels[task]
                    count = sum(known.startswith(f"{label}/") for known in self.labels.values())
                    self.labels[attempt] = f"{label}/{count + 1}"

    def effect(self, effect: Effect) -> str:
        match effect:
            case Send(to, message):
                return f"Send to {self._name(to)}: {self.text(message)}"
            case SetTimer(delay_s, timer):
                return f"SetTimer in {delay_s:.4g} s: {self.text(timer)}"
            case Dial(contact, upgrade):
                return f"Dial({'upgrade, ' if upgrade else ''}contact={self.text(contact)})"
            case Generate(request, model):
                return f"Generate({self.text(request.attempt)} with {model})"
            case Notify(Routed(task, routing)):
                return f"Notify: Routed({self.text(task)}) {self.routing(routing)}"
            case Notify(notice):
                return f"Notify: {self.text(notice)}"
        return self.text(effect)

    def routing(self, routing: Routing) -> str:
        """Candidates with their costs, best first; the one taken, the others drawn, and who was left out."""
        marks = {node: "drawn" for node in routing.drawn} | {routing.chosen: "taken"}
        told = [
            f"{self._name(found.node)} {found.cost_s:.2f} s{' ' + marks[found.node] if found.node in marks else ''}"
            for found in routing.candidates
        ]
        told += [f"not {self._name(left.node)}: {left.reason}" for left in routing.excluded]
        return "; ".join(told) or "nobody"

    def signed(self, signed: Signed[Any]) -> str:
        who = f"{self._name(signed.issuer)} at {signed.issued_at_ms / 1000 - EPOCH_S:.2f}"
        advert = signed.body
        if not isinstance(advert, Advert):
            return f"{who} {self.text(advert)}"
        offered = ", ".join(f"{found.skill}:{found.model}" for found in advert.capabilities) or "nothing"
        leaving = ", draining" if advert.draining else ""
        load = f"{advert.busy} of {advert.slots} busy, {advert.queued} queued"
        return f"{who} ({offered}; {load}{leaving})"

    def text(self, value: Any, name: str = "") -> str:
        match value:
            case bytes():
                return self._name(value) if len(value) == NODE_BYTES else self.labels.get(value, value.hex())
            case str():
                return f'"{value}"'
            case float():
                return f"{value:.2f}"
            case tuple():
                return ", ".join(self.text(item) for item in value) or "none"
            case ErrorCode():
                return value.name
            case int() if name in VERSIONS and value:
                return f"{value / 1000 - EPOCH_S:.2f}"
            case int() if name == "code":
                return error_code(value).name
            case Turn(role, text):
                return f'{role}: "{text}"'
            case Contact(node, addresses):
                return f"{self._name(node) if node else 'whoever'} at {', '.join(addresses)}"
            case Subject():
                return self._subject(value)
            case Signed():
                return self.signed(value)
            case TaskRequest():
                return self._request(value)
            case Outcome():
                return self._outcome(value)
            case AttemptEnd():
                return f"{value.name} {value.code.name if value.code else 'answered'} after {value.seconds:.2f} s"
        if is_dataclass(value):
            shown = [(field.name, getattr(value, field.name)) for field in fields(value)]
            # A notice names its peer twice, by id and by name; once is enough here.
            told = [f"{key}={self.text(found, key)}" for key, found in shown if key != "name"]
            return f"{type(value).__name__}({', '.join(told)})"
        return str(value)

    def _subject(self, subject: Subject) -> str:
        if subject.digest:
            return f"the file {subject.digest.hex()[:8]}"
        return f'the model "{subject.model}"' if subject.model else f'"{subject.skill}"' if subject.skill else "membership"

    def _request(self, request: TaskRequest) -> str:
        left = f"{request.deadline_ms / 1000:g} s left"
        wanted = f"{request.skill} with {request.model}"
        return f"TaskRequest({self.text(request.attempt)}, {wanted}, {left}, {self.text(request.turns)})"

    def _outcome(self, outcome: Outcome) -> str:
        end = "answered" if outcome.code is None else outcome.code.name
        reason = f' "{outcome.reason}"' if outcome.reason else ""
        model = f" with {outcome.model}" if outcome.model else ""
        worker = f" by {outcome.worker_name}{model}" if outcome.worker else ""
        return f"{end}{worker} after {outcome.seconds:.2f} s{reason} (attempts: {self.text(outcome.attempts)})"
