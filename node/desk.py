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
from node.metrics import Measures, Tallies
from node.models import Models
from node.neighbourhood import path_to, peer_views, reach_view, skill_views
from node.recording import Recorder
from node.transport import Counts
from node.views import (
    AnswerView,
    ModelView,
    PeerView,
    PingView,
    RouteView,
    SkillView,
    StatusView,
)
from protocol import errors
from protocol.errors import ErrorCode
from protocol.identity import NodeId, node_from_text, node_text
from protocol.parts import Logprob, TaskId
from swarm.effects import (
    AttemptFailed,
    Conclude,
    JoinFailed,
    Notice,
    Notify,
    PeerJoined,
    PeerLost,
    PingAnswered,
    PingFailed,
    Reply,
    Routed,
    WorkerAccepted,
)
from swarm.events import AskCancelled, Asked, ContactsFound, Event, PingAsked
from swarm.member import Member
from swarm.values import MEMBERSHIP, Contact, Task

log = logging.getLogger(__name__)

JOIN_LIMIT_S = 15.0  # A dial tries every address once; the slowest transport gives up after 8 s.
PING_LIMIT_S = 10.0  # A dial, and the answer of a neighbour that is about to be given up.


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


class JoinError(Exception):
    """An address does not lead to a node of this swarm. The message names it and the next step."""


@dataclass(slots=True)
class _Ask:
    task: Task
    items: trio.MemorySendChannel[AskItem]
    routes: list[RouteView] = field(default_factory=list)
    said_at: float | None = None
    gap_s: float | None = None  # The longest silence between two texts.
    left: bool = False  # Nobody reads the items any more.

    def tell(self, item: AskItem) -> None:
        if not self.left:
            self.items.send_nowait(item)


@dataclass(eq=False, slots=True)
class _Join:
    contact: Contact
    ended: trio.Event = field(default_factory=trio.Event)
    node: NodeId | None = None
    cause: str = ""


class PingError(Exception):
    """A node does not answer. The message names it and the cause."""


@dataclass(eq=False, slots=True)
class _Ping:
    node: NodeId
    ended: trio.Event = field(default_factory=trio.Event)
    rtt_s: float | None = None
    cause: str = ""


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
        self._pings: list[_Ping] = []
        self._asks: dict[TaskId, _Ask] = {}
        self._joins: list[_Join] = []
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
        ask = self._asks[task.id] = _Ask(task, sending)
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

    def tell(self, effect: Reply | Conclude | Notify) -> None:
        """The member's word to its users. Never blocks."""
        match effect:
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
                    ask.items.close()
            case Notify(notice):
                self._notice(notice)

    def _notice(self, notice: Notice) -> None:
        match notice:
            case Routed(task, routing):
                ask = self._asks.get(task)
                if ask is not None:
                    ask.routes.append(route_view(ask.task.skill, routing))
                    self._recorder.routed(ask.task, ask.routes)
                    ask.tell(AskRouted(ask.routes[-1]))
            case PeerJoined(node, name):
                log.info("%s is here (%s)", name, node_text(node))
                self._settle_joins(node)
            case PeerLost(node, name, cause):
                log.info("%s is gone (%s): %s", name, node_text(node), cause)
            case JoinFailed(address, cause):
                log.warning("cannot join: %s", cause)
                for join in self._joins:
                    if address in join.contact.addresses:
                        join.cause = cause
                        join.ended.set()
            case PingAnswered(node, rtt_s):
                for ping in self._pings:
                    if ping.node == node:
                        ping.rtt_s = rtt_s
                        ping.ended.set()
            case PingFailed(node, cause):
                for ping in self._pings:
                    if ping.node == node:
                        ping.cause = cause
                        ping.ended.set()
            case WorkerAccepted(task, _, name, model, ahead):
                log.info("task %s: %s took it on with %s, %d ahead", task.hex(), name, model, ahead)
            case AttemptFailed(task, _, name, _, reason):
                log.info("task %s: %s did not answer: %s", task.hex(), name, reason)

    # --- The swarm ----------------------------------------------------------------------------------------------------

    async def join(self, address: str) -> PeerView:
        """Dial an address; raises JoinError with a sentence for people if it is not a node of this swarm."""
        contact = contact_of(address)
        if contact.node == self._member.node:
            raise JoinError(f"{address} is this node itself")
        join = _Join(contact, node=self._neighbour_at(contact))
        self._joins.append(join)
        try:
            if join.node is None:
                self._post(ContactsFound("join", MEMBERSHIP, (contact,)))
                with trio.move_on_after(JOIN_LIMIT_S):
                    await join.ended.wait()
        finally:
            self._joins.remove(join)
        if join.node is None:
            raise JoinError(join.cause or f"{address} has not answered within {JOIN_LIMIT_S:.0f} s")
        node = node_text(join.node)
        found = next((view for view in self.peers() if view.node == node), None)
        if found is None:
            raise JoinError(f"{address} was reached, and has left again")
        return found

    async def ping(self, node: NodeId) -> PingView:
        """How far away a node is, dialling it if there is no link; raises PingError with a sentence for people."""
        known = self._member.index.get(node)
        name = known.advert.name if known is not None else node_text(node)
        if node == self._member.node:
            raise PingError(f"{name} is this node itself")
        ping = _Ping(node)
        self._pings.append(ping)
        try:
            self._post(PingAsked(node))
            with trio.move_on_after(PING_LIMIT_S):
                await ping.ended.wait()
        finally:
            self._pings.remove(ping)
        neighbour = self._member.roster.get(node)
        if ping.rtt_s is None or neighbour is None:
            raise PingError(f"{name} does not answer: {ping.cause or f'not a word for {PING_LIMIT_S:.0f} s'}")
        rtt_ms = round(ping.rtt_s * 1000, 1)
        return PingView(node_text(node), neighbour.name, rtt_ms, path_to(self._member, neighbour), neighbour.dialled)

    def _neighbour_at(self, contact: Contact) -> NodeId | None:
        """Who of the neighbours can be reached there: a dial to somebody linked already has no other end."""
        for neighbour in self._member.roster:
            places = [address.partition("/p2p/")[0] for address in (neighbour.dialled, *neighbour.addresses)]
            if contact.node == neighbour.node or (contact.node is None and contact.addresses[0] in places):
                return neighbour.node
        return None

    def _settle_joins(self, node: NodeId) -> None:
        neighbour = self._member.roster.get(node)
        for join in self._joins:
            dialled = neighbour.dialled if neighbour else ""
            if join.contact.node == node or (join.contact.node is None and dialled in join.contact.addresses):
                join.node = node
                join.ended.set()

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


def contact_of(address: str) -> Contact:
    """The contact that a multiaddr names; without `/p2p/…` whoever answers there. Raises JoinError."""
    head, _, peer = address.partition("/p2p/")
    if not head.startswith("/"):
        raise JoinError(f'"{address}" is not a multiaddr; write it like /ip4/192.168.1.20/tcp/4976')
    if not peer:
        return Contact(None, (address,))
    try:
        return Contact(node_from_text(peer), (address,))
    except ValueError as error:
        raise JoinError(f'"{address}": {error}') from None
