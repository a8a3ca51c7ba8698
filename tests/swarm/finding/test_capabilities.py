"""The index of adverts: versions, age, tombstones, bounds, and the order of every walk."""

import pytest

from protocol.identity import NodeId
from swarm.finding.capabilities import FORGOTTEN_MAX, CapabilityIndex
from swarm.settings import Settings
from tests.swarm.samples import ADA, BOB, CYD, DAN, NOW, capability, node_id, signed

SETTINGS = Settings()
CHAT, CODE, EMBED = capability("chat"), capability("code", "coder"), capability("embed", "minilm")


def index_of(*nodes: NodeId, settings: Settings = SETTINGS) -> CapabilityIndex:
    """Ada's index, with adverts for chat of these nodes."""
    index = CapabilityIndex(ADA, settings)
    for node in nodes:
        index.learn(signed(node, CHAT), NOW, True)
    return index


def able(index: CapabilityIndex, skill: str) -> list[NodeId]:
    return [known.signed.issuer for known, _ in index.able(skill)]


# --- Versions -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("issued_at", "is_news"), [(NOW - 1, False), (NOW, False), (NOW + 0.001, True)])
def test_only_a_newer_version_is_news(issued_at: float, is_news: bool) -> None:
    assert index_of(BOB).is_news(signed(BOB, issued_at=issued_at)) is is_news


def test_an_unknown_node_is_news() -> None:
    assert index_of(BOB).is_news(signed(CYD, issued_at=0.0))


def test_a_new_version_replaces_all_of_the_old_one() -> None:
    index = CapabilityIndex(ADA, Settings())
    index.learn(signed(BOB, CHAT, CODE), NOW, True)
    index.learn(signed(BOB, CODE, EMBED, issued_at=NOW + 1), NOW + 1, True)
    assert [able(index, skill) for skill in ("chat", "code", "embed")] == [[], [BOB], [BOB]]
    assert index.skills() == ["code", "embed"]
    assert len(index) == 1


def test_one_node_may_offer_a_skill_with_several_models() -> None:
    index = CapabilityIndex(ADA, Settings())
    small, large = capability("chat", "small"), capability("chat", "large")
    index.learn(signed(BOB, small, CODE, large), NOW, True)
    [(known, found)] = index.able("chat")
    assert known.signed.issuer == BOB
    assert found == (small, large)
    index.forget(BOB)
    assert index.skills() == []


# --- Age ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("issued_at", "first_hand", "expires_at"),
    [
        (NOW, False, NOW + 60),
        (NOW - 20, False, NOW + 40),  # A rumour ages from when it was issued,
        (NOW + 100, False, NOW + 60),  # but a clock that is ahead makes nobody believed for longer,
        (NOW - 1000, False, NOW),
        (NOW - 100, True, NOW + 60),  # and whoever speaks for itself is there, whatever its clock says.
    ],
)
def test_an_advert_is_believed_for_its_lifetime(issued_at: float, first_hand: bool, expires_at: float) -> None:
    index = CapabilityIndex(ADA, Settings())
    index.learn(signed(BOB, CHAT, issued_at=issued_at), NOW, first_hand)
    assert index.get(BOB).expires_at == pytest.approx(expires_at)


def test_what_has_expired_is_swept_and_told() -> None:
    index = index_of(BOB, CYD)
    index.learn(signed(DAN, CHAT, issued_at=NOW + 30), NOW + 30, True)
    assert index.sweep(NOW + 59.9) == []
    assert index.sweep(NOW + 60) == [BOB, CYD]
    assert able(index, "chat") == [DAN]


def test_what_this_node_says_of_itself_does_not_expire() -> None:
    """A laptop wakes up: its own models are there, although its advert could not be renewed in time."""
    index = index_of(ADA, BOB)
    assert index.sweep(NOW + 3600) == [BOB]
    assert able(index, "chat") == [ADA]


# --- Tombstones ---------------------------------------------------------------------------------------------------------


def test_what_is_forgotten_comes_back_only_newer() -> None:
    index = index_of(BOB)
    index.forget(BOB)
    assert index.get(BOB) is None
    assert not index.is_news(signed(BOB, CHAT))
    assert index.is_news(signed(BOB, CHAT, issued_at=NOW + 1))


def test_a_newer_version_clears_the_tombstone() -> None:
    index = index_of(BOB)
    index.forget(BOB)
    index.learn(signed(BOB, CHAT, issued_at=NOW + 1), NOW + 1, True)
    index.forget(BOB)
    assert not index.is_news(signed(BOB, issued_at=NOW + 1)), "the tombstone is of the newest version"


def test_a_node_that_speaks_again_is_believed_again() -> None:
    index = index_of(BOB)
    index.forget(BOB)
    index.revive(BOB)
    assert index.is_news(signed(BOB, CHAT))


def test_forgetting_the_unknown_leaves_no_tombstone() -> None:
    index = index_of(BOB)
    index.forget(CYD)
    index.revive(CYD)
    assert index.is_news(signed(CYD, issued_at=0.0))


def test_forgetting_twice_keeps_the_tombstone() -> None:
    index = index_of(BOB)
    index.forget(BOB)
    index.forget(BOB)
    assert not index.is_news(signed(BOB))


def test_tombstones_are_bounded_and_the_oldest_falls_out() -> None:
    index = CapabilityIndex(ADA, Settings())
    nodes = [node_id(100 + number) for number in range(FORGOTTEN_MAX + 1)]
    for node in nodes:
        index.learn(signed(node, CHAT), NOW, True)
        index.forget(node)
    assert index.is_news(signed(nodes[0]))
    assert not index.is_news(signed(nodes[1]))


# --- Bounds and order -----------------------------------------------------------------------------------------------------


def test_adverts_are_bounded_and_the_one_learned_first_goes() -> None:
    index = index_of(BOB, CYD, DAN, settings=Settings(adverts_max=2, gossip_adverts=1))
    assert [known.signed.issuer for known in index] == [CYD, DAN]
    assert able(index, "chat") == [CYD, DAN]


def test_a_renewed_advert_counts_as_learned_last() -> None:
    index = index_of(BOB, CYD, settings=Settings(adverts_max=2, gossip_adverts=1))
    index.learn(signed(BOB, CHAT, issued_at=NOW + 1), NOW + 1, True)
    index.learn(signed(DAN, CHAT), NOW + 1, True)
    assert able(index, "chat") == [BOB, DAN]


def test_what_this_node_says_of_itself_is_never_evicted() -> None:
    """In a large swarm more adverts come in than are remembered; this node must still find its own models."""
    index = index_of(ADA, BOB, CYD, DAN, settings=Settings(adverts_max=2, gossip_adverts=1))
    assert able(index, "chat") == [ADA, DAN]


def test_what_was_evicted_may_come_back() -> None:
    index = index_of(BOB, CYD, settings=Settings(adverts_max=1, gossip_adverts=1))
    assert index.is_news(signed(BOB, CHAT))


@pytest.mark.parametrize(
    ("skill", "count", "expected"),
    [("", 2, [CYD, DAN]), ("", 9, [BOB, CYD, DAN]), ("code", 9, [DAN]), ("", 0, []), ("no", 3, [])],
)
def test_the_freshest_are_those_learned_last(skill: str, count: int, expected: list[NodeId]) -> None:
    index = index_of(BOB, CYD)
    index.learn(signed(DAN, CODE), NOW, True)
    assert [found.issuer for found in index.freshest(skill, count)] == expected
