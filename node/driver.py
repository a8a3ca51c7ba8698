"""One inbox in front of one member: hands it each event, performs the effects in order, and never waits for one.

Whoever posts an event drains the inbox in the same breath, so nothing queues up behind a busy loop, and what slows a peer down
is its own stream's back-pressure. A member that raises is a bug: the driver keeps the exception, and `run` ends the node with it.
"""

import heapq
from collections import deque
from collections.abc import Callable
from typing import assert_never

import trio

from node.transport import Transport
from protocol.parts import AttemptId
from swarm.effects import (
    Announce,
    Assigned,
    Conclude,
    Dial,
    DialBack,
    Disconnect,
    Effect,
    FindProviders,
    Generate,
    Notify,
    PlanConcluded,
    Provide,
    Reply,
    Send,
    SetTimer,
    StopGenerating,
    Timer,
    UseRelays,
)
from swarm.events import Event, LoopLate, TimerFired
from swarm.member import Member

LATE_CHECK_S = 0.5  # Between looks at how late this loop runs.
LATE_S = 0.25  # Later than this, silence of others may be our own deafness (Lifeguard).
LATE_S_MAX = 60.0  # Told of it. A laptop that has slept for hours has heard everybody again long before.

UserEffect = Reply | Conclude | Assigned | PlanConcluded | Notify


class Driver:
    """Runs one member in the real world. All methods are called from the node's own trio loop."""

    def __init__(
        self,
        member: Member,
        transport: Transport,
        clock: Callable[[], float],
        generate: Callable[[Generate], None],
        stop_generating: Callable[[AttemptId], None],
        tell_user: Callable[[UserEffect], None],
    ) -> None:
        """`generate` and `stop_generating` start and stop work of this node's models; `tell_user` must not block either."""
        self._member, self._transport, self._clock = member, transport, clock
        self._generate, self._stop_generating, self._tell_user = generate, stop_generating, tell_user
        self._inbox: deque[Event] = deque()
        self._ahead_s: float | None = None  # The member's clock, of the loop's.
        self._draining = False
        self._timers: list[tuple[float, int, Timer]] = []
        self._timers_set = 0
        self._timer_changed = trio.Event()
        self._failed = trio.Event()
        self._failure: BaseException | None = None

    def post(self, event: Event) -> None:
        """Hand an event to the member. Never blocks and never raises; after a failure nothing happens any more."""
        if self._failure is not None:
            return
        if slept_s := self._slept_s():
            self._inbox.append(_late(slept_s))  # Before any event of a time that the member has not seen coming.
        self._inbox.append(event)
        if self._draining:
            return
        self._draining = True
        try:
            while self._inbox:
                self._handle(self._inbox.popleft())
        except Exception as failure:
            # The one place that may: a member must not take the transport's task down with it, but the node.
            self._failure = failure
            self._failed.set()
        finally:
            self._draining = False

    async def run(self) -> None:
        """Fire timers and watch this loop's own lateness until cancelled. Raises whatever the member raised."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._fire_timers)
            nursery.start_soon(self._watch_lateness)
            await self._failed.wait()
            nursery.cancel_scope.cancel()
        if self._failure is not None:
            raise self._failure

    def _handle(self, event: Event) -> None:
        for effect in self._member.handle(event, self._clock()):
            self._perform(effect)

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Send(to, message):
                self._transport.send(to, message)
            case Reply() | Conclude() | Assigned() | PlanConcluded() | Notify():
                self._tell_user(effect)
            case SetTimer(delay_s, timer):
                self._set_timer(delay_s, timer)
            case Generate():
                self._generate(effect)
            case StopGenerating(attempt):
                self._stop_generating(attempt)
            case Dial():
                self._transport.dial(effect)
            case Disconnect(node, cause):
                self._transport.disconnect(node, cause)
            case DialBack(node, addresses):
                self._transport.dial_back(node, addresses)
            case UseRelays(nodes):
                self._transport.use_relays(nodes)
            case Announce(addresses):
                self._transport.announce(addresses)
            case Provide(subjects):
                self._transport.provide(subjects)
            case FindProviders(subject):
                self._transport.find_providers(subject)
            case _:
                assert_never(effect)

    def _set_timer(self, delay_s: float, timer: Timer) -> None:
        self._timers_set += 1  # Timers of one moment fire in the order in which they were set.
        due = trio.current_time() + delay_s
        if not self._timers or due < self._timers[0][0]:
            self._timer_changed.set()
        heapq.heappush(self._timers, (due, self._timers_set, timer))

    async def _fire_timers(self) -> None:
        while True:
            late_s = trio.current_time() - self._timers[0][0] if self._timers else 0.0
            if late_s > LATE_S:
                self.post(_late(late_s))  # Before any timer blames somebody for the silence.
            while self._timers and self._timers[0][0] <= trio.current_time():
                self.post(TimerFired(heapq.heappop(self._timers)[2]))
            self._timer_changed = trio.Event()
            with trio.move_on_at(self._timers[0][0] if self._timers else float("inf")):
                await self._timer_changed.wait()

    async def _watch_lateness(self) -> None:
        while True:
            due = trio.current_time() + LATE_CHECK_S
            await trio.sleep_until(due)
            late_s = trio.current_time() - due
            if late_s > LATE_S:
                self.post(_late(late_s))
            elif slept_s := self._slept_s():
                self.post(_late(slept_s))

    def _slept_s(self) -> float:
        """How long this machine has slept since the last look, or its clock has leapt: the loop's own clock does not tell."""
        before = self._ahead_s
        self._ahead_s = self._clock() - trio.current_time()
        slept_s = 0.0 if before is None else self._ahead_s - before
        return slept_s if slept_s > LATE_S else 0.0


def _late(late_s: float) -> LoopLate:
    return LoopLate(min(late_s, LATE_S_MAX))
