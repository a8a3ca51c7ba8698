"""What SPEC.md asks of nodes beyond bytes: as workers, as requesters, and when they pass adverts on."""

from dataclasses import replace
from random import Random
from typing import TypeVar

import pytest

from protocol import errors
from protocol import limits as lim
from protocol.errors import error_code
from protocol.identity import Identity, NodeId
from protocol.messages import (
    Advert,
    AdvertPull,
    AdvertPush,
    AttemptId,
    Capability,
    Goodbye,
    Message,
    Ping,
    Pong,
    SignedAdvert,
    TaskAccepted,
    TaskCancelled,
    TaskFailed,
    TaskFinished,
    TaskId,
    TaskPiece,
    TaskRefused,
    TaskRequest,
    Turn,
)
from protocol.notary import Notary
from swarm.effects import Conclude, Effect, Generate, Reply, Send, SetTimer, StopGenerating
from swarm.events import (
    Asked,
    CapabilitiesChanged,
    Event,
    GenerationFailed,
    GenerationFinished,
    NeighbourDown,
    NeighbourUp,
    PieceGenerated,
    Received,
    Started,
    Stopping,
    TimerFired,
)
from swarm.member import Member
from swarm.settings import Settings
from swarm.values import Privacy, Task, Usage
from tests.strategies import ADA, BOB, EVE, NOW_S, SWARM, task_request

CHAT = Capability("chat", "m", b"", 2048, 50.0, 20, 1, (), "")
USAGE = Usage("stop", 3, 2, 0.1, 0.2)
ATTEMPT = AttemptId(b"a" * 16)
M = TypeVar("M", bound=Message)
E = TypeVar("E", bound=Effect)


class Actor:
    """Bob's member under a clock that the test moves, and everything that it has wanted."""

    def __init__(self, *capabilities: Capability, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.member = Member(BOB.node, "bob", self.settings, Notary(BOB, SWARM, Random(1)), Random(2))
        self.now = NOW_S
        self.wanted: list[Effect] = []
        self.tell(Started(("/memory/bob",)))
        self.tell(CapabilitiesChanged(capabilities))
        self.wanted = list(self.all(SetTimer))

    def tell(self, event: Event) -> list[Effect]:
        """What comes of one event."""
        effects = self.member.handle(event, self.now)
        self.wanted += effects
        return effects

    def up(self, *peers: Identity) -> None:
        for peer in peers:
            self.tell(NeighbourUp(peer.node, "peer", ("/memory/peer",), ""))

    def hear(self, message: Message, sender: Identity = ADA) -> list[Message]:
        """What is said in answer to the sender."""
        return [
            e.message for e in self.tell(Received(sender.node, message)) if isinstance(e, Send) and e.to == sender.node
        ]

    def all(self, kind: type[E]) -> list[E]:
        return [effect for effect in self.wanted if isinstance(effect, kind)]

    def said(self, kind: type[M], to: Identity = ADA) -> list[M]:
        sends = [effect for effect in self.all(Send) if effect.to == to.node]
        return [send.message for send in sends if isinstance(send.message, kind)]

    def wait(self, seconds: float) -> None:
        """Time passes; timers that are due go off, each once, in the order in which they were set."""
        end = self.now + seconds
        due = [(self.now + effect.delay_s, effect) for effect in self.all(SetTimer)]
        self.wanted = [effect for effect in self.wanted if not isinstance(effect, SetTimer)]
        for at, effect in sorted(due, key=lambda pair: pair[0]):
            if at > end:
                self.wanted.append(SetTimer(at - end, effect.timer))
                continue
            self.now = max(self.now, at)
            self.tell(TimerFired(effect.timer))
        self.now = end


def advert(issuer: Identity, *, now: float = NOW_S, lifetime_s: float = 60.0, slots: int = 1) -> SignedAdvert:
    said = Advert("peer", ("/memory/peer",), (CHAT,), slots, 0, 0, False)
    return Notary(issuer, SWARM, Random(5)).sign(said, lifetime_s, now)


def task(**changes: object) -> Task:
    fields: dict[str, object] = {"text": "hello"}
    turns = (Turn("user", str({**fields, **changes}["text"])),)
    return Task(TaskId(b"t" * 16), "chat", turns, "", 64, 0.7, 0.95, 0, (), 30.0, Privacy.SWARM, None)


# --- Every node -------------------------------------------------------------------------------------------------------


def test_a_ping_is_answered_with_its_nonce() -> None:
    """[CND-1] At once."""
    bob = Actor()
    bob.up(ADA)
    assert bob.hear(Ping(7)) == [Pong(7)]


# --- Workers ----------------------------------------------------------------------------------------------------------


def test_a_request_is_answered_by_one_accept_or_one_refusal() -> None:
    """[CND-2] Each refusal with its code."""
    bob = Actor(CHAT, settings=Settings(queue_max=1))
    bob.up(ADA)

    def answer(number: int, **changes: object) -> str:
        request = replace(task_request(bytes([number]) * 16), **changes)  # type: ignore[arg-type]
        (reply,) = [m for m in bob.hear(request) if isinstance(m, TaskAccepted | TaskRefused)]
        return "accepted" if isinstance(reply, TaskAccepted) else error_code(reply.code).name

    assert answer(1, skill="x-other") == "no_such_capability"
    assert answer(2, model="other") == "no_such_capability"
    assert answer(3, turns=()) == "bad_request"
    assert answer(4, turns=(Turn("oracle", "hi"),)) == "bad_request"
    assert answer(5) == "accepted"
    assert answer(6) == "accepted", "in the queue"
    assert answer(7) == "busy"
    bob.tell(Stopping())
    assert answer(8) == "draining"


def working() -> Actor:
    """Bob works for Ada."""
    bob = Actor(CHAT)
    bob.up(ADA)
    assert bob.hear(task_request(ATTEMPT)) == [TaskAccepted(ATTEMPT, "m", 0)]
    assert [effect.model for effect in bob.all(Generate)] == ["m"]
    return bob


def ends(bob: Actor) -> list[Message]:
    return [*bob.said(TaskFinished), *bob.said(TaskFailed)]


def test_an_accepted_attempt_is_closed_once() -> None:
    """[CND-3] Whatever comes after its end."""
    bob = working()
    bob.tell(GenerationFinished(ATTEMPT, USAGE))
    assert [type(end) for end in ends(bob)] == [TaskFinished]
    late_events: tuple[Event, ...] = (
        GenerationFailed(ATTEMPT, 17, ""),
        GenerationFinished(ATTEMPT, USAGE),
        Received(ADA.node, TaskCancelled(ATTEMPT)),
    )
    for late in late_events:
        bob.tell(late)
    bob.wait(60)
    assert len(ends(bob)) == 1


def test_a_failure_of_the_model_closes_the_attempt() -> None:
    """[CND-3] With a code."""
    bob = working()
    bob.tell(GenerationFailed(ATTEMPT, errors.BACKEND_FAILED.number, "out of memory"))
    assert ends(bob) == [TaskFailed(ATTEMPT, errors.BACKEND_FAILED.number, "out of memory")]


def test_a_cancel_stops_the_work_and_is_answered() -> None:
    """[CND-4] By TaskFailed, once the model has stopped; also when it had just finished."""
    for stopped in (GenerationFailed(ATTEMPT, errors.CANCELLED.number, ""), GenerationFinished(ATTEMPT, USAGE)):
        bob = working()
        bob.hear(TaskCancelled(ATTEMPT))
        assert bob.all(StopGenerating) == [StopGenerating(ATTEMPT)]
        bob.tell(stopped)
        (end,) = ends(bob)
        assert isinstance(end, TaskFailed)
        assert end.code == errors.CANCELLED.number


def test_a_cancel_of_what_waits_in_the_queue_is_answered_at_once() -> None:
    """[CND-4] There is no work to stop."""
    bob = working()
    waiting = AttemptId(b"w" * 16)
    bob.hear(task_request(waiting))
    (end,) = [m for m in bob.hear(TaskCancelled(waiting)) if not isinstance(m, AdvertPush)]
    assert end == TaskFailed(waiting, errors.CANCELLED.number, errors.CANCELLED.meaning)


def test_the_deadline_ends_the_work() -> None:
    """[CND-5] By the worker's own clock, counted from the request."""
    bob = working()
    bob.wait(29.9)
    assert not bob.all(StopGenerating)
    bob.wait(0.2)
    assert bob.all(StopGenerating) == [StopGenerating(ATTEMPT)]
    bob.tell(GenerationFailed(ATTEMPT, errors.CANCELLED.number, ""))
    (end,) = ends(bob)
    assert isinstance(end, TaskFailed)
    assert end.code == errors.DEADLINE_EXCEEDED.number


def test_pieces_are_counted_split_and_summed_up() -> None:
    """[CND-6] Also text that is longer than a piece may be, of characters that take four bytes."""
    bob = working()
    long = "\N{BIRD}" * (lim.PIECE_BYTES_MAX // 2)
    for text in ("a", long, "b"):
        bob.tell(PieceGenerated(ATTEMPT, text))
    bob.tell(GenerationFinished(ATTEMPT, USAGE))
    pieces = bob.said(TaskPiece)
    assert [piece.index for piece in pieces] == list(range(len(pieces)))
    assert "".join(piece.text for piece in pieces) == f"a{long}b"
    assert max(len(piece.text.encode()) for piece in pieces) <= lim.PIECE_BYTES_MAX
    assert [end.pieces for end in bob.said(TaskFinished)] == [len(pieces)]


def test_a_lost_link_ends_the_work_silently() -> None:
    """[CND-7] Nobody is left to hear of it."""
    bob = working()
    bob.tell(NeighbourDown(ADA.node, "gone"))
    assert bob.all(StopGenerating) == [StopGenerating(ATTEMPT)]
    bob.tell(GenerationFailed(ATTEMPT, errors.CANCELLED.number, ""))
    assert ends(bob) == []


# --- Requesters -------------------------------------------------------------------------------------------------------


class Asking(Actor):
    """Bob's user has asked; Ada and Eve could both do it. `first` was asked first."""

    def __init__(self) -> None:
        super().__init__()
        self.up(ADA, EVE)
        for worker in (ADA, EVE):
            self.hear(AdvertPush((advert(worker),)), worker)
        self.costs = self.cost()
        self.tell(Asked(task()))
        (self.first,) = [peer for peer in (ADA, EVE) if self.said(TaskRequest, peer)]
        self.second = EVE if self.first is ADA else ADA
        (self.request,) = self.said(TaskRequest, self.first)
        self.attempt = self.request.attempt

    def cost(self) -> dict[NodeId, float]:
        """What each worker would cost now."""
        return {candidate.node: candidate.cost_s for candidate in self.member.route(task()).candidates}

    def outcome(self) -> str:
        (concluded,) = self.all(Conclude)
        return concluded.outcome.code.name if concluded.outcome.code else "answered"


def test_a_refusal_sends_the_task_elsewhere_at_once_and_blames_nobody() -> None:
    """[CND-8] [CND-11] The refusing worker stands as it stood."""
    bob = Asking()
    bob.hear(TaskRefused(bob.attempt, errors.TOO_LONG.number, ""), bob.first)
    (request,) = bob.said(TaskRequest, bob.second)
    assert request.attempt != bob.attempt
    assert bob.cost()[bob.first.node] == pytest.approx(bob.costs[bob.first.node])


def test_a_bad_request_is_bad_everywhere() -> None:
    """[CND-8] The one refusal that ends the task."""
    bob = Asking()
    bob.hear(TaskRefused(bob.attempt, errors.BAD_REQUEST.number, ""), bob.first)
    assert bob.said(TaskRequest, bob.second) == []
    assert bob.outcome() == "bad_request"


def test_a_silent_worker_is_cancelled_and_passed_over() -> None:
    """[CND-9] [CND-11] After the accept limit, and not before."""
    bob = Asking()
    bob.wait(bob.settings.accept_limit_s - 0.1)
    assert bob.said(TaskCancelled, bob.first) == []
    bob.wait(0.2)
    assert bob.said(TaskCancelled, bob.first) == [TaskCancelled(bob.attempt)]
    assert len(bob.said(TaskRequest, bob.second)) == 1


def test_a_worker_that_falls_silent_in_mid_answer_is_cancelled() -> None:
    """[CND-9] [CND-11] What the user has read is not continued by somebody else."""
    bob = Asking()
    bob.hear(TaskAccepted(bob.attempt, "m", 0), bob.first)
    bob.hear(TaskPiece(bob.attempt, 0, "The sky"), bob.first)
    bob.wait(bob.settings.piece_limit_s + 0.1)
    assert bob.said(TaskCancelled, bob.first) == [TaskCancelled(bob.attempt)]
    assert bob.said(TaskRequest, bob.second) == []
    assert bob.outcome() == "stream_broken"


def test_a_missing_piece_makes_the_attempt_a_failure() -> None:
    """[CND-10] In the middle."""
    bob = Asking()
    bob.hear(TaskAccepted(bob.attempt, "m", 0), bob.first)
    bob.hear(TaskPiece(bob.attempt, 0, "The sky"), bob.first)
    bob.hear(TaskPiece(bob.attempt, 2, "blue"), bob.first)
    assert [reply.text for reply in bob.all(Reply)] == ["The sky"]
    assert bob.outcome() == "stream_broken"


def test_a_wrong_number_of_pieces_makes_the_attempt_a_failure() -> None:
    """[CND-10] At the end."""
    bob = Asking()
    bob.hear(TaskAccepted(bob.attempt, "m", 0), bob.first)
    bob.hear(TaskPiece(bob.attempt, 0, "The sky"), bob.first)
    bob.hear(TaskFinished(bob.attempt, 2, "stop", 1, 1, 0, 0, 0), bob.first)
    assert bob.outcome() == "stream_broken"


def test_a_whole_answer_is_an_answer() -> None:
    """[CND-10] [CND-11] With every piece there."""
    bob = Asking()
    bob.hear(TaskAccepted(bob.attempt, "m", 0), bob.first)
    bob.hear(TaskPiece(bob.attempt, 0, "The sky"), bob.first)
    bob.hear(TaskFinished(bob.attempt, 1, "stop", 1, 1, 0, 0, 0), bob.first)
    assert bob.outcome() == "answered"


# --- Gossips ----------------------------------------------------------------------------------------------------------


def believed(bob: Actor, issuer: Identity) -> SignedAdvert | None:
    known = bob.member.index.get(issuer.node)
    return known.signed if known else None


def test_the_newer_of_two_adverts_is_true_whatever_comes_last() -> None:
    """[ADV-4] By version, not by arrival."""
    bob = Actor()
    bob.up(ADA)
    old, new = advert(EVE, slots=1), advert(EVE, now=NOW_S + 1, slots=2)
    for signed in (new, old):
        bob.hear(AdvertPush((signed,)))
    assert believed(bob, EVE) == new


def test_the_versions_of_a_node_grow_strictly() -> None:
    """[ADV-4] Even within a millisecond."""
    bob = Actor(CHAT)
    versions = []
    for slots in (1, 2, 3):
        bob.tell(CapabilitiesChanged((replace(CHAT, slots=slots),)))
        own = bob.member.gossip.own
        assert own is not None
        versions.append(own.issued_at_ms)
    assert versions == sorted(set(versions))


def test_an_advert_that_does_not_prove_itself_is_dropped_and_the_link_stays() -> None:
    """[ADV-3] The one who brought it may not have looked."""
    bob = Actor()
    bob.up(ADA)
    true = advert(EVE)
    forged = replace(true, sealed=true.sealed[:-1] + bytes([true.sealed[-1] ^ 1]))
    assert bob.hear(AdvertPush((forged,))) == []
    assert believed(bob, EVE) is None
    bob.hear(AdvertPush((true,)))
    assert believed(bob, EVE) == true


def test_an_advert_is_not_believed_beyond_its_lifetime() -> None:
    """[ADV-5] From when it was issued, and never longer than that from when it was heard; or first-hand, from then."""
    cases = ((ADA, -50.0, 10.0), (ADA, 0.0, 60.0), (ADA, 100.0, 60.0), (EVE, -50.0, 60.0), (EVE, -100.0, 60.0))
    for sender, issued_s, until_s in cases:
        bob = Actor()
        bob.up(ADA, EVE)
        bob.hear(AdvertPush((advert(EVE, now=NOW_S + issued_s),)), sender)
        bob.wait(until_s - 2 * bob.settings.sweep_period_s)
        assert believed(bob, EVE) is not None
        for _ in range(20):
            bob.wait(1.0)
        assert believed(bob, EVE) is None


def test_a_rumour_older_than_its_lifetime_is_no_news() -> None:
    """[ADV-5] Though its seal still holds, for clocks that differ."""
    bob = Actor()
    bob.up(ADA)
    bob.hear(AdvertPush((advert(EVE, now=NOW_S - 61),)))
    assert believed(bob, EVE) is None


def test_adverts_are_passed_on_as_they_came() -> None:
    """[ADV-6] In the envelope of their issuer."""
    bob = Actor()
    bob.up(ADA, EVE)
    other = Identity(b"o" * 32)
    bob.hear(AdvertPush((advert(other),)))
    for _ in range(10):
        bob.wait(1.0)
    passed_on = [signed for push in [*bob.said(AdvertPush), *bob.said(AdvertPush, EVE)] for signed in push.adverts]
    assert advert(other) in passed_on


def test_a_pull_is_answered_with_as_many_as_were_asked_for() -> None:
    """[ADV-6] In messages that fit."""
    bob = Actor(CHAT)
    bob.up(ADA)
    others = [Identity(bytes([100 + number]) * 32) for number in range(40)]
    for other in others:
        bob.hear(AdvertPush((advert(other),)))
    for asked in (0, 1, 20, 40):
        pushes = [message for message in bob.hear(AdvertPull("chat", asked)) if isinstance(message, AdvertPush)]
        assert sum(len(push.adverts) for push in pushes) == asked
        assert all(len(push.adverts) <= lim.ADVERTS_PER_PUSH_MAX for push in pushes)
    assert bob.hear(AdvertPull("x-nobody", 10)) == []


def test_a_node_that_leaves_is_forgotten_until_it_speaks_again() -> None:
    """[ADV-7] An advert that was under way does not bring it back."""
    bob = Actor()
    bob.up(ADA, EVE)
    bob.hear(AdvertPush((advert(EVE),)))
    bob.hear(Goodbye(True, "stopping"), EVE)
    assert believed(bob, EVE) is None
    bob.hear(AdvertPush((advert(EVE),)))
    assert believed(bob, EVE) is None
    newer = advert(EVE, now=NOW_S + 1)
    bob.hear(AdvertPush((newer,)))
    assert believed(bob, EVE) == newer
