"""How a node learns whether others can dial it, what it does for those who ask, and how it comes to its relays."""

from dataclasses import replace
from random import Random

import pytest

from protocol.identity import NodeId
from protocol.messages import Advert, ReachAnswer, ReachAsk, Signed
from swarm.effects import Dial, DialBack, Effect, Send, UseRelays
from swarm.finding.capabilities import CapabilityIndex
from swarm.finding.places import dialable
from swarm.finding.reach import ASK_GAP_S, DIAL_BACKS_MAX, RELAY_WAIT_S, SETTLE_S, UPGRADE_WAITS_S, Reach
from swarm.finding.roster import Roster
from swarm.settings import Settings
from swarm.values import Contact
from tests.swarm.samples import ADA, BOB, CYD, NOW, node_id, signed

OWN = "/ip4/192.168.1.20/tcp/4976/p2p/12D3KooWada"
HOME, WORLD = "/ip4/192.168.1.20", "/ip4/8.8.4.7"
SOON = NOW + 2 * SETTLE_S


class Home:
    """Ada's reach, her links, and what her neighbours advertise."""

    def __init__(self, **settings: float) -> None:
        self.settings = Settings(**settings)
        self.roster = Roster(self.settings)
        self.index = CapabilityIndex(ADA, self.settings)
        self.reach = Reach(self.settings, Random(1), self.roster, self.index)
        self.reach.settle((OWN,))

    def meet(self, node: NodeId, seen: str = "/ip4/198.51.100.9", relays: bool = False, relay: NodeId | None = None) -> None:
        address = f"{seen}/tcp/4976"
        self.roster.add(node, "", (address,), "", NOW, seen=seen, relay=relay)
        told = signed(node, issued_at=NOW)
        self.index.learn(replace(told, body=replace(told.body, addresses=(address,), relays=relays)), NOW, True)

    def due(self, at: float = SOON) -> list[Effect]:
        return self.reach.due([], at)

    def told(self, seen: str, *reached: str, by: int, at: float = SOON) -> None:
        """A neighbour that was asked answers."""
        self.reach.answered(node_id(by), ReachAnswer(seen, reached), at)


def home(neighbours: int = 3, **settings: float) -> Home:
    """Ada with some neighbours, all of which she has asked."""
    ada = Home(**settings)
    for number in range(neighbours):
        ada.meet(node_id(number), relays=True)
    ada.due()
    return ada


def asked(effects: list[Effect]) -> list[NodeId]:
    return [effect.to for effect in effects if isinstance(effect, Send) and isinstance(effect.message, ReachAsk)]


# --- Knowing ----------------------------------------------------------------------------------------------------------


def test_a_few_neighbours_are_asked_once_their_links_have_settled() -> None:
    ada = Home(reach_asks=2)
    for number in range(5):
        ada.meet(node_id(number))
    assert asked(ada.due(NOW + SETTLE_S / 2)) == []
    assert len(asked(ada.due())) == 2
    assert asked(ada.due(SOON + 1)) == []


def test_those_who_do_not_answer_are_made_up_for_by_others() -> None:
    ada = home(2, reach_asks=2)
    ada.meet(node_id(7))
    ada.told(WORLD, by=0)
    assert asked(ada.due(SOON + 1)) == []
    assert asked(ada.due(SOON + 20)) == [node_id(7)]


def test_whoever_answered_is_asked_again_after_a_while() -> None:
    ada = home(1, reach_period_s=60)
    ada.told(HOME, by=0)
    assert asked(ada.due(SOON + 59)) == []
    assert asked(ada.due(SOON + 61)) == [node_id(0)]


def test_a_neighbour_over_a_relay_is_not_asked() -> None:
    ada = Home()
    ada.meet(BOB, relay=CYD)
    assert asked(ada.due()) == []


def test_a_node_that_was_dialled_where_it_is_seen_is_open() -> None:
    ada = home()
    assert ada.reach.verdict == "unknown"
    ada.told(HOME, f"{HOME}/tcp/4976", by=0)
    ada.told(HOME, f"{HOME}/tcp/4976", by=1)
    assert ada.reach.verdict == "open"
    assert ada.reach.addresses[0] == OWN


def test_open_at_home_and_closed_to_the_world_is_closed() -> None:
    ada = home(5, reach_asks=5)
    for neighbour in range(3):
        ada.told(HOME, f"{HOME}/tcp/4976", by=neighbour)
    assert ada.reach.verdict == "open"
    ada.told(WORLD, by=3)
    ada.told(WORLD, by=4)
    assert ada.reach.verdict == "closed"


def test_one_of_several_who_sees_badly_is_not_believed() -> None:
    ada = home()
    ada.told("/ip4/1.2.3.4", by=0)
    ada.told(WORLD, f"{WORLD}/tcp/4976", by=1)
    ada.told(WORLD, f"{WORLD}/tcp/4976", by=2)
    assert ada.reach.verdict == "open"


def test_an_address_that_two_have_proved_is_told_to_others() -> None:
    ada = home()
    for neighbour in range(2):
        ada.told(WORLD, f"{WORLD}/tcp/4976", by=neighbour)
    assert ada.reach.addresses == (OWN, f"{WORLD}/tcp/4976/p2p/12D3KooWada")


def test_nobody_makes_a_node_tell_of_what_it_has_not_offered() -> None:
    """[RCH-2]"""
    ada = home()
    for neighbour in range(3):
        ada.told(WORLD, "/ip4/9.9.9.9/tcp/4976", f"{WORLD}/tcp/22", "garbage", by=neighbour)
    assert ada.reach.addresses == (OWN,)
    ada.reach.answered(node_id(9), ReachAnswer(WORLD, (f"{WORLD}/tcp/4976",)), SOON)  # Was never asked.
    assert ada.reach.verdict == "closed"


@pytest.mark.parametrize(
    "seen",
    ["/ip4/x", "/ip4/8.8.4.7/tcp/1", "/ip4/8.8.4.07", "/ip6/2A00::1", "/ip6/2a00::1%" + "z" * 150, "/dns4/bank", "x" * 192, "é"],
)
def test_a_place_that_is_none_counts_for_nothing(seen: str) -> None:
    """[RCH-2] Whatever this node told others of it, no message could hold, or nobody dial."""
    ada = home(2)
    for neighbour in range(2):
        ada.told(seen, f"{seen}/tcp/4976", by=neighbour)
    assert (ada.reach.verdict, ada.reach.addresses) == ("unknown", (OWN,))


@pytest.mark.parametrize("seen", ["/ip4/127.0.0.1", "/ip4/10.0.0.1", "/ip4/169.254.169.254", "/ip4/0.0.0.0", "/ip4/224.0.0.1"])
def test_a_private_network_that_neighbours_make_up_is_not_told_to_others(seen: str) -> None:
    """[RCH-2] Nor does it let strangers send this node there."""
    ada = home(2)
    for neighbour in range(2):
        ada.told(seen, f"{seen}/tcp/4976", by=neighbour)
    assert ada.reach.addresses == (OWN,)


def test_a_relay_does_not_decide_which_networks_a_node_is_in() -> None:
    assert dialable(("/ip4/127.0.0.1/tcp/22",), (OWN, f"/ip4/127.0.0.1/tcp/1/p2p/R/p2p-circuit{OWN}")) == ()


def test_what_no_message_can_hold_is_not_told_to_others() -> None:
    """A relay may say anything, in characters of two bytes as well."""
    ada = closed()
    ada.due(SOON + 1)
    ada.reach.relay_changed(node_id(0), (f"/dns4/{'ü' * 30}/tcp/1/p2p/{'R' * 52}/p2p-circuit/p2p/{'A' * 52}", circuit(0)), SOON)
    ada.reach.relay_changed(node_id(1), ("\ud800",), SOON)
    assert ada.reach.addresses == (OWN, circuit(0))


def test_an_empty_answer_tells_nothing_and_is_asked_for_again_a_little_later() -> None:
    ada = home(1)
    ada.told("", by=0)
    assert ada.reach.verdict == "unknown"
    assert asked(ada.due(SOON + ASK_GAP_S - 1)) == []
    assert asked(ada.due(SOON + ASK_GAP_S)) == [node_id(0)]


def test_in_another_network_everything_is_asked_anew() -> None:
    ada = home()
    ada.told(WORLD, by=0)
    ada.reach.settle(("/ip4/10.0.0.5/tcp/4976/p2p/12D3KooWada",))
    assert ada.reach.verdict == "unknown"
    assert len(asked(ada.due(SOON + 1))) == 3


def test_what_was_dialled_before_the_router_let_others_in_does_not_count() -> None:
    ada = home(1)
    ada.reach.settle((OWN,))
    assert asked(ada.due(SOON + 1)) == [node_id(0)]
    ada.told("", by=0, at=SOON + 1)  # It is still dialling, for the first question,
    ada.told(WORLD, by=0, at=SOON + 5)  # and answers that now.
    assert ada.reach.verdict == "unknown"
    assert asked(ada.due(SOON + 1 + ASK_GAP_S)) == [node_id(0)]
    ada.told(WORLD, f"{WORLD}/tcp/4976", by=0, at=SOON + 30)
    assert ada.reach.verdict == "open"


# --- For others -------------------------------------------------------------------------------------------------------


def test_a_neighbour_is_dialled_only_where_its_link_comes_from() -> None:
    """[RCH-1] The hosts in what it asks count for nothing."""
    ada = Home()
    ada.meet(BOB, seen=WORLD)
    victim = ("/ip4/9.9.9.9/tcp/22/p2p/12D3KooWbob", "/ip4/10.0.0.1/tcp/80", "/ip6/::1/tcp/1", "/dns/bank/tcp/443")
    effects = ada.reach.asked(BOB, ReachAsk(victim), NOW)
    assert effects == [DialBack(BOB, (f"{WORLD}/tcp/22", f"{WORLD}/tcp/80"))]
    answer = ada.reach.dialled_back(BOB, (f"{WORLD}/tcp/80",))
    assert answer == [Send(BOB, ReachAnswer(WORLD, (f"{WORLD}/tcp/80",)))]


@pytest.mark.parametrize(
    "port", ["０" * 58 + "4976", "４９７６", "04976", "0", "65536", "4_976", " 4976", "+4976", "4976/ws", "4976/", "", "²"]
)
def test_a_port_is_read_in_its_one_spelling(port: str) -> None:
    """[RCH-1] The answer repeats it, and has room for 192 bytes."""
    ada = Home()
    ada.meet(BOB, seen=WORLD)
    assert ada.reach.asked(BOB, ReachAsk((f"/ip4/1/tcp/{port}",)), NOW) == [Send(BOB, ReachAnswer("", ()))]


@pytest.mark.parametrize("addresses", [(), ("/ip6/2001:db8::1/tcp/4976",), (f"{WORLD}/tcp/1/p2p/R/p2p-circuit/p2p/B",)])
def test_what_cannot_be_dialled_is_answered_at_once(addresses: tuple[str, ...]) -> None:
    """[RCH-1]"""
    ada = Home()
    ada.meet(BOB, seen=WORLD)
    assert ada.reach.asked(BOB, ReachAsk(addresses), NOW) == [Send(BOB, ReachAnswer("", ()))]


def test_a_neighbour_over_a_relay_is_not_dialled_back() -> None:
    ada = Home()
    ada.meet(BOB, seen="", relay=CYD)
    assert ada.reach.asked(BOB, ReachAsk((OWN,)), NOW) == [Send(BOB, ReachAnswer("", ()))]


def test_dials_for_others_are_few() -> None:
    ada = Home()
    for number in range(DIAL_BACKS_MAX + 1):
        ada.meet(node_id(number), seen=WORLD)
    done = [ada.reach.asked(node_id(number), ReachAsk((OWN,)), NOW) for number in range(DIAL_BACKS_MAX + 1)]
    assert [isinstance(effect, DialBack) for [effect] in done] == [True] * DIAL_BACKS_MAX + [False]


def test_one_neighbour_is_dialled_now_and_then_only() -> None:
    ada = Home()
    ada.meet(BOB, seen=WORLD)
    ada.reach.asked(BOB, ReachAsk((OWN,)), NOW)
    ada.reach.dialled_back(BOB, ())
    assert ada.reach.asked(BOB, ReachAsk((OWN,)), NOW + ASK_GAP_S / 2) == [Send(BOB, ReachAnswer("", ()))]
    assert isinstance(ada.reach.asked(BOB, ReachAsk((OWN,)), NOW + ASK_GAP_S)[0], DialBack)


def test_an_answer_for_somebody_who_has_gone_goes_nowhere() -> None:
    assert Home().reach.dialled_back(BOB, ()) == []


# --- Relays -----------------------------------------------------------------------------------------------------------


def closed(**settings: float) -> Home:
    ada = home(4, **settings)
    for neighbour in range(3):
        ada.told(WORLD, by=neighbour)
    return ada


def circuit(number: int) -> str:
    return f"/ip4/198.51.100.9/tcp/4976/p2p/R{number}/p2p-circuit/p2p/12D3KooWada"


def test_only_a_closed_node_uses_relays() -> None:
    assert UseRelays not in map(type, home().due(SOON + 1))
    assert closed().due(SOON + 1) == [UseRelays((node_id(0), node_id(1)))]


def test_who_does_not_relay_is_not_asked_to() -> None:
    ada = Home()
    ada.meet(BOB)
    ada.due()
    ada.reach.answered(BOB, ReachAnswer(WORLD, ()), SOON)
    assert ada.reach.verdict == "closed"
    assert ada.due(SOON + 1) == []


def test_the_addresses_of_relays_are_told_to_others() -> None:
    ada = closed()
    ada.due(SOON + 1)
    assert ada.reach.relay_changed(node_id(0), (circuit(0),), SOON) == []
    assert ada.reach.addresses == (OWN, circuit(0))
    assert ada.reach.relay_changed(node_id(9), (circuit(9),), SOON) == []  # Was not asked to.
    assert circuit(9) not in ada.reach.addresses


def test_another_relay_takes_the_place_of_one_that_is_lost_or_full() -> None:
    ada = closed()
    ada.due(SOON + 1)
    ada.reach.relay_changed(node_id(0), (circuit(0),), SOON)
    assert ada.reach.relay_changed(node_id(1), (), SOON + 1) == [UseRelays((node_id(0),))]
    assert ada.due(SOON + 2) == [UseRelays((node_id(0), node_id(2)))]
    ada.roster.remove(node_id(0))
    assert ada.reach.unlinked(node_id(0), SOON + 3) == [UseRelays((node_id(2),))]
    assert ada.reach.addresses == (OWN,)
    assert ada.due(SOON + 4)[-1] == UseRelays((node_id(2), node_id(3)))
    ada.reach.relay_changed(node_id(3), (), SOON + 5)
    assert ada.due(SOON + 6) == []  # The others have failed a moment ago.
    assert ada.due(SOON + 2 + RELAY_WAIT_S) == [UseRelays((node_id(2), node_id(1)))]


def test_a_relay_that_was_only_heard_of_is_dialled() -> None:
    ada = closed()
    for number in range(4):
        ada.reach.relay_changed(node_id(number), (), SOON)
    ada.due(SOON + 1)
    for number in range(2):
        ada.reach.relay_changed(node_id(number), (), SOON + 1)
    ada.index.learn(_relay(node_id(8)), SOON, True)
    assert ada.due(SOON + 2) == [UseRelays((node_id(2), node_id(3)))]
    ada.reach.relay_changed(node_id(2), (), SOON + 2)
    assert ada.due(SOON + 3) == [Dial(Contact(node_id(8), ("/ip4/8.8.4.4/tcp/4976",)))]
    assert ada.due(SOON + 4) == []
    ada.meet(node_id(8), "/ip4/8.8.4.4", relays=True)
    assert UseRelays((node_id(3), node_id(8))) in ada.due(SOON + 5)


def _relay(node: NodeId) -> Signed[Advert]:
    told = signed(node, issued_at=SOON)
    return replace(told, body=replace(told.body, addresses=("/ip4/8.8.4.4/tcp/4976",), relays=True))


def test_a_node_that_has_become_open_lets_its_relays_go() -> None:
    ada = closed()
    ada.due(SOON + 1)
    ada.reach.relay_changed(node_id(0), (circuit(0),), SOON)
    for neighbour in range(3):
        ada.told(WORLD, f"{WORLD}/tcp/4976", by=neighbour)
    assert ada.due(SOON + 2) == [UseRelays(())]
    assert circuit(0) not in ada.reach.addresses


def test_a_node_that_uses_no_relays_asks_for_none() -> None:
    assert closed(relays_used=0).due(SOON + 1) == []


def test_a_relay_that_nobody_can_dial_does_not_offer_itself() -> None:
    """[RCH-3]"""
    assert home(carried_max=4).reach.relaying
    assert not closed(carried_max=4).reach.relaying
    assert not home().reach.relaying


# --- Direct ways ------------------------------------------------------------------------------------------------------


def upgrades(effects: list[Effect]) -> list[Contact]:
    return [effect.contact for effect in effects if isinstance(effect, Dial) and effect.upgrade]


def test_a_direct_way_to_whom_a_relay_leads_is_tried_ever_more_rarely() -> None:
    ada = Home()
    ada.meet(BOB, seen="/ip4/8.8.8.8", relay=CYD)
    at = NOW
    for wait_s in (*UPGRADE_WAITS_S, UPGRADE_WAITS_S[-1]):
        assert upgrades(ada.due(at + wait_s - 0.5)) == []
        at += wait_s
        assert upgrades(ada.due(at)) == [Contact(BOB, ("/ip4/8.8.8.8/tcp/4976",))]


def test_no_link_is_replaced_while_somebody_is_at_work_over_it() -> None:
    """[RCH-5]"""
    ada = Home()
    ada.meet(BOB, seen="/ip4/8.8.8.8", relay=CYD)
    assert upgrades(ada.reach.due([BOB], NOW + 5)) == []
    assert upgrades(ada.reach.due([], NOW + 6)) != []


def test_nobody_is_dialled_into_a_network_that_this_node_is_not_in() -> None:
    ada = Home()
    ada.meet(BOB, seen="/ip4/10.1.2.3", relay=CYD)
    assert upgrades(ada.due(NOW + 5)) == []


def test_a_direct_link_is_left_as_it_is() -> None:
    ada = Home()
    ada.meet(BOB, seen="/ip4/8.8.8.8")
    assert upgrades(ada.due(NOW + 5)) == []
