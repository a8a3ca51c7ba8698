"""A link: Hello first, nothing twice, nothing from elsewhere, and whole conversations however the stream is cut."""

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import codec, envelope, framing
from protocol import limits as lim
from protocol.envelope import Header
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.exchange import TASK_MESSAGES
from protocol.framing import Form
from protocol.identity import Identity
from protocol.link import Link
from protocol.messages import (
    MESSAGES,
    Advert,
    AdvertPush,
    Goodbye,
    Hello,
    Message,
    Ping,
    Pong,
    TaskAccepted,
    TaskCancelled,
    TaskFinished,
    TaskPiece,
)
from protocol.notary import Notary
from protocol.parts import Turn
from tests.strategies import ADA, BOB, EVE, NOW_MS, NOW_S, SWARM, chunks_of, instances, task_request

ADVERT = Advert("ada", (), (), 1, 0, 0, False)
ATTEMPT = task_request(b"a" * 16).attempt


def link(ours: Identity, peer: Identity, *, swarm: bytes = SWARM, seed: int = 0) -> Link:
    return Link(ours, peer.node, swarm, Random(f"{ours.node.hex()}{peer.node.hex()}{seed}"))


class Pair:
    """Both ends of a link. `ada` and `bob` have said Hello unless `greeted` is False."""

    def __init__(self, seed: int = 0, *, greeted: bool = True) -> None:
        self.ada, self.bob = link(ADA, BOB, seed=seed), link(BOB, ADA, seed=seed)
        if greeted:
            self.hello_of_ada = self.ada.hello("ada", "test", (), NOW_S)
            self.hello_of_bob = self.bob.hello("bob", "test", (), NOW_S)
            self.bob.receive(self.hello_of_ada, NOW_S)
            self.ada.receive(self.hello_of_bob, NOW_S)

    @property
    def token_of_bob(self) -> bytes:
        """What Bob expects at the head of the nonces of Ada's envelopes."""
        _, body, _ = envelope.split(self.hello_of_bob[framing.HEAD_BYTES :])
        hello = codec.decode(body)
        assert isinstance(hello, Hello)
        return hello.token


def sealed(message: Message, header: Header, signer: Identity = ADA) -> bytes:
    """A frame around a message, with a signature that holds if the signer is the issuer."""
    true = envelope.seal(ADA, replace(header, issuer=ADA.node), codec.encode(message))
    if signer is ADA and header.issuer == ADA.node:
        return framing.frame(Form.SEALED, true)
    forged = bytearray(envelope.seal(signer, replace(header, issuer=signer.node), codec.encode(message)))
    at = bytes(forged).index(bytes(signer.node))
    forged[at : at + 32] = header.issuer
    return framing.frame(Form.SEALED, bytes(forged))


def header(nonce: bytes) -> Header:
    return Header(SWARM, ADA.node, BOB.node, nonce, NOW_MS, lim.MESSAGE_LIFETIME_MS)


def counted(pair: Pair, counter: int) -> bytes:
    return pair.token_of_bob + counter.to_bytes(8, "big")


def refused(end: Link, data: bytes, now_s: float = NOW_S) -> str:
    """The kind of the error that these bytes make."""
    with pytest.raises(RemoteProtocolError) as caught:
        end.receive(data, now_s)
    return caught.value.kind


# --- Hello ------------------------------------------------------------------------------------------------------------


def test_both_say_hello_and_hear_each_other() -> None:
    """[LNK-1] The token is drawn for this link."""
    pair = Pair(greeted=False)
    (hello,) = pair.bob.receive(pair.ada.hello("ada", "starlings/1", ("/ip4/127.0.0.1/tcp/4976",), NOW_S), NOW_S)
    assert isinstance(hello, Hello)
    assert (hello.name, hello.agent, hello.addresses) == ("ada", "starlings/1", ("/ip4/127.0.0.1/tcp/4976",))
    assert hello.token != Pair(seed=1).token_of_bob


@pytest.mark.parametrize("message", [Ping(1), AdvertPush(())])
def test_a_bare_message_before_hello_is_refused(message: Message) -> None:
    """[LNK-1] Whatever it is."""
    bob = Pair(greeted=False).bob
    assert refused(bob, framing.frame(Form.BARE, codec.encode(message))) == "disorder"


@pytest.mark.parametrize("message", [Goodbye(True, ""), task_request(ATTEMPT), TaskCancelled(ATTEMPT)])
def test_a_sealed_message_before_hello_is_refused(message: Message) -> None:
    """[LNK-1] Even when everything else about it is right."""
    bob = Pair(greeted=False).bob
    assert refused(bob, sealed(message, header(bytes(16)))) == "disorder"


def test_a_second_hello_is_refused() -> None:
    """[LNK-1] Replayed, and made anew with everything else about it right."""
    pair = Pair()
    assert refused(pair.bob, pair.hello_of_ada) == "replayed"
    again = Hello(bytes(8), "ada", "test", ())
    assert refused(Pair().bob, sealed(again, header(counted(pair, 1)))) == "disorder"


def test_a_hello_is_sent_once_and_first() -> None:
    """[LNK-1] Our own mistakes."""
    pair = Pair(greeted=False)
    with pytest.raises(LocalProtocolError, match="before the Hellos"):
        pair.ada.send(Ping(1), NOW_S)
    pair.ada.hello("ada", "test", (), NOW_S)
    with pytest.raises(LocalProtocolError, match="second Hello"):
        pair.ada.hello("ada", "test", (), NOW_S)
    with pytest.raises(LocalProtocolError, match="before the Hellos"):
        pair.ada.send(Ping(1), NOW_S)
    with pytest.raises(LocalProtocolError, match="not a message to send"):
        Pair().ada.send(Hello(bytes(8), "", "", ()), NOW_S)


def test_a_hello_opens_no_link_for_anybody_but_its_issuer() -> None:
    """[ENV-10] [LNK-2] So none needs to be remembered: whoever could say it again could as well make another."""
    recorded = Pair().hello_of_ada
    assert refused(link(BOB, EVE), recorded) == "forged"
    again = link(BOB, ADA, seed=1)
    assert len(again.receive(recorded, NOW_S)) == 1
    assert refused(again, Pair().ada.send(Goodbye(False, ""), NOW_S)) == "replayed", "nothing of the old link follows it"


def test_any_number_of_hellos_leave_room_for_the_next() -> None:
    """[LNK-2]"""
    for seed in range(1_000):
        assert link(BOB, ADA).receive(link(ADA, BOB, seed=seed).hello("ada", "test", (), NOW_S), NOW_S)


# --- Envelopes of a link ----------------------------------------------------------------------------------------------


def test_envelopes_carry_the_receivers_token_and_a_counter_from_one() -> None:
    """[LNK-3] [LNK-4] Bare messages are not counted."""
    pair = Pair()
    assert pair.ada.send(Ping(7), NOW_S) == framing.frame(Form.BARE, codec.encode(Ping(7)))
    for counter, message in ((1, Goodbye(False, "")), (2, task_request(ATTEMPT)), (3, TaskCancelled(ATTEMPT))):
        frame = pair.ada.send(message, NOW_S)
        opened, body, _ = envelope.split(frame[framing.HEAD_BYTES :])
        assert opened == header(counted(pair, counter))
        assert body == codec.encode(message)


def test_a_replay_on_the_same_link_is_refused() -> None:
    """[LNK-4] Of the last envelope and of an earlier one."""
    pair = Pair()
    first, second = pair.ada.send(Goodbye(False, "1"), NOW_S), pair.ada.send(Goodbye(False, "2"), NOW_S)
    pair.bob.receive(first + second, NOW_S)
    assert refused(pair.bob, second) == "replayed"
    assert refused(pair.bob, first) == "replayed"


def test_envelopes_in_another_order_are_refused() -> None:
    """[LNK-4] What was skipped cannot come later."""
    pair = Pair()
    first, second = pair.ada.send(Goodbye(False, "1"), NOW_S), pair.ada.send(Goodbye(False, "2"), NOW_S)
    pair.bob.receive(second, NOW_S)
    assert refused(pair.bob, first) == "replayed"


def test_the_counter_begins_above_zero() -> None:
    """[LNK-4] Zero stands for nothing seen."""
    pair = Pair()
    assert refused(pair.bob, sealed(Goodbye(False, ""), header(counted(pair, 0)))) == "replayed"
    assert pair.bob.receive(sealed(Goodbye(False, ""), header(counted(pair, 2**64 - 1))), NOW_S)


def test_a_replay_on_another_link_is_refused() -> None:
    """[LNK-3] Between the same two nodes, at the same time, with a counter that would fit."""
    frame = Pair().ada.send(Goodbye(False, ""), NOW_S)
    assert refused(Pair(seed=1).bob, frame) == "replayed"


def test_an_echo_is_refused() -> None:
    """[ENV-7] [ENV-10] Our own words come back; signed by us, for the peer."""
    pair = Pair()
    assert refused(pair.ada, pair.ada.send(Goodbye(False, ""), NOW_S)) == "forged"


def test_an_envelope_for_somebody_else_is_refused() -> None:
    """[ENV-7] What Ada told Eve does not hold for Bob, and neither does what she told everybody."""
    pair = Pair()
    for audience in (EVE.node, None):
        frame = sealed(Goodbye(False, ""), replace(header(counted(pair, 1)), audience=audience))
        assert refused(pair.bob, frame) == "forged"


def test_an_envelope_of_another_issuer_is_refused() -> None:
    """[ENV-10] Eve's link carries Ada's true words; a link has one speaker."""
    pair = Pair()
    eves = link(BOB, EVE)
    assert refused(eves, sealed(Goodbye(False, ""), header(counted(pair, 1)))) == "forged"
    assert refused(link(BOB, EVE), link(ADA, BOB).hello("ada", "test", (), NOW_S)) == "forged"


def test_a_foreign_swarm_is_told_apart() -> None:
    """[ENV-6] By a kind of its own, as it is nobody's attack."""
    assert refused(link(BOB, ADA), link(ADA, BOB, swarm=bytes(32)).hello("ada", "test", (), NOW_S)) == "foreign"


@pytest.mark.parametrize("drift_s", [-lim.CLOCK_SKEW_MS_MAX / 1000, lim.CLOCK_SKEW_MS_MAX / 1000])
def test_clocks_may_differ_by_the_allowed_skew(drift_s: float) -> None:
    """[ENV-8] Either way; one second more is too much."""
    pair = Pair(greeted=False)
    assert pair.bob.receive(pair.ada.hello("ada", "test", (), NOW_S + drift_s), NOW_S)
    beyond_s = drift_s + (-31 if drift_s < 0 else 1)  # Behind, a message lives MESSAGE_LIFETIME_MS longer.
    assert refused(link(BOB, ADA), link(ADA, BOB).hello("ada", "test", (), NOW_S + beyond_s)) == "stale"


@pytest.mark.parametrize("cls", [cls for cls in MESSAGES.values() if cls.SEALED])
@settings(max_examples=5)
@given(data=st.data())
def test_a_sealed_kind_sent_bare_is_refused(cls: type[Message], data: st.DataObject) -> None:
    """[LNK-5] A stripped signature is not a lesser signature."""
    assert refused(Pair().bob, framing.frame(Form.BARE, codec.encode(data.draw(instances(cls))))) == "forged"


@pytest.mark.parametrize("cls", [cls for cls in MESSAGES.values() if not cls.SEALED])
@settings(max_examples=5)
@given(data=st.data())
def test_a_bare_kind_sent_sealed_is_refused(cls: type[Message], data: st.DataObject) -> None:
    """[LNK-5] One way for each kind."""
    pair = Pair()
    assert refused(pair.bob, sealed(data.draw(instances(cls)), header(counted(pair, 1)))) == "garbage"


def test_an_advert_on_its_own_is_refused_and_never_sent() -> None:
    """[LNK-6] It would come without the envelope that proves it to others."""
    pair = Pair()
    assert refused(pair.bob, sealed(ADVERT, header(counted(pair, 1)))) == "garbage"
    with pytest.raises(LocalProtocolError, match="not a message to send"):
        pair.ada.send(ADVERT, NOW_S)


def test_a_forged_envelope_changes_nothing() -> None:
    """[LNK-7] [LNK-8] The signature is checked last, and only what it proves counts."""
    pair = Pair()
    forged = sealed(task_request(ATTEMPT), header(counted(pair, 5)), signer=EVE)
    assert refused(pair.bob, forged) == "forged"
    true = sealed(task_request(ATTEMPT), header(counted(pair, 1)))
    assert pair.bob.receive(true, NOW_S), "its counter was not burnt, and its attempt not opened"


def test_checks_go_from_cheap_to_dear() -> None:
    """[LNK-8] An envelope that is wrong in every way fails at the cheapest check; mended there, at the next."""
    pair = Pair()
    wrong = Header(bytes(32), EVE.node, EVE.node, bytes(16), NOW_MS + 10**9, 1)
    steps = [
        ("foreign", {"swarm": SWARM}),
        ("forged", {"audience": BOB.node}),
        ("stale", {"sent_at_ms": NOW_MS}),
        ("forged", {"issuer": ADA.node}),
        ("replayed", {"nonce": counted(pair, 0)}),
        ("replayed", {"nonce": counted(pair, 1)}),
    ]
    body = codec.encode(Goodbye(False, ""))
    for kind, mend in steps:
        assert refused(pair.bob, _unsigned(wrong, b"\xc0")) == kind
        wrong = replace(wrong, **mend)  # type: ignore[arg-type]
    assert refused(pair.bob, _unsigned(wrong, b"\xc0")) == "garbage"
    assert refused(pair.bob, _unsigned(wrong, codec.encode(Hello(bytes(8), "", "", ())))) == "disorder"
    assert refused(pair.bob, _unsigned(wrong, codec.encode(Ping(1)))) == "garbage"
    assert refused(pair.bob, _unsigned(wrong, body)) == "forged"
    assert pair.bob.receive(sealed(Goodbye(False, ""), wrong), NOW_S) == [Goodbye(False, "")]


def _unsigned(header: Header, body: bytes) -> bytes:
    """A frame with an envelope whose signature is nonsense."""
    signer = {ADA.node: ADA, EVE.node: EVE}[header.issuer]
    return framing.frame(Form.SEALED, envelope.seal(signer, header, body)[:-64] + bytes(64))


@settings(max_examples=100)
@given(st.binary(max_size=200), st.booleans(), st.sampled_from(Form))
def test_noise_on_a_link_raises_one_error_or_nothing(noise: bytes, greeted: bool, form: Form) -> None:
    """[LNK-7] As a stream, and well framed."""
    for data in (noise, framing.frame(form, noise)):
        end = Pair(greeted=greeted).bob
        try:
            messages = end.receive(data, NOW_S)
        except RemoteProtocolError:
            continue
        assert all(not message.SEALED for message in messages)


def test_every_single_changed_bit_of_a_sealed_frame_is_refused_or_yields_nothing() -> None:
    """[ENV-9] [FRM-4] A longer length waits for more; everything else is an error."""
    pair = Pair()
    frame = pair.ada.send(Goodbye(True, "stopping"), NOW_S)
    for bit in range(8 * len(frame)):
        changed = bytearray(frame)
        changed[bit // 8] ^= 1 << bit % 8
        fresh = Pair().bob  # The same seeds, so the same token.
        try:
            assert fresh.receive(bytes(changed), NOW_S) == []
        except RemoteProtocolError:
            continue
    assert Pair().bob.receive(frame, NOW_S) == [Goodbye(True, "stopping")]


# --- Attempts on a link -----------------------------------------------------------------------------------------------


def test_a_late_cancel_is_dropped_silently() -> None:
    """[EXC-4] It crossed the end of the answer."""
    pair = Pair()
    pair.bob.receive(pair.ada.send(task_request(ATTEMPT), NOW_S), NOW_S)
    end = pair.bob.send(TaskAccepted(ATTEMPT, "m", 0), NOW_S) + pair.bob.send(FINISHED, NOW_S)
    cancel = pair.ada.send(TaskCancelled(ATTEMPT), NOW_S)
    assert pair.bob.receive(cancel, NOW_S) == []
    assert pair.ada.receive(end, NOW_S) == [TaskAccepted(ATTEMPT, "m", 0), FINISHED]


FINISHED = TaskFinished(ATTEMPT, 0, "stop", 1, 0, 0, 0, 0)


def test_what_belongs_to_a_closed_attempt_is_not_sent() -> None:
    """[EXC-4] Nor does it take a number of the counter."""
    pair = Pair()
    assert pair.bob.send(TaskPiece(ATTEMPT, 0, "late"), NOW_S) == b""
    assert pair.ada.send(TaskCancelled(ATTEMPT), NOW_S) == b""
    opened, _, _ = envelope.split(pair.ada.send(Goodbye(False, ""), NOW_S)[framing.HEAD_BYTES :])
    assert opened.nonce == counted(pair, 1)


def test_a_message_out_of_order_ends_the_link() -> None:
    """[EXC-2] A piece of an answer that nobody asked for."""
    pair = Pair()
    assert refused(pair.ada, framing.frame(Form.BARE, codec.encode(TaskPiece(ATTEMPT, 0, "x")))) == "disorder"


def test_a_request_that_does_not_fit_takes_no_room() -> None:
    """[COD-7] [EXC-5] Nothing was sent, so the attempt is not open, and the same attempt may be asked for with less."""
    pair = Pair()
    large = replace(task_request(ATTEMPT), turns=(Turn("user", "x" * lim.TURN_BYTES_MAX),) * 2)
    with pytest.raises(LocalProtocolError):
        pair.ada.send(large, NOW_S)
    assert pair.bob.receive(pair.ada.send(task_request(ATTEMPT), NOW_S), NOW_S) == [task_request(ATTEMPT)]


def test_one_request_too_many_is_not_sent() -> None:
    """[EXC-5] The link says so by returning nothing."""
    pair = Pair()
    for number in range(lim.EXCHANGES_PER_LINK_MAX):
        assert pair.ada.send(task_request(number.to_bytes(16, "big")), NOW_S)
    assert pair.ada.send(task_request(ATTEMPT), NOW_S) == b""


SPOKEN = st.lists(st.sampled_from([cls for cls in MESSAGES.values() if cls not in (Hello, *codec.PASSED_ON, *TASK_MESSAGES)]))


@settings(max_examples=50)
@given(SPOKEN, st.data())
def test_a_conversation_arrives_however_the_stream_is_cut(kinds: list[type[Message]], data: st.DataObject) -> None:
    """[FRM-4] [LNK-4] Hello, then messages of any kind."""
    pair = Pair()
    said = [data.draw(instances(cls)) for cls in kinds]
    stream = b"".join(pair.ada.send(message, NOW_S) for message in said)
    heard = [message for chunk in data.draw(chunks_of(stream)) for message in pair.bob.receive(chunk, NOW_S)]
    assert heard == said


def test_a_whole_attempt_passes() -> None:
    """[EXC-1] Request, accept, pieces, end, and a question in between."""
    pair = Pair()
    request = task_request(ATTEMPT)
    assert pair.bob.receive(pair.ada.send(request, NOW_S), NOW_S) == [request]
    answer = [TaskAccepted(ATTEMPT, "m", 0), TaskPiece(ATTEMPT, 0, "a"), Ping(1), TaskPiece(ATTEMPT, 1, "b"), FINISHED]
    assert pair.ada.receive(b"".join(pair.bob.send(m, NOW_S) for m in answer), NOW_S) == answer
    assert pair.bob.receive(pair.ada.send(Pong(1), NOW_S), NOW_S) == [Pong(1)]


def test_adverts_pass_inside_a_push() -> None:
    """[ADV-1] Unproven: that is for the notary."""
    pair = Pair()
    signed = Notary(EVE, SWARM, Random(3)).sign(ADVERT, 60.0, NOW_S)
    assert pair.bob.receive(pair.ada.send(AdvertPush((signed,)), NOW_S), NOW_S) == [AdvertPush((signed,))]
