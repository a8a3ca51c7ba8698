"""Where users of this node hand in tasks and read answers: the only door from the API to the member."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import psutil
import trio

from node.answers import answer_view, route_view, unfinished_view
from node.driver import UserEffect
from node.meeting import Meetings
from node.metrics import Measures, Tallies
from node.models import Models
from node.neighbourhood import peer_views, reach_view, skill_views
from node.recording import Recorder
from node.transport import Counts
from node.views import (
    AnswerView,
    ModelView,
    PeerView,
    RouteView,
    SkillView,
    StatusView,
)
from protocol import errors
from protocol.errors import ErrorCode
from protocol.identity import node_text
from protocol.parts import Logprob, TaskId
from swarm.effects import (
    Assigned,
    AttemptFailed,
    Conclude,
    JoinFailed,
    Notice,
    Notify,
    PeerJoined,
    PeerLost,
    PingAnswered,
    PingFailed,
    PlanConcluded,
    Reply,
    Routed,
    StepAdvanced,
    WorkerAccepted,
)
from swarm.events import AskCancelled, Asked, Event, PlanAsked, PlanCancelled
from swarm.member import Member
from swarm.values import PlanId, PlanOutcome, Task

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AskText:
    """The next text of the answer, and how likely its tokens were if the task demands it."""

    text: str
    logprobs: tuple[Logprob, ...] = ()


@dataclass(frozen=True, slots=True)
class AskRouted:
    """A worker was chosen; comes again after each failover."""

    route: RouteView


@dataclass(frozen=True, slots=True)
class AskEnded:
    """The last item. `code` None: complete. Otherwise `answer.reason` is a sentence for people."""

    code: ErrorCode | None
    answer: AnswerView


AskItem = AskText | AskRouted | AskEnded


@dataclass(frozen=True, slots=True)
class TaskEnded:
    """A task of a plan has ended: the only one of its step, or the one for an element."""

    step: str
    index: int
    answer: AnswerView


@dataclass(frozen=True, slots=True)
class PlanEnded:
    """The last item."""

    outcome: PlanOutcome


PlanItem = StepAdvanced | TaskEnded | PlanEnded


@dataclass(slots=True)
class _Ask:
    task: Task
    listen: Callable[[AskItem], None]
    routes: list[RouteView] = field(default_factory=list)
    said_at: float | None = None
    gap_s: float | None = None  # The longest silence between two texts.
    left: bool = False  # Nobody reads the items any more.

    def tell(self, item: AskItem) -> None:
        if not self.left:
            self.listen(item)


@dataclass(slots=True)
class _Plan:
    items: trio.MemorySendChannel[PlanItem]
    batch: str
    left: bool = False  # Nobody reads the items any more.

    def tell(self, item: PlanItem) -> None:
        if not self.left:
            self.items.send_nowait(item)


@dataclass(frozen=True, slots=True)
class Nameplate:
    """What the node says of itself; fixed once it is ready."""

    version: str
    swarm: str
    api: str
    addresses: tuple[str, ...]
    mdns: bool = False


class Desk:
    """What the API may ask of the node. All methods are called from the node's own trio loop."""

    def __init__(
        self,
        member: Member,
        models: Models,
        clock: Callable[[], float],
        post: Callable[[Event], None],
        counts: Callable[[], Counts],
        stop: Callable[[], None],
        recorder: Recorder,
    ) -> None:
        """`counts` tells what has crossed the links; `stop` begins the daemon's shutdown."""
        self._recorder = recorder
        self._tallies = Tallies()
        self._member, self._models, self._clock, self._post = member, models, clock, post
        self._counts, self._stop = counts, stop
        self._meetings = Meetings(member, clock, post)
        self.join, self.ping = self._meetings.join, self._meetings.ping
        self._asks: dict[TaskId, _Ask] = {}
        self._plans: dict[PlanId, _Plan] = {}
        self._process = psutil.Process(os.getpid())
        self._began = clock()
        self.state = "starting"
        self.plate = Nameplate("", "", "", ())

    # --- Tasks --------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def ask(self, task: Task) -> AsyncIterator[trio.MemoryReceiveChannel[AskItem]]:
        """Hand a task in; the channel yields its items and ends after AskEnded. Leaving the block early cancels the task.

        By the time the block is entered the task is in the journal, unless the disk fails or takes longer than anybody should wait
        for it. The worker has begun meanwhile: waiting for the disk and waiting for the first word are one wait.
        """
        await self._recorder.wait_room()
        # Unbounded here, because the member bounds the answer (`answer_bytes_max`) and the attempts.
        sending, receiving = trio.open_memory_channel[AskItem](math.inf)

        def listen(item: AskItem) -> None:
            sending.send_nowait(item)
            if isinstance(item, AskEnded):
                sending.close()

        ask = self._asks[task.id] = _Ask(task, listen)
        log.info("task %s: %s asked for", task.id.hex(), task.skill, extra={"prompt": task.turns[-1].text})
        recorded = self._recorder.begin(task)
        self._post(Asked(task))
        try:
            await recorded.wait()
            yield receiving
        finally:
            ask.left = True
            if task.id in self._asks:
                self._post(AskCancelled(task.id))
            if self._asks.pop(task.id, None) is not None:  # The member has not heard: it has failed, or never knew.
                self._recorder.ended(task, unfinished_view(task, ask.routes, errors.CANCELLED))
            sending.close()
            receiving.close()

    def route(self, task: Task) -> RouteView:
        """Who would answer this task now; sends nothing."""
        return route_view(task.skill, self._member.route(task))

    @asynccontextmanager
    async def plan(self, asked: PlanAsked, batch: str = "") -> AsyncIterator[trio.MemoryReceiveChannel[PlanItem]]:
        """Hand a plan in; the channel yields its items, PlanEnded last. Leaving the block early cancels the plan.

        Its tasks are in the journal like others, under `batch`.
        """
        # Unbounded here, because a plan has so many tasks and no more.
        sending, receiving = trio.open_memory_channel[PlanItem](math.inf)
        planned = self._plans[asked.id] = _Plan(sending, batch)
        log.info("plan %s: %d steps", asked.id.hex(), len(asked.plan.steps))
        self._post(asked)
        try:
            yield receiving
        finally:
            planned.left = True
            if self._plans.pop(asked.id, None) is not None:
                self._post(PlanCancelled(asked.id))
            sending.close()
            receiving.close()

    def tell(self, effect: UserEffect) -> None:
        """The member's word to its users. Never blocks."""
        match effect:
            case Assigned():
                self._assigned(effect)
            case PlanConcluded(plan, plan_outcome):
                state = "failed" if plan_outcome.failure else "done"  # Why may quote what is a user's own.
                log.info("plan %s: %s after %d tasks", plan.hex(), state, plan_outcome.tasks)
                self._tallies.plans[state] += 1
                planned = self._plans.pop(plan, None)
                if planned is not None:
                    planned.tell(PlanEnded(plan_outcome))
            case Reply(task, text, logprobs):
                ask = self._asks.get(task)
                if ask is not None:
                    now = self._clock()
                    if ask.said_at is not None:
                        ask.gap_s = max(ask.gap_s or 0.0, now - ask.said_at)
                    ask.said_at = now
                    self._recorder.said(task, text)
                    ask.tell(AskText(text, logprobs))
            case Conclude(task, outcome):
                ask = self._asks.pop(task, None)
                if ask is not None:
                    answer = answer_view(ask.task, outcome, ask.routes, ask.gap_s)
                    self._recorder.ended(ask.task, answer)
                    self._tallies.concluded(answer)
                    ask.tell(AskEnded(outcome.code, answer))
            case Notify(notice):
                self._notice(notice)

    def _assigned(self, effect: Assigned) -> None:
        """Nobody waits for the texts of a plan's task; the plan hears of its end."""
        planned = self._plans.get(effect.plan)

        def listen(item: AskItem) -> None:
            if isinstance(item, AskEnded) and planned is not None:
                planned.tell(TaskEnded(effect.step, effect.index, item.answer))

        self._asks[effect.task.id] = _Ask(effect.task, listen)
        self._recorder.begin(effect.task, batch=planned.batch if planned else "", item=effect.key)

    def _notice(self, notice: Notice) -> None:
        match notice:
            case StepAdvanced(plan):
                planned = self._plans.get(plan)
                if planned is not None:
                    planned.tell(notice)
            case Routed(task, routing):
                ask = self._asks.get(task)
                if ask is not None:
                    ask.routes.append(route_view(ask.task.skill, routing))
                    self._recorder.routed(ask.task, ask.routes)
                    ask.tell(AskRouted(ask.routes[-1]))
            case PeerJoined(node, name):
                log.info("%s is here (%s)", name, node_text(node))
                self._meetings.heard(notice)
            case PeerLost(node, name, cause):
                log.info("%s is gone (%s): %s", name, node_text(node), cause)
            case JoinFailed(_, cause):
                log.warning("cannot join: %s", cause)
                self._meetings.heard(notice)
            case PingAnswered() | PingFailed():
                self._meetings.heard(notice)
            case WorkerAccepted(task, _, name, model, ahead):
                log.info("task %s: %s took it on with %s, %d ahead", task.hex(), name, model, ahead)
            case AttemptFailed(task, _, name, _, reason):
                log.info("task %s: %s did not answer: %s", task.hex(), name, reason)

    # --- The swarm ----------------------------------------------------------------------------------------------------

    def peers(self) -> list[PeerView]:
        """Every known node, this one first, then the neighbours, then those heard of."""
        return peer_views(self._member, self._clock())

    def skills(self) -> list[SkillView]:
        """Every capability known now, this node's own first."""
        return skill_views(self._member)

    # --- This node ----------------------------------------------------------------------------------------------------

    def models(self) -> list[ModelView]:
        return self._models.views()

    async def add_model(self, ref: str) -> ModelView:
        """Load one more model now; returns once it is ready, has failed (then `state` and `detail` say why) or was removed."""
        source = self._models.add(ref)
        await source.settled.wait()
        return source.view

    async def remove_model(self, name: str) -> ModelView:
        """Let go of a model, by its reference or its own name. Raises UnknownModel."""
        return self._models.remove(name)

    @property
    def uptime_s(self) -> float:
        return self._clock() - self._began

    def status(self) -> StatusView:
        member = self._member
        counts = self._counts()
        refused = dict(counts.offences)
        for why, count in member.refused().items():
            refused[why] = refused.get(why, 0) + count
        return StatusView(
            state=self.state,
            node=node_text(member.node),
            name=member.name,
            version=self.plate.version,
            swarm=self.plate.swarm,
            pid=os.getpid(),
            uptime_s=round(self.uptime_s, 3),
            addresses=list(member.reach.addresses or self.plate.addresses),
            api=self.plate.api,
            models=self.models(),
            peers=self.peers(),
            asked=member.asking.asked,
            answered=member.asking.answered,
            failed=member.asking.failed,
            served=member.serving.served,
            refused=refused,
            warnings=self._warnings(),
            rss_bytes=self._process.memory_info().rss,
            journal=self._recorder.trouble,
            reach=reach_view(member, counts.router, self.plate.mdns),
            reserved=member.serving.reserved,
            twin=member.gossip.twin,
        )

    def _warnings(self) -> list[str]:
        warnings = [f"model {model.ref}: {model.detail}" for model in self.models() if model.state == "failed"]
        if self._member.gossip.twin:
            warnings.append(
                f"another node runs with this node's identity ({self._member.gossip.twin}): give one of the two a key of its own"
            )
        return warnings

    def measures(self) -> Measures:
        """What `/metrics` shows."""
        member = self._member
        slots, busy, queued = member.serving.load()
        times = self._process.cpu_times()
        return Measures(
            self.status(), self._tallies, member.asking.hedged, member.asking.resumed, len(member.roster), len(member.index),
            slots, busy, queued, times.user + times.system, self._counts(), trio.lowlevel.current_statistics().tasks_living,
        )  # fmt: skip

    def stop(self) -> None:
        """Begin a clean shutdown of the daemon."""
        self._stop()
