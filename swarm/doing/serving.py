"""The life of one attempt at its worker: admitted or refused, queued, generated, and closed exactly once."""

from dataclasses import dataclass
from itertools import zip_longest

from protocol import errors
from protocol import limits as lim
from protocol.errors import ErrorCode
from protocol.identity import NodeId
from protocol.messages import TaskAccepted, TaskFailed, TaskFinished, TaskPiece, TaskRefused, TaskRequest
from protocol.parts import AttemptId, Capability, Logprob
from swarm.doing.prefixes import Prefixes
from swarm.effects import Effect, Generate, Send, ServiceDeadlinePassed, SetTimer, StopGenerating
from swarm.settings import Settings
from swarm.values import Usage

TURNS_MAX = 1_024  # Requesters whose last turn is remembered; whoever is forgotten is first again.
WORK_WEIGHT = 0.2  # Of the latest attempt in how long one takes.
RESERVED = "its owner is using the machine"
ROLES = ("system", "user", "assistant", "tool")


@dataclass(slots=True)
class _Service:
    requester: NodeId
    request: TaskRequest
    model: str
    accepted_at: float
    begun_at: float | None = None  # None: in the queue.
    pieces: int = 0
    ending: ErrorCode | None = None  # Set once its model was told to stop, and why.
    silent: bool = False  # Nobody is left to hear how it ends.


class Serving:
    """Every attempt that this node has accepted and not closed yet, its own user's included."""

    def __init__(self, node: NodeId, settings: Settings) -> None:
        self._node, self._settings = node, settings
        self._services: dict[AttemptId, _Service] = {}  # In the order of acceptance: the queue is the part not begun.
        self._capabilities: tuple[Capability, ...] = ()
        self._draining = self.reserved = False
        self._turns: dict[NodeId, int] = {}  # Requester to when it last got a slot, counted in slots given.
        self._given = 0
        self._work_s: dict[str, float] = {}  # Model to how long an attempt of it takes, smoothed.
        self._prefixes = Prefixes(node)
        self.served = 0

    def prefixes(self) -> tuple[bytes, ...]:
        """What this node's models hold already and may be told, the latest last."""
        return self._prefixes.shared()

    def load(self) -> tuple[int, int, int]:
        """Slots, busy slots and queue length now, whoever asked."""
        busy = sum(service.begun_at is not None for service in self._services.values())
        return sum(self._slots().values()), busy, len(self._services) - busy

    def requesters(self) -> list[NodeId]:
        """Whom this node works for now."""
        return [service.requester for service in self._services.values()]

    def offer(
        self, capabilities: tuple[Capability, ...], now: float, resting: frozenset[str] = frozenset()
    ) -> list[Effect]:
        """The models have changed; what is queued for one that is gone fails, what runs ends by itself."""
        self._capabilities = capabilities
        models = self._slots()
        self._prefixes.keep(models.keys() - resting)
        effects: list[Effect] = []
        for attempt, service in list(self._services.items()):
            if service.begun_at is None and service.model not in models:
                effects += self._close(attempt, TaskFailed(attempt, errors.BACKEND_FAILED.number, "the model is gone"))
        return effects + self._advance(now)

    def drain(self) -> list[Effect]:
        """Refuse whatever comes from now on, and send those away who wait."""
        self._draining = True
        return self._send_away(errors.DRAINING.meaning)

    def reserve(self, reserved: bool, now: float) -> list[Effect]:
        """Keep the slots for this node's own user, or not any more. Peers who wait are sent away; what runs ends by itself."""
        self.reserved = reserved
        away = self._send_away(RESERVED, staying=self._node) if reserved else []
        return away + self._advance(now)

    def requested(self, sender: NodeId, request: TaskRequest, now: float) -> list[Effect]:
        """Admission: a typed refusal, or a promise."""
        refusal, model = self._admit(sender, request)
        if refusal is not None:
            code, reason = refusal
            return [Send(sender, TaskRefused(request.attempt, code.number, reason or code.meaning))]
        ahead = self._ahead(sender, model)
        self._services[request.attempt] = _Service(sender, request, model, now)
        return [
            Send(sender, TaskAccepted(request.attempt, model, ahead)),
            SetTimer(request.deadline_ms / 1000, ServiceDeadlinePassed(request.attempt)),
            *self._advance(now),
        ]

    def cancelled(self, sender: NodeId, attempt: AttemptId, now: float) -> list[Effect]:
        service = self._services.get(attempt)
        if service is None or service.requester != sender:
            return []
        return self._stop(attempt, service, errors.CANCELLED, now)

    def requester_lost(self, node: NodeId, now: float) -> list[Effect]:
        """Nobody would hear the answer: stop working on it."""
        effects: list[Effect] = []
        for attempt, service in list(self._services.items()):
            if service.requester == node:
                service.silent = True
                effects += self._stop(attempt, service, errors.CANCELLED, now)
        return effects

    def deadline_passed(self, timer: ServiceDeadlinePassed, now: float) -> list[Effect]:
        service = self._services.get(timer.attempt)
        return [] if service is None else self._stop(timer.attempt, service, errors.DEADLINE_EXCEEDED, now)

    def generated(
        self, attempt: AttemptId, text: str, tokens: tuple[int, ...] = (), logprobs: tuple[Logprob, ...] = ()
    ) -> list[Effect]:
        service = self._services.get(attempt)
        if service is None or service.ending is not None:
            return []
        # Half a surrogate pair, as some servers send it, is no text; it must not end this node.
        texts = _split(text.encode(errors="replace").decode())
        parts = list(zip_longest(texts, _portions(logprobs)))
        # The tokens travel with the last part: only then is their text complete.
        told = tokens if len(tokens) <= lim.PIECE_TOKENS_MAX else ()
        effects: list[Effect] = []
        for number, (part, portion) in enumerate(parts, 1):
            message = TaskPiece(
                attempt, service.pieces, part or "", told if number == len(parts) else (), portion or ()
            )
            effects.append(Send(service.requester, message))
            service.pieces += 1
        return effects

    def finished(self, attempt: AttemptId, usage: Usage, now: float) -> list[Effect]:
        service = self._services.get(attempt)
        if service is None:
            return []
        if service.ending is not None:
            return self._closed_by(attempt, service.ending, "", now)
        assert service.begun_at is not None
        self.served += 1
        took_s, usual_s = now - service.begun_at, self._work_s.get(service.model)
        self._work_s[service.model] = took_s if usual_s is None else usual_s + WORK_WEIGHT * (took_s - usual_s)
        message = TaskFinished(
            attempt, service.pieces, usage.finish, usage.tokens_in, usage.tokens_out,
            _ms(service.begun_at - service.accepted_at), _ms(usage.first_token_s), _ms(usage.total_s), usage.calls,
        )  # fmt: skip
        return self._close(attempt, message) + self._advance(now)

    def failed(self, attempt: AttemptId, code: ErrorCode, reason: str, now: float) -> list[Effect]:
        service = self._services.get(attempt)
        if service is None:
            return []
        return self._closed_by(attempt, service.ending or code, "" if service.ending else reason, now)

    # --- Inside -------------------------------------------------------------------------------------------------------

    def _send_away(self, reason: str, staying: NodeId | None = None) -> list[Effect]:
        """Close what waits, but for one requester's."""
        effects: list[Effect] = []
        for attempt, service in list(self._services.items()):
            if service.begun_at is None and service.requester != staying:
                effects += self._close(attempt, TaskFailed(attempt, errors.DRAINING.number, reason))
        return effects

    def _slots(self) -> dict[str, int]:
        slots: dict[str, int] = {}
        for capability in self._capabilities:
            slots[capability.model] = max(slots.get(capability.model, 0), capability.slots)
        return slots

    def _admit(self, sender: NodeId, request: TaskRequest) -> tuple[tuple[ErrorCode, str] | None, str]:
        fitting = [
            offered
            for offered in self._capabilities
            if offered.skill == request.skill and request.model in ("", offered.model) and offered.slots > 0
        ]
        able = [offered for offered in fitting if request.demands.features.issubset(offered.features)]
        if self._draining:
            return (errors.DRAINING, ""), ""
        if self.reserved and sender != self._node:
            return (errors.DRAINING, RESERVED), ""
        if not fitting:
            wanted = f"{request.skill} with {request.model}" if request.model else request.skill
            return (errors.NO_SUCH_CAPABILITY, f"{wanted} is not offered here"[: lim.REASON_BYTES_MAX]), ""
        if not able:
            missing = ", ".join(sorted(request.demands.features.difference(fitting[0].features)))
            return (errors.NO_SUCH_CAPABILITY, f"{request.skill} with {missing} is not offered here"), ""
        if request.attempt in self._services:
            return (errors.BAD_REQUEST, "this attempt is under way already"), ""
        if not request.turns or any(turn.role not in ROLES for turn in request.turns):
            return (errors.BAD_REQUEST, f"turns are needed, each of {', '.join(ROLES)}"), ""
        if request.deadline_ms == 0:
            return (errors.DEADLINE_EXCEEDED, ""), ""
        best = max(able, key=lambda offered: offered.tokens_per_second)
        return self._make_room(sender, best, request), best.model

    def _make_room(self, sender: NodeId, offered: Capability, request: TaskRequest) -> tuple[ErrorCode, str] | None:
        """Why there is no room for one more of this sender; None if there is."""
        ahead = self._ahead(sender, offered.model)
        if not ahead:
            return None
        # This node's own user and its peers have a queue each, so that strangers cannot fill that of the user.
        queued = self._queued(None)
        own = queued.pop(self._node, 0)
        waiting = own if sender == self._node else sum(queued.values())
        if waiting >= self._settings.queue_max:
            return errors.BUSY, f"{self.load()[1]} at work, {waiting} waiting"
        share = max(1, self._settings.queue_max // (1 + len(queued.keys() - {sender})))
        if sender != self._node and 2 * waiting >= self._settings.queue_max and queued.get(sender, 0) >= share:
            return errors.OVER_QUOTA, f"{queued[sender]} of yours are waiting, of {waiting} in all"
        start_s = ahead * self._work_s.get(offered.model, 0.0) / max(1, offered.slots)
        if start_s * 1000 > request.deadline_ms:
            return errors.BUSY, f"could not begin before the deadline: {ahead} ahead, about {start_s:.0f} s"
        return None

    def _queued(self, model: str | None) -> dict[NodeId, int]:
        """How many attempts of each requester wait, for one model or for all, in the order of their first."""
        queued: dict[NodeId, int] = {}
        for service in self._services.values():
            if service.begun_at is None and model in (None, service.model):
                queued[service.requester] = queued.get(service.requester, 0) + 1
        return queued

    def _ahead(self, sender: NodeId, model: str) -> int:
        """How many attempts must end before one of this sender could begin. What runs counts: its end may be far off."""
        queued = self._queued(model)
        mine = queued.pop(sender, 0)
        before = sum(other.model == model and other.begun_at is not None for other in self._services.values()) + mine
        if sender != self._node:
            # The user's own go first; of every other peer as many as will have had their turn.
            before += queued.pop(self._node, 0) + sum(min(count, mine + 1) for count in queued.values())
        return min(lim.SLOTS_MAX, max(0, before - self._slots()[model] + 1))

    def _advance(self, now: float) -> list[Effect]:
        """Begin what has a free slot: this node's own user first, then the peers in turn, each in the order of acceptance."""
        slots = self._slots()
        free = dict(slots)
        for service in self._services.values():
            if service.begun_at is not None:
                free[service.model] = free.get(service.model, 0) - 1
        effects: list[Effect] = []
        while True:
            able = [s for s in self._services.values() if s.begun_at is None and free.get(s.model, 0) > 0]
            if not able:
                return effects
            service = min(able, key=self._rank)  # Of equals the first: the order of acceptance.
            free[service.model] -= 1
            service.begun_at = now
            self._given += 1
            self._turns.pop(service.requester, None)
            self._turns[service.requester] = self._given
            if len(self._turns) > TURNS_MAX:
                del self._turns[next(iter(self._turns))]
            self._prefixes.begun(service.requester, service.request, service.model, slots[service.model])
            effects.append(Generate(service.request, service.model))

    def _rank(self, service: _Service) -> tuple[bool, int]:
        return service.requester != self._node, self._turns.get(service.requester, 0)

    def _stop(self, attempt: AttemptId, service: _Service, code: ErrorCode, now: float) -> list[Effect]:
        if service.begun_at is None:
            return self._closed_by(attempt, code, "", now)
        if service.ending is not None:
            return []
        service.ending = code
        return [StopGenerating(attempt)]

    def _closed_by(self, attempt: AttemptId, code: ErrorCode, reason: str, now: float) -> list[Effect]:
        cut = (reason or code.meaning).encode(errors="replace")[: lim.REASON_BYTES_MAX].decode(errors="ignore")
        message = TaskFailed(attempt, code.number, cut)
        return self._close(attempt, message) + self._advance(now)

    def _close(self, attempt: AttemptId, message: TaskFinished | TaskFailed) -> list[Effect]:
        service = self._services.pop(attempt)
        return [] if service.silent else [Send(service.requester, message)]


def _split(text: str) -> list[str]:
    """Parts within PIECE_BYTES_MAX, none empty. A character takes four bytes at the most."""
    step = lim.PIECE_BYTES_MAX // 4
    return [text[at : at + step] for at in range(0, len(text), step)]


def _portions(logprobs: tuple[Logprob, ...]) -> list[tuple[Logprob, ...]]:
    """Parts of about PIECE_BYTES_MAX, in order."""
    portions: list[tuple[Logprob, ...]] = []
    begin = size = 0
    for at, logprob in enumerate(logprobs):
        size += logprob.size
        if size >= lim.PIECE_BYTES_MAX or at == len(logprobs) - 1:
            portions.append(logprobs[begin : at + 1])
            begin, size = at + 1, 0
    return portions


def _ms(seconds: float) -> int:
    return min(lim.DEADLINE_MS_MAX, max(0, round(seconds * 1000)))
