"""Which word goes first when not all can be told."""

from random import Random

import pytest

from protocol.identity import NodeId
from protocol.messages import Advert, Message, Pulse, Signed, Suspicion
from swarm.finding.backlog import ADVERT_WEIGHT, BURST_S, LEAD_MAX, Backlog, Key, Worth
from swarm.settings import Settings
from tests.swarm.samples import ADA, NOW, node_id, signed

BUDGET = 16.0
LISTENERS = [node_id(100 + number) for number in range(4)]


def pulse(node: NodeId, busy: int = 1) -> Signed[Pulse]:
    return Signed(node, round(NOW * 1000), 60_000, Pulse(0, busy, 0, False, False), b"")


def doubt(node: NodeId) -> Signed[Suspicion]:
    return Signed(ADA, round(NOW * 1000), 60_000, Suspicion(node, 1), b"")


class Hearsay:
    """A backlog, and how often it has told each kind of word."""

    def __init__(self, **settings: float) -> None:
        self.backlog = Backlog(Settings(gossip_budget=BUDGET, **settings), Random(1))
        self.told: list[NodeId] = []

    def hears(self, word: Signed[Message], worth: Worth) -> None:
        node = word.body.node if isinstance(word.body, Suspicion) else word.issuer
        self.backlog.add(Key(node, None, type(word.body)), word, ADA, worth)

    def passes(self, seconds: float) -> None:
        """Time in which it may tell; before, it has told all that it might."""
        self.backlog._told_at, self.backlog._allowance = NOW, 0.0
        now = NOW
        while now < NOW + seconds:
            now += 0.1
            told = self.backlog.take(LISTENERS, now, lambda node: True)
            self.told += dict.fromkeys(word.issuer for words in told.values() for word in words)

    def share(self, low: int, high: int) -> int:
        return sum(node_id(low) <= node < node_id(high) for node in self.told)


def test_invented_nodes_do_not_silence_the_others() -> None:
    """They come as fast as they like. Without turns, the newest word about a new node would always be first."""
    hearsay = Hearsay()
    for number in range(200):
        hearsay.hears(signed(node_id(1_000 + number)), Worth.CHEAP)
        hearsay.hears(pulse(node_id(2_000 + number)), Worth.LOAD)
    hearsay.passes(20.0)
    cheap, loads = hearsay.share(1_000, 2_000), hearsay.share(2_000, 3_000)
    assert ADVERT_WEIGHT * cheap == pytest.approx(loads, abs=LEAD_MAX)
    assert loads >= 20.0 * BUDGET / 2 / len(LISTENERS) - LEAD_MAX / len(LISTENERS)


def test_newcomers_are_heard_of_while_there_is_more_to_tell_than_may_be_told() -> None:
    hearsay = Hearsay()
    hearsay.hears(signed(node_id(1_000)), Worth.CHEAP)
    for number in range(200):
        hearsay.hears(pulse(node_id(2_000 + number)), Worth.LOAD)
        hearsay.hears(pulse(node_id(3_000 + number)), Worth.RENEWAL)
    hearsay.passes(2.0)
    assert hearsay.share(1_000, 2_000) == 1


def test_what_is_cheap_has_everything_where_nothing_else_is_to_be_told() -> None:
    hearsay = Hearsay()
    for number in range(20):
        hearsay.hears(signed(node_id(1_000 + number)), Worth.CHEAP)
    hearsay.passes(20 * ADVERT_WEIGHT * len(LISTENERS) / BUDGET)
    assert hearsay.share(1_000, 2_000) == 20


def test_a_time_with_nothing_but_cheap_words_does_not_silence_them_for_long() -> None:
    hearsay = Hearsay()
    for number in range(200):
        hearsay.hears(signed(node_id(1_000 + number)), Worth.CHEAP)
    hearsay.passes(BURST_S)
    before = hearsay.share(1_000, 2_000)
    for number in range(200):
        hearsay.hears(pulse(node_id(2_000 + number)), Worth.LOAD)
    hearsay.passes(LEAD_MAX / BUDGET + 2.0)
    assert hearsay.share(1_000, 2_000) > before


@pytest.mark.parametrize("other", [Worth.LOAD, Worth.RENEWAL, Worth.CHEAP])
def test_news_goes_before_all(other: Worth) -> None:
    hearsay = Hearsay()
    hearsay.hears(doubt(node_id(1)), Worth.NEWS)
    for number in range(50):
        hearsay.hears(pulse(node_id(2_000 + number)), other)
    hearsay.passes(0.2)
    assert hearsay.told[0] == ADA


def test_a_renewal_of_what_was_not_told_yet_is_as_much_news_as_that() -> None:
    hearsay = Hearsay()
    hearsay.hears(pulse(node_id(2_000), busy=1), Worth.LOAD)
    hearsay.hears(pulse(node_id(2_000), busy=1), Worth.RENEWAL)
    assert hearsay.backlog.is_urgent
    hearsay.hears(pulse(node_id(3_000)), Worth.LOAD)
    hearsay.passes(1.0)
    assert hearsay.told == [node_id(2_000), node_id(3_000)]
    assert not hearsay.backlog


def test_each_worth_is_bounded_and_its_oldest_go() -> None:
    hearsay = Hearsay(adverts_max=2)
    for worth in Worth:
        for number in range(3):
            hearsay.hears(pulse(node_id(1_000 * worth + 10 + number)), worth)
    hearsay.passes(10.0)
    assert sorted(hearsay.told) == [node_id(1_000 * worth + 10 + number) for worth in Worth for number in (1, 2)]


def test_adverts_of_nodes_that_are_gone_cost_nothing() -> None:
    hearsay = Hearsay()
    hearsay.hears(signed(node_id(1_000)), Worth.NEWS)
    hearsay.backlog._told_at, hearsay.backlog._allowance = NOW, 1.0
    assert hearsay.backlog.take(LISTENERS, NOW, lambda node: False) == {}
    assert (hearsay.backlog._allowance, bool(hearsay.backlog)) == (1.0, False)
    assert Key(node_id(1_000), None, Advert) not in hearsay.backlog._waiting[Worth.NEWS]
