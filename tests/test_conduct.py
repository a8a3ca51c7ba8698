"""What SPEC.md asks of nodes beyond bytes: as workers, and when they pass adverts on."""

from dataclasses import replace

from protocol import errors
from protocol import limits as lim
from protocol.errors import error_code
from protocol.identity import Identity
from protocol.messages import (
    Advert,
    AdvertPull,
    AdvertPush,
    Goodbye,
    Message,
    Ping,
    Pong,
    Signed,
    TaskAccepted,
    TaskCancelled,
    TaskFailed,
    TaskFinished,
    TaskPiece,
    TaskRefused,
)
from protocol.parts import AttemptId, Turn
from swarm.effects import Generate, StopGenerating
from swarm.events import (
    CapabilitiesChanged,
    Event,
    GenerationFailed,
    GenerationFinished,
    NeighbourDown,
    PieceGenerated,
    Received,
    Stopping,
)
from swarm.settings import Settings
from tests.conduct import ATTEMPT, CHAT, USAGE, Actor, advert
from tests.strategies import ADA, EVE, NOW_S, task_request

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


def test_the_rest_of_an_answer_is_what_its_model_is_asked_for() -> None:
    """[CND-12] Pieces count from 0, and tell their tokens."""
    bob = Actor(CHAT)
    bob.up(ADA)
    asked = replace(task_request(ATTEMPT), delivered="The sky", delivered_tokens=(1, 2))
    bob.hear(asked)
    assert [effect.request for effect in bob.all(Generate)] == [asked]
    bob.tell(PieceGenerated(ATTEMPT, " is blue.", (3,)))
    assert bob.said(TaskPiece) == [TaskPiece(ATTEMPT, 0, " is blue.", (3,))]


def test_a_lost_link_ends_the_work_silently() -> None:
    """[CND-7] Nobody is left to hear of it."""
    bob = working()
    bob.tell(NeighbourDown(ADA.node, "gone"))
    assert bob.all(StopGenerating) == [StopGenerating(ATTEMPT)]
    bob.tell(GenerationFailed(ATTEMPT, errors.CANCELLED.number, ""))
    assert ends(bob) == []


# --- Gossips ----------------------------------------------------------------------------------------------------------


def believed(bob: Actor, issuer: Identity) -> Signed[Advert] | None:
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
        own = bob.member.issuer.advert
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
