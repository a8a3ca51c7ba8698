"""The replay window: nothing twice, full refuses the new, the living are never forgotten."""

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from protocol import limits as lim
from protocol.envelope import Header
from protocol.errors import RemoteProtocolError
from protocol.identity import NodeId
from protocol.replay import ReplayWindow
from tests.strategies import ADA, BOB, NOW_MS, SWARM

HEADER = Header(SWARM, ADA.node, BOB.node, bytes(16), NOW_MS, 30_000)
LAST_MS = NOW_MS + HEADER.lifetime_ms + lim.CLOCK_SKEW_MS_MAX  # The last moment at which it passes the time check.


def nonce(number: int) -> bytes:
    return number.to_bytes(16, "big")


def take(window: ReplayWindow, header: Header, now_ms: int = NOW_MS) -> str:
    """Open an envelope whose signature holds: the kind of error, or nothing."""
    try:
        window.refuse_known(header, now_ms)
    except RemoteProtocolError as error:
        return error.kind
    window.remember(header)
    return ""


def test_an_envelope_opens_once() -> None:
    """[RPL-1] Until its time is over, to the last millisecond."""
    window = ReplayWindow()
    assert take(window, HEADER) == ""
    assert take(window, HEADER) == "replayed"
    assert take(window, HEADER, LAST_MS) == "replayed"


def test_another_issuer_may_use_the_same_nonce() -> None:
    """[RPL-1] Nonces are counted for each issuer alone, so nobody can burn those of others."""
    window = ReplayWindow()
    assert take(window, HEADER) == ""
    assert take(window, replace(HEADER, issuer=BOB.node)) == ""


def test_what_has_expired_is_forgotten() -> None:
    """[RPL-1] From then on the time check refuses it."""
    window = ReplayWindow()
    assert take(window, HEADER) == ""
    assert take(window, replace(HEADER, nonce=nonce(1), sent_at_ms=LAST_MS + 1), LAST_MS + 1) == ""
    assert len(window) == 1


def test_looking_does_not_remember() -> None:
    """[RPL-3] A forged envelope is looked up but never remembered, so the true one still opens."""
    window = ReplayWindow()
    window.refuse_known(HEADER, NOW_MS)
    assert len(window) == 0
    assert take(window, HEADER) == ""


def test_one_issuer_cannot_fill_the_window() -> None:
    """[RPL-2] Its own bound is reached long before."""
    window = ReplayWindow()
    for number in range(lim.REPLAY_PER_ISSUER_MAX):
        assert take(window, replace(HEADER, nonce=nonce(number))) == ""
    assert take(window, replace(HEADER, nonce=nonce(1000))) == "crowded"
    assert take(window, replace(HEADER, issuer=BOB.node)) == ""
    assert take(window, HEADER) == "replayed", "the living are not forgotten"
    later = LAST_MS + 1
    assert take(window, replace(HEADER, nonce=nonce(1000), sent_at_ms=later), later) == ""


def test_a_full_window_refuses_the_new_and_keeps_the_old() -> None:
    """[RPL-2] However many issuers there are."""
    window = ReplayWindow()
    issuers = [NodeId(number.to_bytes(32, "big")) for number in range(lim.REPLAY_TOTAL_MAX)]
    for issuer in issuers:
        assert take(window, replace(HEADER, issuer=issuer)) == ""
    assert len(window) == lim.REPLAY_TOTAL_MAX
    stranger = replace(HEADER, issuer=ADA.node)
    assert take(window, stranger) == "crowded"
    assert take(window, replace(HEADER, issuer=issuers[0])) == "replayed"
    later = replace(stranger, sent_at_ms=LAST_MS + 1)
    assert take(window, later, LAST_MS + 1) == "", "what has expired makes room"
    assert len(window) == 1


class WindowMachine(RuleBasedStateMachine):
    """[RPL-1] [RPL-2] The window beside a plain list of all that was ever opened."""

    def __init__(self) -> None:
        super().__init__()
        self.window = ReplayWindow()
        self.opened: list[Header] = []
        self.now_ms = NOW_MS

    @rule(ms=st.integers(0, lim.LIFETIME_MS_MAX))
    def time_passes(self, ms: int) -> None:
        self.now_ms += ms

    @rule(
        issuer=st.sampled_from([ADA.node, BOB.node]),
        number=st.integers(0, 5),
        age_ms=st.integers(-lim.CLOCK_SKEW_MS_MAX, lim.CLOCK_SKEW_MS_MAX),
        lifetime_ms=st.integers(1, lim.LIFETIME_MS_MAX),
    )
    def an_envelope_comes(self, issuer: NodeId, number: int, age_ms: int, lifetime_ms: int) -> None:
        header = Header(SWARM, issuer, None, nonce(number), self.now_ms - age_ms, lifetime_ms)
        known = any((old.issuer, old.nonce) == (issuer, header.nonce) and self.alive(old) for old in self.opened)
        verdict = take(self.window, header, self.now_ms)
        if known:
            assert verdict == "replayed"
        elif not verdict:
            self.opened.append(header)

    def alive(self, header: Header) -> bool:
        return header.sent_at_ms + header.lifetime_ms + lim.CLOCK_SKEW_MS_MAX >= self.now_ms

    @invariant()
    def nothing_living_is_forgotten(self) -> None:
        for header in self.opened:
            if self.alive(header):
                with pytest.raises(RemoteProtocolError):
                    self.window.refuse_known(header, self.now_ms)


WindowMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30)
TestWindowMachine = WindowMachine.TestCase
