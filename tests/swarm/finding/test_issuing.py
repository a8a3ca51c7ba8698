"""What this node says of itself: its advert, its pulses, and when each is due."""

from random import Random

import pytest

from protocol import codec
from protocol import limits as lim
from protocol.identity import NodeId
from protocol.messages import Advert
from swarm.effects import AdvertDue, Effect, Provide
from swarm.finding.capabilities import CapabilityIndex
from swarm.finding.issuing import PREFIXES_PERIOD_S, Issuer
from swarm.settings import Settings
from swarm.values import Subject
from tests.swarm.finding.hearing import ADA, BOB, CHAT, CODE, CYD, notary, rumoured, told
from tests.swarm.samples import NOW, capability


class Ada:
    """Ada with these neighbours, and a load that the test sets."""

    def __init__(self, *neighbours: NodeId) -> None:
        self.settings = Settings()
        self.index = CapabilityIndex(ADA, self.settings)
        self.load = (0, 0, 0)
        self.prefixes: tuple[bytes, ...] = ()
        self.issuer = Issuer(
            ADA, "ada", self.settings, notary(ADA), Random(1), self.index, lambda: self.load, lambda: self.prefixes,
            lambda: list(neighbours),
        )  # fmt: skip


def beats(effects: list[Effect]) -> list[NodeId]:
    """Who is told of a pulse."""
    return [node for node, _ in rumoured(effects)]


def test_a_started_node_knows_itself() -> None:
    ada = Ada(BOB)
    effects = ada.issuer.start(("/memory/ada",), NOW)
    assert ada.index.get(ADA).signed is ada.issuer.advert
    assert ada.issuer.advert.body == Advert("ada", ("/memory/ada",), (), 0, 0, 0, False)
    assert told(effects) == [(BOB, [ADA])]


def test_new_capabilities_are_told_at_once_and_provided() -> None:
    ada = Ada(BOB, CYD)
    effects = ada.issuer.offer((CODE, CHAT, capability("chat", "other")), NOW)
    assert effects[0] == Provide(
        (Subject("chat"), Subject("code"), *(Subject(model=model) for model in ("coder", "other", "smollm2")))
    )
    assert told(effects) == [(BOB, [ADA]), (CYD, [ADA])]
    assert len(ada.issuer.advert.body.capabilities) == 3


def test_whose_owner_wants_the_machine_says_so_at_once_and_keeps_saying_it() -> None:
    ada = Ada(BOB)
    assert ada.issuer.reserve(True, NOW) == [], "nobody knows it yet"
    ada.issuer.start(("/memory/ada",), NOW)
    assert ada.issuer.advert.body.draining
    assert beats(ada.issuer.reserve(False, NOW + 1)) == [BOB]
    assert not ada.issuer.pulse.body.draining
    assert ada.issuer.reserve(False, NOW + 2) == []
    ada.issuer.reserve(True, NOW + 3)
    ada.issuer.issue(NOW + 4)
    assert ada.issuer.advert.body.draining


def test_versions_grow_even_within_a_millisecond() -> None:
    ada = Ada()
    versions = []
    for _ in range(3):
        ada.issuer.issue(NOW)
        versions.append(ada.issuer.advert.issued_at_ms)
    assert versions == sorted(set(versions))
    assert ada.index.get(ADA).signed.issued_at_ms == versions[-1]


def test_only_the_timer_of_the_latest_version_gives_a_sign_of_life() -> None:
    ada = Ada(BOB)
    first, second = ada.issuer.issue(NOW)[0], ada.issuer.issue(NOW + 1)[0]
    assert (first.timer, second.timer) == (AdvertDue(1), AdvertDue(2))
    assert ada.issuer.due(first.timer, NOW + 15) == []
    assert beats(ada.issuer.due(second.timer, NOW + 16)) == [BOB]
    assert ada.issuer.pulse.issued_at_ms == ada.issuer.version == round((NOW + 16) * 1000)
    assert ada.issuer.pulse.body.card == ada.issuer.advert.issued_at_ms == round((NOW + 1) * 1000)


def test_the_advert_itself_is_renewed_rarely() -> None:
    ada = Ada(BOB)
    [timer, _] = ada.issuer.issue(NOW)
    for _ in range(14):
        [timer, _] = ada.issuer.due(timer.timer, NOW + 20)
    assert told(ada.issuer.due(timer.timer, NOW + ada.settings.advert_period_s)) == [(BOB, [ADA])]
    assert ada.issuer.pulse is None, "the advert itself is the newest sign of life"


@pytest.mark.parametrize(
    ("load", "seconds", "is_told"),
    [
        ((2, 1, 0), 5, False),  # Still room.
        ((2, 2, 0), 5, True),
        ((2, 2, 0), 0.1, False),  # Sooner than the gap.
        ((2, 2, 1), 5, True),
        ((0, 0, 0), 5, False),  # Nothing to be full of.
    ],
)
def test_a_node_that_fills_up_says_so(load: tuple[int, int, int], seconds: float, is_told: bool) -> None:
    ada = Ada(BOB)
    assert ada.issuer.load_changed(NOW) == [], "before there is an advert"
    ada.load = (2, 0, 0)
    ada.issuer.issue(NOW)
    ada.load = load
    assert bool(beats(ada.issuer.load_changed(NOW + seconds))) is is_told


def test_a_change_within_the_gap_is_told_when_the_gap_is_over() -> None:
    ada = Ada(BOB)
    ada.load = (1, 0, 0)
    ada.issuer.issue(NOW)
    ada.load = (1, 1, 0)
    [soon] = ada.issuer.load_changed(NOW + 0.04)
    assert soon.delay_s == pytest.approx(ada.settings.pulse_gap_s - 0.04, abs=0.001)
    assert ada.issuer.load_changed(NOW + 0.08) == [], "once is enough"
    assert beats(ada.issuer.due(soon.timer, NOW + 0.1)) == [BOB]
    assert ada.issuer.pulse.body.busy == ada.index.get(ADA).advert.busy == 1


@pytest.mark.parametrize(
    ("before", "after", "is_told"),
    [(1, 2, True), (2, 1, True), (4, 5, False), (4, 8, False), (4, 9, True), (4, 1, True)],
)
def test_a_queue_is_told_again_when_it_is_another(before: int, after: int, is_told: bool) -> None:
    ada = Ada(BOB)
    ada.load = (1, 1, before)
    ada.issuer.issue(NOW)
    ada.load = (1, 1, after)
    assert bool(beats(ada.issuer.load_changed(NOW + 5))) is is_told


def test_a_node_that_has_room_again_says_so_once() -> None:
    ada = Ada(BOB)
    ada.load = (1, 1, 3)
    ada.issuer.issue(NOW)
    ada.load = (1, 0, 0)
    assert beats(ada.issuer.load_changed(NOW + 2))
    assert not ada.issuer.load_changed(NOW + 4)
    assert ada.issuer.pulse.body.busy == 0


def test_a_node_that_is_about_to_stop_says_so() -> None:
    ada = Ada(BOB)
    assert ada.issuer.leave(NOW) == [], "nobody has heard of it"
    ada.issuer.offer((CHAT,), NOW)
    assert beats(ada.issuer.leave(NOW + 1)) == [BOB]
    assert ada.issuer.pulse.body.leaving
    ada.issuer.issue(NOW + 2)
    assert ada.issuer.advert.body.draining, "a renewal must not claim that it takes work"


def test_an_advert_always_fits_its_bounds() -> None:
    """Sixteen capabilities with long texts are more than an advert holds: the texts go before the capabilities do."""
    ada = Ada()
    long = "x" * lim.DESCRIPTION_BYTES_MAX
    labels = tuple("y" * lim.LABEL_BYTES_MAX for _ in range(lim.LABELS_MAX))
    offered = tuple(
        capability(f"skill{number}", "m" * lim.MODEL_BYTES_MAX, digest=b"d" * 32, description=long, labels=labels)
        for number in range(lim.CAPABILITIES_MAX)
    )
    addresses = tuple("a" * lim.ADDRESS_BYTES_MAX for _ in range(lim.ADDRESSES_MAX + 1))
    ada.load = (5000, 5000, 5000)
    ada.issuer.start(addresses, NOW)
    ada.issuer.offer((*offered, CHAT), NOW + 1)
    own = ada.issuer.advert
    assert len(own.sealed) <= lim.ADVERT_BYTES_MAX
    assert codec.signed(Advert, own.sealed) == own
    assert [found.skill for found in own.body.capabilities] == [found.skill for found in offered]
    assert (own.body.slots, own.body.busy, own.body.queued) == (lim.SLOTS_MAX,) * 3


def test_texts_that_fit_are_kept() -> None:
    ada = Ada()
    spoken = capability("chat", description="talks", labels=("yes", "no"))
    ada.issuer.offer((spoken,), NOW)
    assert ada.issuer.advert.body.capabilities == (spoken,)


def test_what_was_read_is_told_now_and_then_and_the_latest_of_it() -> None:
    """[ADV-11]"""
    ada = Ada(BOB)
    ada.issuer.start(("/memory/ada",), NOW)
    ada.prefixes = tuple(bytes([number] * 8) for number in range(lim.PREFIXES_MAX + 2))
    assert told(ada.issuer.load_changed(NOW + PREFIXES_PERIOD_S - 1)) == []
    assert told(ada.issuer.load_changed(NOW + PREFIXES_PERIOD_S)) == [(BOB, [ADA])]
    assert ada.issuer.advert.body.prefixes == ada.prefixes[-lim.PREFIXES_MAX :]
    ada.prefixes = ada.prefixes[-3:]
    assert told(ada.issuer.load_changed(NOW + 3 * PREFIXES_PERIOD_S)) == [], "what is gone can wait"
    ada.prefixes = (*ada.prefixes, b"new one!")
    ada.issuer.offer((CHAT,), NOW + 3 * PREFIXES_PERIOD_S)
    assert ada.issuer.advert.body.prefixes == ada.prefixes, "every advert says what is so then"


@pytest.mark.parametrize(
    ("speedup", "before", "after", "is_told"),
    [(1.5, 0, 1, True), (1.5, 1, 2, True), (1.5, 1, 0, True), (1.5, 8, 9, False), (1.5, 8, 14, True), (8.0, 0, 1, False),
     (0.0, 0, 15, False), (0.0, 0, 16, True), (16.0, 0, 15, False)],
)  # fmt: skip
def test_a_node_whose_answers_share_a_processor_says_how_many_there_are(
    speedup: float, before: int, after: int, is_told: bool
) -> None:
    """Whoever asks must know; where each slot has a processor, it is enough to know of the last."""
    ada = Ada(BOB)
    ada.issuer.offer((capability(slots=16, speedup=speedup), capability("summarize", slots=16, speedup=speedup)), NOW)
    ada.load = (16, before, 0)
    ada.issuer.issue(NOW)
    ada.load = (16, after, 0)
    assert bool(beats(ada.issuer.load_changed(NOW + 5))) is is_told
