"""Adverts that prove themselves, whoever brings them."""

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings

from protocol import codec, envelope
from protocol import limits as lim
from protocol.envelope import Header
from protocol.errors import LocalProtocolError
from protocol.messages import Advert, Signed
from protocol.notary import Notary
from protocol.parts import Capability
from tests.strategies import ADA, BOB, EVE, NOW_MS, NOW_S, SWARM, instances, signed_adverts

ADVERT = Advert("ada", (), (), 2, 1, 0, False)
NOTARY = Notary(ADA, SWARM, Random(5))


def holds(sealed: bytes, now_s: float = NOW_S) -> bool:
    return not Notary(BOB, SWARM, Random(6)).fault(codec.signed(Advert, sealed), now_s)


@settings(max_examples=50)
@given(instances(Advert))
def test_a_signed_advert_holds_and_says_what_was_signed(advert: Advert) -> None:
    """[ADV-1] [ADV-3] [ADV-4] Its version is the time at which it was issued."""
    signed = NOTARY.sign(advert, 60.0, NOW_S)
    assert (signed.issuer, signed.issued_at_ms, signed.lifetime_ms) == (ADA.node, NOW_MS, 60_000)
    assert codec.signed(Advert, signed.sealed) == signed
    assert holds(signed.sealed)


def test_every_single_changed_bit_is_refused() -> None:
    """[ADV-3] By the decoder or by the notary."""
    sealed = NOTARY.sign(ADVERT, 60.0, NOW_S).sealed
    for bit in range(8 * len(sealed)):
        changed = bytearray(sealed)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            assert not holds(bytes(changed))
        except envelope.RemoteProtocolError:
            continue


@settings(max_examples=50)
@given(signed_adverts())
def test_the_notary_judges_the_envelope_and_nothing_else(signed: Signed[Advert]) -> None:
    """[ADV-3] At the moment of issue every true advert holds."""
    assert holds(signed.sealed, signed.issued_at_ms / 1000)


def test_an_advert_holds_for_its_lifetime_and_the_skew() -> None:
    """[ADV-3] [ENV-8] And from as early as clocks may differ."""
    sealed = NOTARY.sign(ADVERT, 60.0, NOW_S).sealed
    skew_s = lim.CLOCK_SKEW_MS_MAX / 1000
    assert holds(sealed, NOW_S - skew_s)
    assert not holds(sealed, NOW_S - skew_s - 1)
    assert holds(sealed, NOW_S + 60 + skew_s)
    assert not holds(sealed, NOW_S + 60 + skew_s + 1)


def test_an_advert_of_another_swarm_does_not_hold() -> None:
    """[ADV-3] [ENV-6] Gossip does not leak from swarm to swarm."""
    assert not holds(Notary(ADA, bytes(32), Random(5)).sign(ADVERT, 60.0, NOW_S).sealed)


def test_an_advert_for_somebody_does_not_hold() -> None:
    """[ADV-1] [ADV-3] An advert speaks to everybody; what was said to one is not one."""
    header = Header(SWARM, ADA.node, BOB.node, bytes(16), NOW_MS, 60_000)
    assert not holds(envelope.seal(ADA, header, codec.encode(ADVERT)))


def test_an_advert_in_anothers_name_does_not_hold() -> None:
    """[ADV-3] Eve puts Ada's id over her own signature."""
    sealed = Notary(EVE, SWARM, Random(5)).sign(ADVERT, 60.0, NOW_S).sealed
    forged = sealed.replace(bytes(EVE.node), bytes(ADA.node))
    assert codec.signed(Advert, forged).issuer == ADA.node
    assert not holds(forged)


def test_what_is_not_even_an_envelope_does_not_hold() -> None:
    signed = NOTARY.sign(ADVERT, 60.0, NOW_S)
    assert NOTARY.fault(replace(signed, sealed=b"\xc0"), NOW_S) == "garbage"


def test_an_advert_that_nobody_would_take_is_never_signed() -> None:
    """[ADV-2] [ENV-2] Too large, or living too long."""
    capability = Capability("chat", "m", b"", 1, 1.0, 1, 1, (), "d" * lim.DESCRIPTION_BYTES_MAX)
    large = replace(ADVERT, capabilities=(replace(capability, labels=("l" * 32,) * 32),) * lim.CAPABILITIES_MAX)
    with pytest.raises(LocalProtocolError, match="allowed"):
        NOTARY.sign(large, 60.0, NOW_S)
    with pytest.raises(LocalProtocolError):
        NOTARY.sign(ADVERT, lim.LIFETIME_MS_MAX / 1000 + 1, NOW_S)
