"""Random histories of a few members with messages in flight: whatever crosses, breaks or comes late, the promises hold.

Both ends of every link are real, so a message out of order raises by itself. What is checked beside that stands in `Ledger`.
Lesson of the prototype: without messages in flight, a cancel that crosses an accept is never found.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from protocol import errors
from protocol.identity import NodeId
from protocol.messages import TaskAccepted, TaskCancelled, TaskRefused, TaskRequest
from protocol.parts import AttemptId, Sampling, TaskId, Turn
from swarm.effects import (
    AttemptFailed,
    Conclude,
    DeadlinePassed,
    Effect,
    Generate,
    Notify,
    Reply,
    Send,
    ServiceDeadlinePassed,
    SetTimer,
    StopGenerating,
)
from swarm.events import (
    AskCancelled,
    Asked,
    CapabilitiesChanged,
    ContactsFound,
    Event,
    GenerationFailed,
    GenerationFinished,
    LoopLate,
    NeighbourDown,
    PieceGenerated,
    Received,
    Stopping,
    TimerFired,
)
from swarm.settings import Settings
from swarm.values import MEMBERSHIP, Contact, Outcome, Privacy, Subject, Task, Usage
from tests.swarm.small_world import Node, SmallWorld, address, capability, identity

NAMES = ("ada", "bob", "cyd", "dan")
SETTINGS = Settings(
    tasks_max=3, attempts_max=3, queue_max=1, adverts_max=8, contacts_max=8, neighbours_target=2,
    gossip_period_s=5.0, gossip_renewal_period_s=5.0, sweep_period_s=4.0,
    pulse_period_s=30.0, digest_period_s=30.0,  # Slower than real: cheaper.
)  # fmt: skip
OFFERS = {
    "ada": (),
    "bob": (capability("chat", "small"),),
    "cyd": (capability("chat", "large", slots=2, tokens_per_second=60.0), capability("code", "coder")),
    "dan": (capability("chat", "small", tokens_per_second=90.0), capability("code", "small")),
}
DEADLINE_S_MAX = 30.0
QUIET_S = 50.0  # Longer than any deadline, and than it takes to notice a dead link.

BUSY_NUMBERS = (errors.BUSY.number, errors.OVER_QUOTA.number)  # Who says so may be asked again.
CRASHED = "crashed"


@dataclass(slots=True)
class Answer:
    """What has come of one task, as its user sees it."""

    until: float
    attempt: bytes = b""
    pieces: int = 0


@dataclass(slots=True)
class Ledger:
    """Keeps account of every promise, from what members are told and what they want."""

    clock: Callable[[], float]
    open: dict[tuple[Node, TaskId], Answer] = field(default_factory=dict)
    concluded: set[TaskId] = field(default_factory=set)
    begun: set[tuple[Node, AttemptId]] = field(default_factory=set)
    written: Counter[AttemptId] = field(default_factory=Counter)
    slots: dict[Node, dict[str, int]] = field(default_factory=dict)
    placed: set[tuple[TaskId, NodeId]] = field(default_factory=set)
    requester: dict[AttemptId, NodeId] = field(default_factory=dict)
    task_of: dict[AttemptId, TaskId] = field(default_factory=dict)

    def text(self, attempt: AttemptId) -> str:
        """The next piece of an attempt; it tells where it belongs."""
        self.written[attempt] += 1
        return f"{attempt.hex()} {self.written[attempt] - 1}"

    def observe(self, node: Node, event: Event, effects: list[Effect]) -> None:
        match event:
            case Asked(task):
                self.open[node, task.id] = Answer(self.clock() + task.deadline_s)
            case CapabilitiesChanged(capabilities):
                self.slots[node] = {offered.model: offered.slots for offered in capabilities}
            case Received(sender, TaskRequest(attempt)):
                self.requester[attempt] = sender
            case Received(sender, TaskRefused(attempt, code)) if code in BUSY_NUMBERS:
                self.placed.discard((self.task_of[attempt], sender))
            case Received(sender, TaskAccepted(attempt)) if Send(sender, TaskCancelled(attempt)) in effects:
                # It leaves a queue before its turn; should the other worker fail, this one may be asked again.
                self.placed.discard((self.task_of[attempt], sender))
        running = Counter(generation.model for generation in node.generations.values())
        for effect in effects:
            match effect:
                case Send(to, message):
                    assert to != node.id, "what a member sends to itself stays inside"
                    if isinstance(message, TaskRequest):
                        assert (message.task, to) not in self.placed, "a worker gets a task once, unless it was busy"
                        self.placed.add((message.task, to))
                        self.task_of[message.attempt] = message.task
                case SetTimer(delay_s, _):
                    assert 0.0 <= delay_s < float("inf")
                case Reply(task, text):
                    self.reply(self.open[node, task], text)
                case Conclude(task, outcome):
                    self.conclude(self.open.pop((node, task)), task, outcome)
                    was_at_work = bool(outcome.attempts) and outcome.attempts[-1].code is errors.CANCELLED
                    if outcome.code is errors.CANCELLED and was_at_work and outcome.worker in node.ends:
                        assert any(isinstance(other, Send) and other.to == outcome.worker for other in effects)
                case Notify(AttemptFailed(_, _, _, errors.BACKEND_FAILED.number, reason)):
                    assert reason in (CRASHED, "the model is gone"), "and no piece is ever missing"
                case Generate(request, model):
                    assert (node, request.attempt) not in self.begun
                    self.begun.add((node, request.attempt))
                    running[model] += 1
                    assert running[model] <= self.slots[node][model]
        self.check_ends(node, event, effects)

    def reply(self, answer: Answer, text: str) -> None:
        assert self.clock() <= answer.until, "late text is no text"
        attempt, index = text.split()
        answer.attempt = answer.attempt or bytes.fromhex(attempt)
        assert (bytes.fromhex(attempt), int(index)) == (answer.attempt, answer.pieces), "one worker's text, in order"
        answer.pieces += 1

    def conclude(self, answer: Answer, task: TaskId, outcome: Outcome) -> None:
        assert task not in self.concluded
        self.concluded.add(task)
        if outcome.code is None and answer.pieces:
            assert answer.pieces == self.written[AttemptId(answer.attempt)], "complete means all of it"

    def check_ends(self, node: Node, event: Event, effects: list[Effect]) -> None:
        """What must be over once a member has been told this."""
        must_stop: list[AttemptId] = []
        match event:
            case TimerFired(DeadlinePassed(task)):
                assert (node, task) not in self.open
            case TimerFired(ServiceDeadlinePassed(attempt)):
                must_stop = [attempt]
            case NeighbourDown(peer):
                must_stop = [attempt for attempt in node.generations if self.requester.get(attempt) == peer]
            case Stopping():
                assert all(owner is not node for owner, _ in self.open)
        told = [*node.stopped, *[effect.attempt for effect in effects if isinstance(effect, StopGenerating)]]
        assert all(attempt in told for attempt in must_stop if attempt in node.generations)


numbers = st.integers(0, 11)  # Who, or which: counted round what there is.
orders = st.lists(numbers, min_size=1, max_size=10)  # Which of the things on their way arrive, one after the other.
STEPS: dict[str, st.SearchStrategy[tuple[Any, ...]]] = {
    "arrive": st.tuples(orders),
    "ask": st.tuples(
        numbers,
        st.sampled_from(["chat"] * 6 + ["code", "paint"]),
        st.sampled_from([DEADLINE_S_MAX] * 5 + [0.5, 3.0]),
        st.sampled_from([None] * 12 + list(NAMES)),
        st.sampled_from([Privacy.SWARM] * 8 + [Privacy.LOCAL]),
    ),
    "work": st.tuples(numbers, st.sampled_from(["writes"] * 4 + ["finishes"] * 2 + ["fails", "obeys"])),
    "cancel": st.tuples(numbers),
    "pass_time": st.tuples(st.integers(1, 10), st.sampled_from([0.0, 0.0, 0.0, 0.001, 1.0, 5.0, 20.0])),
    "suffer": st.tuples(
        numbers, numbers, st.sampled_from(["break", "break", "freeze", "kill", "stop", "models", "late"])
    ),
}
# One rule for all steps: with a rule each, Hypothesis leaves whole rules out of half of the histories.
WEIGHTS = {"arrive": 10, "ask": 5, "work": 10, "cancel": 2, "pass_time": 2, "suffer": 2}
kinds = st.sampled_from([kind for kind, weight in WEIGHTS.items() for _ in range(weight)])
steps = kinds.flatmap(lambda kind: st.tuples(st.just(kind), STEPS[kind]))


class Histories(RuleBasedStateMachine):
    """Two to four members, and everything that can happen to them."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger(lambda: self.world.now)
        self.world = SmallWorld(self.ledger.observe)
        self.tasks: list[tuple[Node, TaskId]] = []
        self.models_work = False

    @initialize(count=st.integers(2, 4), have_met=st.sampled_from([True, True, True, False]), models_work=st.booleans())
    def start(self, count: int, have_met: bool, models_work: bool) -> None:
        """`models_work`: at the end they write what they still have to, rather than only stop when told."""
        self.models_work = models_work
        self.world.providers[Subject("code")] = ["cyd", "dan"]
        for name in NAMES[:count]:
            self.world.start(name, SETTINGS, OFFERS[name])
        for name in NAMES[1:count]:
            self.world.post(self.world.nodes["ada"], ContactsFound("join", MEMBERSHIP, (Contact(None, (address(name),)),)))
        if have_met:
            self.let_all_arrive()

    @rule(step=steps)
    def happens(self, step: tuple[str, tuple[Any, ...]]) -> None:
        kind, details = step
        getattr(self, kind)(*details)

    def node(self, number: int) -> Node:
        return list(self.world.nodes.values())[number % len(self.world.nodes)]

    # --- Users --------------------------------------------------------------------------------------------------------

    def ask(self, number: int, skill: str, deadline_s: float, worker: str | None, privacy: Privacy) -> None:
        node = self.node(number)
        if not node.alive or node.frozen:
            return
        task = TaskId(len(self.tasks).to_bytes(16, "big"))
        self.tasks.append((node, task))
        wanted = identity(worker).node if worker else None
        turns = (Turn("user", "hello"),)
        asked = Task(task, skill, turns, "", 16, Sampling(), (), deadline_s, privacy, wanted)
        self.world.post(node, Asked(asked))

    def cancel(self, number: int) -> None:
        """One of the latest tasks, over or not."""
        if latest := self.tasks[-4:]:
            node, task = latest[number % len(latest)]
            self.world.post(node, AskCancelled(task))

    # --- Messages -----------------------------------------------------------------------------------------------------

    def arrive(self, order: list[int]) -> None:
        for number in order:
            if pending := self.world.pending():
                self.world.let(pending[number % len(pending)])

    def let_all_arrive(self) -> None:
        for _ in range(2_000):
            if not (pending := self.world.pending()):
                return
            self.world.let(pending[0])
        raise AssertionError("two members are talking in circles")

    # --- Models -------------------------------------------------------------------------------------------------------

    def running(self) -> list[tuple[Node, AttemptId]]:
        return [(node, attempt) for node in self.world.nodes.values() if node.alive for attempt in node.generations]

    def work(self, number: int, does: str) -> None:
        """One model goes on. It may end by itself just after it was told to stop."""
        if not (running := self.running()):
            return
        node, attempt = running[number % len(running)]
        match does:
            case "writes":
                if attempt not in node.stopped:
                    self.world.post(node, PieceGenerated(attempt, self.ledger.text(attempt)))
            case "finishes":
                self.world.end_generation(node, GenerationFinished(attempt, Usage("stop", 1, 2, 0.1, 0.2)))
            case "fails":
                self.world.end_generation(node, GenerationFailed(attempt, errors.BACKEND_FAILED.number, CRASHED))
            case _:
                self.world.obey_stops(node)

    # --- Time ---------------------------------------------------------------------------------------------------------

    def pass_time(self, count: int, late_s: float) -> None:
        """Some timers fire, perhaps all of them late."""
        self.world.now += late_s
        for _ in range(count):
            if self.world.next_timer_at() < float("inf"):
                self.world.fire_next_timer()

    # --- Mishaps ------------------------------------------------------------------------------------------------------

    def suffer(self, number: int, other: int, what: str) -> None:
        node, peer = self.node(number), self.node(other)
        if not node.alive:
            self.world.start(node.name, SETTINGS, OFFERS[node.name])
            return
        match what:
            case "break":
                if peer.alive and peer is not node:
                    self.world.break_link(node, peer, "the connection broke")
            case "freeze" if node.frozen:
                self.world.thaw(node)
            case "freeze":
                node.frozen = True
            case "kill":
                self.end_process(node)
            case "stop":
                self.world.post(node, Stopping())
                self.world.obey_stops(node)
                self.end_process(node)
            case "models":
                self.world.post(node, CapabilitiesChanged(OFFERS[peer.name]))
            case _:
                self.world.post(node, LoopLate(0.5))

    def end_process(self, node: Node) -> None:
        self.world.kill(node)
        # Its users are gone with it.
        for key in [key for key in self.ledger.open if key[0] is node]:
            del self.ledger.open[key]

    # --- What holds at all times --------------------------------------------------------------------------------------

    @invariant()
    def bounds_hold(self) -> None:
        for node in self.world.nodes.values():
            member = node.member
            assert len(member.asking) <= SETTINGS.tasks_max
            _, busy, queued = member.serving.load()
            assert busy >= 0
            # One queue for this node's own user and one for its peers.
            assert 0 <= queued <= 2 * SETTINGS.queue_max
            slots = self.ledger.slots.get(node, {}).values()
            assert not queued or busy >= min(slots), "nothing waits beside a free slot"
            assert len(member.index) <= SETTINGS.adverts_max

    @invariant()
    def what_runs_is_what_was_begun(self) -> None:
        for node in self.world.nodes.values():
            if node.alive and not node.frozen:
                assert member_busy(node) == len(node.generations)

    @invariant()
    def nobody_waits_for_a_link_that_is_gone(self) -> None:
        for node in self.world.nodes.values():
            if node.alive and not node.frozen:
                reachable = [node.id, *node.ends, *[contact.node for contact, _ in node.dials]]
                assert all(worker in reachable for worker in node.member.asking.workers())

    @invariant()
    def members_know_their_links(self) -> None:
        for node in self.world.nodes.values():
            if node.alive and not node.frozen:
                assert sorted(node.member.roster.nodes()) == sorted(node.ends)

    @invariant()
    def attempts_under_way_are_counted(self) -> None:
        for node in self.world.nodes.values():
            under_way = Counter(node.member.asking.workers())
            for other in NAMES:
                standing = node.member.standings.of(identity(other).node, self.world.now)
                assert (standing.inflight if standing else 0) == under_way[identity(other).node]

    @invariant()
    def open_tasks_are_the_members_open_tasks(self) -> None:
        for node in self.world.nodes.values():
            if node.alive and not node.frozen:
                assert len(node.member.asking) == sum(owner is node for owner, _ in self.ledger.open)

    # --- And in the end -----------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        """Nothing goes wrong any more: every task ends, and no trace of an attempt is left anywhere."""
        for node in list(self.world.nodes.values()):
            if node.alive:
                self.world.thaw(node)
        until = self.world.now + QUIET_S
        while self.world.next_timer_at() < until:
            self.let_all_arrive()
            for node in self.world.nodes.values():
                self.world.obey_stops(node)
            if self.models_work:
                self.work(0, "writes")
                self.work(0, "finishes")
            self.let_all_arrive()
            self.world.fire_next_timer()
        while self.running():
            self.work(0, "finishes")
        self.let_all_arrive()
        assert not self.ledger.open, "a task without an end"
        for node in self.world.nodes.values():
            if node.alive:
                assert node.member.serving.load()[1:] == (0, 0)
                assert not node.generations
                for end in node.ends.values():
                    assert len(end.link._exchanges) == 0
        self.bounds_hold()
        self.attempts_under_way_are_counted()


def member_busy(node: Node) -> int:
    return node.member.serving.load()[1]


PATIENT = settings(deadline=None, suppress_health_check=list(HealthCheck))


def test_random_histories_keep_every_promise() -> None:
    run_state_machine_as_test(Histories, settings=settings(PATIENT, max_examples=80, stateful_step_count=40))


@pytest.mark.slow
def test_many_long_histories_keep_every_promise() -> None:
    run_state_machine_as_test(Histories, settings=settings(PATIENT, max_examples=1_500, stateful_step_count=80))
