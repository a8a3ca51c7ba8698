"""What this node counts for whoever watches many of them, and how Prometheus wants to read it.

The text format is Prometheus' own, version 0.0.4: a line of help, one of type, and the samples. Counters begin anew with the
process. No text of a task is in it, nor a name that a peer chose.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from node.transport import Counts
from node.views import AnswerView, StatusView
from protocol.errors import ERROR_CODES

# Seconds. From an own small model's first word to the longest task; about a factor of two between them.
FIRST_TEXT_BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
WHOLE_BOUNDS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_CODES = frozenset(code.name for code in ERROR_CODES.values())
_WHYS = ("first", "retry", "hedge", "silence", "resume", "moved")

Labels = tuple[tuple[str, str], ...]
Sample = tuple[str, Labels, float]


@dataclass(slots=True)
class Histogram:
    """How many values were at most each bound; the last count is of those above all."""

    bounds: Sequence[float]
    counts: list[int] = field(init=False)
    sum: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


@dataclass(slots=True)
class Tallies:
    """What has become of the tasks of this node's users, and of their attempts."""

    answered: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    attempts: Counter[tuple[str, str]] = field(default_factory=Counter)
    plans: Counter[str] = field(default_factory=Counter)  # By `done` and `failed`.
    first_text_s: Histogram = field(default_factory=lambda: Histogram(FIRST_TEXT_BOUNDS_S))
    whole_s: Histogram = field(default_factory=lambda: Histogram(WHOLE_BOUNDS_S))

    def concluded(self, answer: AnswerView) -> None:
        if answer.code:
            self.failed[_code(answer.code)] += 1
        else:
            self.answered += 1
            self.whole_s.add(answer.seconds)
        if answer.first_piece_s is not None:
            self.first_text_s.add(answer.first_piece_s)
        for attempt in answer.attempts:
            why = attempt.why if attempt.why in _WHYS else "other"
            self.attempts[_code(attempt.code) if attempt.code else "answered", why] += 1


def _code(name: str) -> str:
    """A peer may send any number for a code, and must not make us a series of each."""
    return name if name in _CODES else "other"


@dataclass(frozen=True, slots=True)
class Measures:
    """Everything that is shown. `hedged` and `resumed` count attempts, `slots` to `queued` are this node's own as a worker.

    `loop_tasks` are the concurrent jobs of the process, of every connection some.
    """

    status: StatusView
    tallies: Tallies
    hedged: int
    resumed: int
    neighbours: int
    adverts: int
    slots: int
    busy: int
    queued: int
    cpu_s: float
    counts: Counts
    loop_tasks: int


def exposition(measures: Measures) -> str:
    """The whole page."""
    status, tallies, counts = measures.status, measures.tallies, measures.counts
    parts = [
        _metric("swarm_info", "gauge", "This node.", [("", (("version", status.version), ("node", status.node)), 1)]),
        _one("swarm_ready", "gauge", "1 once the node is ready for tasks.", status.state == "ready"),
        _one("swarm_uptime_seconds", "gauge", "Since the process began.", status.uptime_s),
        _one("swarm_tasks_asked_total", "counter", "Tasks that users of this node asked.", status.asked),
        _one("swarm_tasks_answered_total", "counter", "Those with a complete answer.", tallies.answered),
        _counted("swarm_tasks_failed_total", "Those without, by code.", "code", tallies.failed),
        _one("swarm_tasks_served_total", "counter", "Attempts of others that this node answered.", status.served),
        _attempts(tallies),
        _counted("swarm_plans_total", "Plans of users of this node, by how they ended.", "state", tallies.plans),
        _one("swarm_hedges_total", "counter", "Second workers asked because the first was slow.", measures.hedged),
        _one("swarm_resumes_total", "counter", "Attempts that went on in the middle of an answer.", measures.resumed),
        _histogram("swarm_first_text_seconds", "From asking to the first text.", tallies.first_text_s),
        _histogram("swarm_task_seconds", "From asking to the end of a complete answer.", tallies.whole_s),
        _one("swarm_neighbours", "gauge", "Nodes connected to this one.", measures.neighbours),
        _one("swarm_adverts", "gauge", "Workers whose adverts are known, this node included.", measures.adverts),
        _one("swarm_connections", "gauge", "Open connections, those of the DHT and of strangers included.", counts.connections),
        _one("swarm_streams", "gauge", "Open streams on them.", counts.streams),
        _counted(
            "swarm_link_sent_bytes_total",
            "Bytes put on links, before encryption, by message.",
            "message",
            counts.sent_bytes,
        ),
        _one("swarm_link_received_bytes_total", "counter", "Bytes that came over links.", counts.received_bytes),
        _counted("swarm_refused_total", "What was refused of peers, by reason.", "reason", status.refused),
        _one("swarm_slots", "gauge", "Attempts that this node's models can work on at once.", measures.slots),
        _one("swarm_slots_busy", "gauge", "Those in use.", measures.busy),
        _one("swarm_queue", "gauge", "Attempts that wait for a slot.", measures.queued),
        _one(
            "swarm_journal_ok",
            "gauge",
            "0 while tasks cannot be recorded, or after a journal was lost.",
            not status.journal,
        ),
        _one("process_resident_memory_bytes", "gauge", "Memory of this process without its models'.", status.rss_bytes),
        _one("process_loop_tasks", "gauge", "Concurrent jobs inside this process.", measures.loop_tasks),
        _one("process_cpu_seconds_total", "counter", "Processor time of this process.", measures.cpu_s),
    ]
    return "".join(parts)


def _metric(name: str, kind: str, help: str, samples: Iterable[Sample]) -> str:
    lines = [f"# HELP {name} {help}\n", f"# TYPE {name} {kind}\n"]
    for suffix, labels, value in samples:
        told = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels)
        lines.append(f"{name}{suffix}{{{told}}} {value:.10g}\n" if told else f"{name}{suffix} {value:.10g}\n")
    return "".join(lines)


def _one(name: str, kind: str, help: str, value: float) -> str:
    return _metric(name, kind, help, [("", (), value)])


def _counted(name: str, help: str, label: str, counts: Mapping[str, int]) -> str:
    return _metric(name, "counter", help, [("", ((label, key),), counts[key]) for key in sorted(counts)])


def _attempts(tallies: Tallies) -> str:
    samples: list[Sample] = [
        ("", (("end", end), ("why", why)), count) for (end, why), count in sorted(tallies.attempts.items())
    ]
    help = "Attempts of this node's tasks, by how they ended and why they were begun."
    return _metric("swarm_attempts_total", "counter", help, samples)


def _histogram(name: str, help: str, values: Histogram) -> str:
    samples: list[Sample] = []
    total = 0
    for bound, count in zip([*(f"{bound:g}" for bound in values.bounds), "+Inf"], values.counts, strict=True):
        total += count
        samples.append(("_bucket", (("le", bound),), total))
    return _metric(name, "histogram", help, [*samples, ("_sum", (), values.sum), ("_count", (), total)])


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
