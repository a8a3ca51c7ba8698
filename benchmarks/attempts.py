"""Ten thousand tasks over the same links, some cancelled, refused or cut: nothing stays behind at asker and workers."""

import re
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.client import HTTPException
from itertools import count
from pathlib import Path
from threading import Thread
from time import monotonic, sleep

import psutil

from benchmarks.figures import Figure
from tests.processes import ControlError, RealNode, Starter, real_nodes
from tests.relays import Relay

MARKS = (1_000, 5_000, 10_000)
AT_ONCE = 16
WORKERS = 3
MODELS = ("echo:", "echo:model=slow,delay_ms=50,words=100")
NARROW = "echo:model=narrow,slots=1,first_ms=400"
FLOOD = 40  # Tasks handed over to the narrow one at once, more than its queue holds: it refuses for a quarter of a minute.
CUT_EVERY = 400
CUT_GAP_S = 5.0  # At least: links that never last are another trouble (simulations/scenarios/flapping.toml).
NOWHERE = "/ip4/127.0.0.1/tcp/9"
LEG_S_MAX = 110.0  # On a machine that is too slow for so many, fewer must do.
REST_S = 42.0  # Connections that a redial has left idle are closed after half a minute, at the next look.
GROWTH_MB = 4.0
SPARE = 4  # Streams or connections that a redial or a question to the DHT has just opened.
TASKS_EACH = 12  # Of the loop, for one connection.
HELD = re.compile(r"^(swarm_connections|swarm_streams|process_loop_tasks) (\d+)$", re.MULTILINE)
ATTEMPTS = re.compile(r'^swarm_attempts_total\{end="(\w+)",why="\w+"\} (\d+)$', re.MULTILINE)


@dataclass(slots=True)
class Run:
    """What was asked so far, and how it went."""

    asker: RealNode
    relays: Sequence[Relay]
    numbers: "count[int]" = field(default_factory=lambda: count(1))
    ends: list[str] = field(default_factory=list)  # Appended to by many threads.
    cut_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Held:
    """What some processes hold, summed up."""

    connections: int
    streams: int
    tasks: int
    files: int
    megabytes: float


def measure(folder: Path) -> list[Figure]:
    with ExitStack() as relayed, real_nodes(folder) as start:
        workers, relays = [], []
        for number in range(WORKERS):
            worker, relay = _behind_a_relay(start, relayed, f"worker-{number}")
            workers.append(worker)
            relays.append(relay)
        narrow = start.start("narrow", models=(NARROW,))
        join = tuple(node.addresses[0] for node in (*workers, narrow))
        # Nobody can dial the asker, so that every link is one that a relay can cut.
        asker = start.start("asker", join=join, **{"node.announce": [NOWHERE]})
        asker.wait_for("chat", len(MODELS) * WORKERS + 1)
        run = Run(asker, relays)
        held: list[tuple[int, tuple[Held, Held]]] = []
        for mark in MARKS:
            _work(run, mark)
            held.append((len(run.ends), _rested(asker, workers, held[0][1] if held else None)))
        attempts = Counter[str]()
        for end, number in ATTEMPTS.findall(asker.metrics()):
            attempts[end] += int(number)
    return [*_ends(Counter(run.ends), attempts), *_figures("the asker", held, 0), *_figures(f"{WORKERS} workers", held, 1)]


def _behind_a_relay(start: Starter, relayed: ExitStack, name: str) -> tuple[RealNode, Relay]:
    relay = Relay()
    relayed.callback(relay.close)
    node = start.start(name, models=MODELS, **{"node.announce": [relay.address]})
    relay.port = _port_for_others(node)
    return node, relay


def _port_for_others(node: RealNode) -> int:
    """Where it listens, and not for its own users."""
    listening = [each for each in psutil.Process(node.process.pid).net_connections("tcp4") if each.status == psutil.CONN_LISTEN]
    return next(int(each.laddr.port) for each in listening if not node.api.endswith(f":{each.laddr.port}"))


# --- Work -------------------------------------------------------------------------------------------------------------


def _work(run: Run, until: int) -> None:
    for number in range(FLOOD):
        run.asker.control("POST", "tasks", {"text": f"Item {number} of {until}.", "model": "narrow", "deadline_s": 30})
    ends = monotonic() + LEG_S_MAX
    threads = [Thread(target=_ask_on, args=(run, until, ends)) for _ in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _ask_on(run: Run, until: int, ends: float) -> None:
    while len(run.ends) + AT_ONCE <= until and monotonic() < ends:
        number = next(run.numbers)
        if number % CUT_EVERY == 0 and monotonic() - run.cut_at >= CUT_GAP_S:
            run.cut_at = monotonic()
            run.relays[number // CUT_EVERY % len(run.relays)].cut()
        try:
            match number % 20:
                case 7:
                    end = _leave_early(run.asker, number)
                case 13:
                    end = _insist(run.asker, number)
                case _:
                    end = _ask(run.asker, number)
        except (OSError, HTTPException) as error:
            end = f"trouble: {type(error).__name__}"
        run.ends.append(end)


def _ask(asker: RealNode, number: int) -> str:
    text = f"Question {number} is like no other."
    try:
        said, end = asker.ask(text, model="echo")
    except ControlError as refused:
        return f"not accepted: {refused.answer['error']['code']}"
    if end["code"]:
        return f"failed: {end['code']}"
    return "answered" if said == text else "wrong text"


def _leave_early(asker: RealNode, number: int) -> str:
    """The user goes away after the first word."""
    try:
        for event, _ in asker.stream(f"Question {number} of an impatient user.", model="slow"):
            if event == "text":
                return "cancelled"
    except ControlError as refused:
        return f"not accepted: {refused.answer['error']['code']}"
    return "cancelled in vain"


def _insist(asker: RealNode, number: int) -> str:
    """Ask a worker that is busy, and has to refuse what it could not begin in time."""
    try:
        _, end = asker.ask(f"Question {number} for the busy.", model="narrow", deadline_s=0.3)
    except ControlError as refused:
        return f"refused or too late: {refused.answer['error']['code']}"
    return "answered by the busy" if not end["code"] else f"refused or too late: {end['code']}"


# --- What stays behind ------------------------------------------------------------------------------------------------


def _rested(asker: RealNode, workers: Sequence[RealNode], before: tuple[Held, Held] | None) -> tuple[Held, Held]:
    """What they hold once they have come to rest: after REST_S, or as soon as it is no more than before."""
    until = monotonic() + REST_S
    while True:
        now = _held([asker]), _held(workers)
        if monotonic() > until or (before is not None and all(map(_is_no_more, now, before))):
            return now
        sleep(1)


def _is_no_more(now: Held, before: Held) -> bool:
    return now.connections <= before.connections and now.tasks <= before.tasks + TASKS_EACH


def _held(nodes: Sequence[RealNode]) -> Held:
    pages = [dict(HELD.findall(node.metrics())) for node in nodes]
    processes = [psutil.Process(node.process.pid) for node in nodes]

    def total(name: str) -> int:
        return sum(int(page[name]) for page in pages)

    return Held(
        total("swarm_connections"), total("swarm_streams"), total("process_loop_tasks"),
        sum(process.num_fds() for process in processes), sum(process.memory_info().rss for process in processes) / 2**20,
    )  # fmt: skip


def _ends(ends: Counter[str], attempts: Counter[str]) -> list[Figure]:
    wrong = sum(count for end, count in ends.items() if end.startswith(("wrong", "trouble", "failed")))
    return [
        Figure("tasks", str(ends.total()), f">= {MARKS[-1] - AT_ONCE}", ends.total() >= MARKS[-1] - AT_ONCE),
        *(Figure(f"  {end}", str(count)) for end, count in ends.most_common()),
        Figure(f"  their attempts, and those of {len(MARKS) * FLOOD} that were handed over", str(attempts.total())),
        *(Figure(f"    {end}", str(count)) for end, count in attempts.most_common()),
        Figure("  plain questions that failed, or got another text", str(wrong), "0", wrong == 0),
    ]


def _figures(who: str, held: Sequence[tuple[int, tuple[Held, Held]]], which: int) -> list[Figure]:
    """Side by side, after each mark. The last must be no more than the first, but for what is just being opened."""
    figures = [Figure(f"{who}, after {' / '.join(f'{done:,}' for done, _ in held)} tasks", "")]
    for name, spare in (("connections", SPARE), ("streams", SPARE), ("tasks", SPARE * TASKS_EACH), ("files", SPARE)):
        counts = [int(getattr(both[which], name)) for _, both in held]
        told = " / ".join(map(str, counts))
        figures.append(Figure(f"  {name}", told, f"+{spare} at most", counts[-1] <= counts[0] + spare))
    sizes = [both[which].megabytes for _, both in held]
    told = " / ".join(f"{size:.1f}" for size in sizes)
    figures.append(Figure("  memory (RSS)", f"{told} MB", f"+{GROWTH_MB:g} MB at most", sizes[-1] <= sizes[-2] + GROWTH_MB))
    return figures
