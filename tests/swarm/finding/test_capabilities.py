"""The index of adverts: versions, age, tombstones, bounds, and the order of every walk."""

import pytest

from protocol.identity import NodeId
from protocol.messages import Advert, Pulse, Signed
from swarm.finding.capabilities import EARLY_MAX, FORGOTTEN_MAX, SOUGHT_MAX, CapabilityIndex
from swarm.finding.places import PER_PLACE_MAX
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
    index = index_of(BOB, CYD, DAN, settings=Settings(adverts_max=2))
    assert [known.signed.issuer for known in index] == [CYD, DAN]
    assert able(index, "chat") == [CYD, DAN]


def test_a_renewed_advert_counts_as_learned_last() -> None:
    index = index_of(BOB, CYD, settings=Settings(adverts_max=2))
    index.learn(signed(BOB, CHAT, issued_at=NOW + 1), NOW + 1, True)
    index.learn(signed(DAN, CHAT), NOW + 1, True)
    assert able(index, "chat") == [BOB, DAN]


def test_what_this_node_says_of_itself_is_never_evicted() -> None:
    """In a large swarm more adverts come in than are remembered; this node must still find its own models."""
    index = index_of(ADA, BOB, CYD, DAN, settings=Settings(adverts_max=2))
    assert able(index, "chat") == [ADA, DAN]


def test_what_was_evicted_may_come_back() -> None:
    index = index_of(BOB, CYD, settings=Settings(adverts_max=1))
    assert index.is_news(signed(BOB, CHAT))


@pytest.mark.parametrize(
    ("skill", "count", "expected"),
    [("", 2, [CYD, DAN]), ("", 9, [BOB, CYD, DAN]), ("code", 9, [DAN]), ("", 0, []), ("no", 3, [])],
)
def test_the_freshest_are_those_learned_last(skill: str, count: int, expected: list[NodeId]) -> None:
    index = index_of(BOB, CYD)
    index.learn(signed(DAN, CODE), NOW, True)
    assert [found.node for found in index.freshest(skill, count)] == expected


def test_a_rare_skill_and_a_rare_place_stay_when_there_is_no_room() -> None:
    index = CapabilityIndex(ADA, Settings(adverts_max=32))
    index.seek("code")
    index.learn(signed(BOB, CODE), NOW, False)
    index.learn(signed(CYD, CHAT, addresses=("/ip4/10.0.9.1/tcp/1",)), NOW, False)
    for number in range(100):
        index.learn(signed(node_id(100 + number), CHAT, addresses=(f"/ip4/10.0.0.{number}/tcp/1",)), NOW + 1, False)
        assert len(index) <= 32
    assert index.get(BOB) is not None
    assert index.get(CYD) is not None


def test_skills_that_are_made_up_displace_nobody() -> None:
    """Each of them is rare; what counts is what is asked for here, and who brings so many."""
    index = CapabilityIndex(ADA, Settings(adverts_max=32))
    for number in range(24):
        index.learn(signed(node_id(number), CHAT), NOW, False, node_id(number % 8))
    for number in range(300):
        index.learn(signed(node_id(100 + number), capability(f"x-{number}")), NOW + 1, False, node_id(99))
    assert len(able(index, "chat")) == 24, "nobody has brought more than the one who makes up"
    for number in range(300):
        index.learn(signed(node_id(400 + number), capability(f"y-{number}")), NOW + 1, False, node_id(number % 8))
    assert len(able(index, "chat")) < 24, "whom all have told of is as good as any"
    index.seek("chat")
    left = able(index, "chat")
    for number in range(300):
        index.learn(signed(node_id(800 + number), capability(f"z-{number}")), NOW + 1, False, node_id(number % 8))
    assert able(index, "chat") == left


def test_what_is_sought_is_remembered_within_bounds() -> None:
    index = index_of()
    for number in range(SOUGHT_MAX + 1):
        index.seek(f"x-{number}")
    assert len(index._sought) == SOUGHT_MAX


def test_those_worth_keeping_stay_when_there_is_no_room() -> None:
    index = CapabilityIndex(ADA, Settings(adverts_max=8), lambda node: node == BOB)
    index.learn(signed(BOB, CHAT), NOW, False)
    for number in range(50):
        index.learn(signed(node_id(100 + number), CODE if number % 5 else CHAT), NOW + 1, False)
    assert index.get(BOB) is not None


def test_one_public_place_fills_only_a_part_of_the_view() -> None:
    index = CapabilityIndex(ADA, Settings(), lambda node: node == BOB)

    def at_one_place(node: NodeId) -> Signed[Advert]:
        return signed(node, CHAT, addresses=("/ip4/8.8.8.8/tcp/1",))

    for number in range(PER_PLACE_MAX):
        advert = at_one_place(node_id(100 + number))
        assert index.is_news(advert)
        index.learn(advert, NOW, False)
    assert not index.is_news(at_one_place(node_id(99)))
    assert index.is_news(at_one_place(BOB)), "a neighbour, or one that has proved itself, is known by more than its place"
    assert index.is_news(signed(node_id(100), CHAT, issued_at=NOW + 1, addresses=("/ip4/8.8.8.8/tcp/1",)))
    index.forget(node_id(100))
    assert index.is_news(at_one_place(node_id(99)))


def test_pulses_that_come_before_their_adverts_are_bounded() -> None:
    index = CapabilityIndex(ADA, Settings())
    for number in range(EARLY_MAX + 1):
        told = Signed(node_id(100 + number), round(NOW * 1000) + 1, 60_000, Pulse(1, 1, 0, False, False), b"")
        assert index.is_newer(told)
        assert not index.beat(told, NOW, False)
        assert not index.is_newer(told)
    for number, busy in ((0, 0), (1, 1)):
        index.learn(signed(node_id(100 + number), CHAT), NOW, False)
        assert index.get(node_id(100 + number)).advert.busy == busy, "the oldest has fallen out"


def test_who_was_said_to_go_is_told_from_who_was_not_heard_of_any_more() -> None:
    index = index_of(BOB, CYD, DAN)
    index.forget(BOB)
    assert index.is_gone(BOB, NOW - 1)
    assert not index.is_gone(BOB, NOW), "that was long ago"
    assert not index.is_gone(CYD, NOW - 1)
    assert set(index.sweep(NOW + 1_000)) == {CYD, DAN}
    assert not index.is_gone(CYD, NOW - 1)
    index.forget(CYD)
    assert index.is_gone(CYD, NOW - 1), "said later"
    index.learn(signed(DAN, CHAT, issued_at=NOW + 2_000), NOW + 2_000, True)
    index.forget(DAN)
    assert index.is_gone(DAN, NOW), "it was there again in between"


def test_what_is_kept_of_the_silent_is_bounded_with_their_tombstones() -> None:
    index = index_of(settings=Settings(adverts_max=2 * FORGOTTEN_MAX))
    for number in range(FORGOTTEN_MAX + 100):
        index.learn(signed(node_id(100 + number), CHAT), NOW, True)
    index.sweep(NOW + 1_000)
    assert len(index._silent) == len(index._forgotten) == FORGOTTEN_MAX
