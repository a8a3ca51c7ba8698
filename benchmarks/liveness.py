"""A dozen nodes, some of which die, freeze, vanish or sleep: how soon nobody counts on them, and nobody else is blamed."""

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Thread
from time import monotonic, sleep
from typing import Any

from benchmarks.figures import Figure, at_most
from benchmarks.flocks import everybody_knows_everybody, gone_after, sees, shown, start_flock
from benchmarks.islands import island
from tests.processes import RealNode, real_nodes

WORKERS = 11
WORKER = "echo:delay_ms=100,words=200"  # Still at work when its fate is known.
TIMES = 3  # Each of kill -9 and SIGSTOP.
PATIENCE_S = 20.0
SLEEP_S = 15.0
BACK_S = 60.0
WATCH_S = 60.0
SLOW_STOPPED_S, SLOW_RUNNING_S = 0.7, 0.3  # A machine that is out of memory.
POLL_S = 0.2


@dataclass(slots=True)
class Fate:
    """What a caller and the others saw of one node that went."""

    caller_s: float = PATIENCE_S
    swarm_s: float = PATIENCE_S


@dataclass(slots=True)
class Call:
    """A task of the caller under way, and who does it."""

    caller: RealNode
    wishes: dict[str, Any]
    worker: str = ""
    texts: int = 0
    over: bool = False
    thread: Thread | None = field(default=None)

    def begin(self) -> "Call":
        """Returns once a worker speaks."""
        self.thread = Thread(target=self._read)
        self.thread.start()
        until = monotonic() + PATIENCE_S
        while not self.texts:
            assert monotonic() < until, "no worker speaks"
            sleep(0.01)
        return self

    def end(self) -> None:
        self.over = True
        assert self.thread is not None
        self.thread.join()

    def _read(self) -> None:
        for event, data in self.caller.stream("Go on and on.", **self.wishes):
            if event == "route" and not self.texts:
                self.worker = next(found["name"] for found in data["candidates"] if found["chosen"])
            self.texts += event == "text"
            if self.over:
                return


def measure(folder: Path) -> list[Figure]:
    with island() as far, real_nodes(folder) as start:
        settings = {"node.listen": [f"/ip4/{far.here}/tcp/0"]} if far else {}
        nodes = start_flock(start, [(), *[(WORKER,)] * WORKERS], **settings)
        distant: list[RealNode] = []
        if far is not None:
            there = {"node.listen": [f"/ip4/{far.there}/tcp/0"], "inside": far.inside}
            distant.append(start.start("distant", models=(WORKER,), join=nodes[0].addresses[:1], **there))
        everybody_knows_everybody([*nodes, *distant])
        caller, alive = nodes[0], [*nodes, *distant]
        for node in alive[1:]:
            caller.ask("Hello!", peer=node.name, tokens_max=1)  # A stranger whose first answer fails is left alone for long.
        dead: list[RealNode] = []

        def strike(how: Callable[[RealNode], object], **wishes: Any) -> Fate:
            return _strike(caller, alive, dead, how, wishes)

        cut = [strike(lambda node: far.cut(), peer="distant")] if far is not None else []
        killed = [strike(RealNode.kill) for _ in range(TIMES)]
        frozen = [strike(partial(RealNode.kill, how=signal.SIGSTOP)) for _ in range(TIMES)]
        slept, back_s, used_s = _sleep(caller, alive)
        again, blamed = _watch(alive, dead)
    return [
        *_figures("kill -9", killed),
        *_figures("frozen (SIGSTOP)", frozen),
        *_figures("cut off without a word", cut),
        *_figures(f"asleep for {SLEEP_S:.0f} s", [slept]),
        Figure("  awake again: known to all", f"{back_s:.1f} s"),
        Figure("  awake again: answers its caller", f"{used_s:.1f} s"),
        Figure(f"dead nodes that came back to anybody's view in {WATCH_S:.0f} s", str(again), "0", again == 0),
        Figure("living nodes dropped by others on a slow node's word", str(blamed), "0", blamed == 0),
    ]


def _figures(what: str, fates: Sequence[Fate]) -> list[Figure]:
    if not fates:
        return [Figure(f"{what}: not measured, as it needs root and `ip`", "-")]
    return [
        at_most(f"{what}: out of its caller's routing, slowest of {len(fates)}", max(fate.caller_s for fate in fates), 3, "s"),
        at_most("  out of everybody's view", max(fate.swarm_s for fate in fates), 10, "s"),
    ]


def _strike(
    caller: RealNode, alive: list[RealNode], dead: list[RealNode], how: Callable[[RealNode], object], wishes: dict[str, Any]
) -> Fate:
    """Do this to a node that speaks to the caller. It is then no longer among those alive."""
    call = Call(caller, wishes).begin()
    victim = next(node for node in alive if node.name == call.worker)
    alive.remove(victim)
    dead.append(victim)
    began = monotonic()
    how(victim)
    fate = _fate(caller, alive, victim, began)
    call.end()
    return fate


def _fate(caller: RealNode, alive: Sequence[RealNode], victim: RealNode, began: float) -> Fate:
    fate = Fate()

    def watch_routing() -> None:
        while _is_routable(caller, victim) and monotonic() - began < PATIENCE_S:
            sleep(0.02)
        fate.caller_s = monotonic() - began

    watching = Thread(target=watch_routing)
    watching.start()
    fate.swarm_s = max(gone_after(began, victim, alive, PATIENCE_S).values())
    watching.join()
    return fate


def _is_routable(caller: RealNode, node: RealNode) -> bool:
    route = caller.control("POST", "route", {"text": "Who?"})
    return any(found["name"] == node.name for found in route["candidates"])


def _sleep(caller: RealNode, alive: list[RealNode]) -> tuple[Fate, float, float]:
    """What was seen of a worker that slept, and how long after it woke all knew it and it answered the caller again."""
    call = Call(caller, {}).begin()
    sleeper = next(node for node in alive if node.name == call.worker)
    others = [node for node in alive if node is not sleeper]
    began = monotonic()
    sleeper.kill(signal.SIGSTOP)
    fate = _fate(caller, others, sleeper, began)
    call.end()
    sleep(max(0.0, began + SLEEP_S - monotonic()))
    sleeper.kill(signal.SIGCONT)
    began, used_s = monotonic(), BACK_S
    while not all(sees(node, sleeper) for node in others) and monotonic() - began < BACK_S:
        sleep(POLL_S)
    back_s = monotonic() - began
    while monotonic() - began < BACK_S:
        if _is_routable(caller, sleeper):
            Call(caller, {"peer": sleeper.name}).begin().end()
            used_s = monotonic() - began
            break
        sleep(POLL_S)
    return fate, back_s, used_s


def _watch(alive: list[RealNode], dead: Sequence[RealNode]) -> tuple[int, int]:
    """How many of the dead somebody shows again, and how many of the living somebody drops, while one node stutters."""
    slow, others = alive[-1], alive[:-1]
    names, gone = {node.name for node in others}, {node.name for node in dead}
    again: set[str] = set()
    dropped: set[str] = set()
    stuttering = Thread(target=_stutter, args=(slow, until := monotonic() + WATCH_S))
    stuttering.start()
    while monotonic() < until:
        for node in others:
            seen = shown(node)
            again |= seen & gone
            dropped |= names - seen
        sleep(POLL_S)
    stuttering.join()
    return len(again), len(dropped)


def _stutter(node: RealNode, until: float) -> None:
    while monotonic() < until:
        node.kill(signal.SIGSTOP)
        sleep(SLOW_STOPPED_S)
        node.kill(signal.SIGCONT)
        sleep(SLOW_RUNNING_S)
