"""Which word goes first when not all can be told."""

from random import Random

import pytest

from protocol.identity import NodeId
from protocol.messages import Message, Pulse, Signed, Suspicion
from swarm.finding.backlog import ADVERT_WEIGHT, GONE_COPIES, SHARES, Backlog, Key, Worth
from swarm.settings import Settings
from tests.swarm.samples import ADA, NOW, node_id, signed

BUDGET = 16.0
LISTENERS = [node_id(100 + number) for number in range(4)]
NAMES = {worth: [node_id(1_000 * (worth + 1) + number) for number in range(200)] for worth in Worth}


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

    def count(self, worth: Worth) -> int:
        """How many of this kind were told."""
        return sum(node in NAMES[worth] for node in self.told)

    def hears_much(self, *worths: Worth) -> None:
        for worth in worths:
            for node in NAMES[worth]:
                self.hears(pulse(node), worth)


def test_whoever_floods_one_kind_of_words_does_not_silence_the_others() -> None:
    """Names cost nothing: thousands of nodes may come, change, be busy and go."""
    hearsay = Hearsay()
    hearsay.hears_much(*Worth)
    hearsay.passes(20.0)
    whole = sum(SHARES.values())
    told = 20.0 * BUDGET
    for worth in Worth:
        copies = min(len(LISTENERS), {Worth.GONE: GONE_COPIES, Worth.RENEWAL: 2}.get(worth, 4))
        assert copies * hearsay.count(worth) == pytest.approx(told * SHARES[worth] / whole, abs=8)


@pytest.mark.parametrize("flooded", Worth)
def test_one_word_of_another_kind_is_told_soon_whatever_is_flooded(flooded: Worth) -> None:
    for worth in set(Worth) - {flooded}:
        hearsay = Hearsay()
        hearsay.hears_much(flooded)
        hearsay.passes(20.0)
        hearsay.hears(pulse(NAMES[worth][0]), worth)
        hearsay.passes(2.0)
        assert hearsay.count(worth) == 1


@pytest.mark.parametrize("worth", Worth)
def test_a_kind_has_everything_where_nothing_else_is_to_be_told(worth: Worth) -> None:
    hearsay = Hearsay()
    hearsay.hears_much(worth)
    hearsay.passes(20.0)
    copies = 2 if worth is Worth.RENEWAL else len(LISTENERS)
    assert copies * hearsay.count(worth) == pytest.approx(20.0 * BUDGET, abs=8)


def test_having_had_nothing_to_tell_saves_nothing() -> None:
    """Else a flood of one kind would silence all others for as long as it had not come."""
    hearsay = Hearsay()
    hearsay.hears_much(Worth.LOAD)
    hearsay.passes(10.0)
    loads = hearsay.count(Worth.LOAD)
    hearsay.hears_much(Worth.STRANGER)
    hearsay.passes(10.0)
    share = SHARES[Worth.LOAD] / (SHARES[Worth.LOAD] + SHARES[Worth.STRANGER])
    assert hearsay.count(Worth.LOAD) - loads == pytest.approx(share * loads, abs=4)


def test_adverts_cost_as_much_as_they_are_long() -> None:
    hearsay = Hearsay()
    for node in NAMES[Worth.STRANGER]:
        hearsay.hears(signed(node), Worth.STRANGER)
    hearsay.passes(20.0)
    assert len(LISTENERS) * ADVERT_WEIGHT * hearsay.count(Worth.STRANGER) == pytest.approx(20.0 * BUDGET, abs=32)


def test_what_makes_others_forget_a_node_comes_first_and_goes_to_more() -> None:
    listeners = [node_id(100 + number) for number in range(GONE_COPIES + 3)]
    backlog = Backlog(Settings(gossip_budget=BUDGET), Random(1))
    backlog._told_at, backlog._allowance = NOW, 4.0
    backlog.add(Key(node_id(7), None, Pulse), pulse(node_id(7)), ADA, Worth.LOAD)
    word = doubt(node_id(8))
    backlog.add(Key(node_id(8), ADA, Suspicion), word, ADA, Worth.GONE)
    told = backlog.take(listeners, NOW, lambda node: True)
    assert list(told.values()) == [[word]] * GONE_COPIES
    assert backlog.is_urgent, "the load waits for its turn"


def test_a_renewal_of_what_was_not_told_yet_is_as_much_news_as_that() -> None:
    hearsay = Hearsay()
    hearsay.hears(pulse(node_id(2_000), busy=1), Worth.LOAD)
    hearsay.hears(pulse(node_id(2_000), busy=1), Worth.RENEWAL)
    assert hearsay.backlog.is_urgent
    hearsay.hears(pulse(node_id(3_000)), Worth.LOAD)
    hearsay.passes(1.0)
    assert hearsay.told == [node_id(2_000), node_id(3_000)]
    assert not hearsay.backlog


def test_each_kind_is_bounded_and_its_oldest_go() -> None:
    hearsay = Hearsay(adverts_max=2)
    for worth in Worth:
        for node in NAMES[worth][:3]:
            hearsay.hears(pulse(node), worth)
    hearsay.passes(10.0)
    assert sorted(hearsay.told) == sorted(node for worth in Worth for node in NAMES[worth][1:3])


def test_adverts_of_nodes_that_are_gone_cost_nothing() -> None:
    hearsay = Hearsay()
    hearsay.hears(signed(node_id(1_000)), Worth.CHANGE)
    hearsay.backlog._told_at, hearsay.backlog._allowance = NOW, 1.0
    assert hearsay.backlog.take(LISTENERS, NOW, lambda node: False) == {}
    assert (hearsay.backlog._allowance, bool(hearsay.backlog)) == (1.0, False)
