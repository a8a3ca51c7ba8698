"""Which worker gets an attempt: who may be asked at all, and the draw."""

from collections import Counter
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from protocol import errors
from protocol.identity import NodeId
from protocol.parts import Capability, Demands, Turn
from protocol.prefixes import prefix_of
from swarm.choosing.routing import BYTES_PER_TOKEN_MAX, Needs, Router, Unfit, eligible
from swarm.choosing.scoring import STRANGER_COST
from swarm.choosing.standing import Standings
from swarm.finding.capabilities import CapabilityIndex
from swarm.finding.roster import Roster
from swarm.settings import Settings
from swarm.values import Excluded, Privacy, Routing, Task, Usage
from tests.swarm.samples import ADA, BOB, CYD, DAN, NOW, capability, node_id, signed, task

CHAT = capability("chat", "smollm2")


class Knowledge:
    """What ada knows, and her router over it."""

    def __init__(self, dice: Random, **settings: float) -> None:
        self.settings = Settings(**settings)
        self.index = CapabilityIndex(ADA, self.settings)
        self.roster = Roster(self.settings)
        self.standings = Standings(self.settings)
        self.router = Router(ADA, self.settings, dice, self.index, self.roster, self.standings)

    def knows(self, node: NodeId, *capabilities: Capability, **changes: Any) -> None:
        self.index.learn(signed(node, *(capabilities or (CHAT,)), **changes), NOW, True)

    def route(self, asked: Task | None = None, tried: tuple[NodeId, ...] = ()) -> Routing:
        return self.router.route(asked or task(), tried, NOW)


def reason(
    asked: Task, *offered: Capability, node: NodeId = BOB, tried: tuple[NodeId, ...] = (), **changes: Any
) -> str:
    """Why a worker may not be asked, or the model that would serve."""
    knowledge = Knowledge(Random(1))
    knowledge.knows(node, *(offered or (CHAT,)), **changes)
    [(known, found)] = knowledge.index.able("chat")
    verdict = eligible(asked, Needs.of(asked), node, known, found, ADA, tried)
    return verdict.reason if isinstance(verdict, Unfit) else verdict.model


# --- Eligibility --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "details", "expected"),
    [
        (task(), {}, "smollm2"),
        (task(), {"tried": (CYD, BOB)}, "already tried"),
        (task(worker=CYD), {}, "another worker was asked for"),
        (task(worker=BOB), {}, "smollm2"),
        (task(privacy=Privacy.LOCAL), {}, "the task may not leave this node"),
        (task(privacy=Privacy.LOCAL), {"node": ADA}, "smollm2"),
        (task(), {"draining": True}, "takes no more work"),
        (task(), {"draining": True, "node": ADA}, "smollm2"),
        (task(demands=Demands(schema="{}", logprobs=1)), {}, "cannot do logprobs, schema"),
        (task(model="smollm2"), {}, "smollm2"),
        (task(model="qwen"), {}, "offers smollm2, not qwen"),
    ],
)
def test_who_may_be_asked(asked: Task, details: dict[str, Any], expected: str) -> None:
    assert reason(asked, **details) == expected


@pytest.mark.parametrize(("size", "fits"), [(100 * BYTES_PER_TOKEN_MAX, True), (101 * BYTES_PER_TOKEN_MAX, False)])
def test_a_context_must_hold_the_input(size: int, fits: bool) -> None:
    asked = task(turns=(Turn("user", "x" * (size - 4)), Turn("user", "more")))
    verdict = reason(asked, capability(context_tokens=100))
    assert verdict == ("smollm2" if fits else "context of 100 tokens is too short")


def test_a_slower_model_serves_where_only_it_can() -> None:
    able, fast = capability(model="able", features=("options",)), capability(model="fast", tokens_per_second=99.0)
    assert reason(task(demands=Demands(options=("a", "b"))), able, fast) == "able"
    assert reason(task(), able, fast) == "fast"


def test_the_fastest_of_several_fitting_models_serves() -> None:
    slow, fast = capability(model="slow", tokens_per_second=5.0), capability(model="fast", tokens_per_second=50.0)
    short = capability(model="short", tokens_per_second=500.0, context_tokens=1)
    assert reason(task(), slow, fast, short) == "fast"
    assert reason(task(model="slow"), slow, fast, short) == "slow"


def test_everybody_left_out_is_named_with_the_reason() -> None:
    knowledge = Knowledge(Random(1))
    knowledge.knows(BOB)
    knowledge.knows(CYD, draining=True)
    knowledge.knows(DAN, capability("embed"))
    routing = knowledge.route(tried=(BOB,))
    assert routing == Routing(
        (), (), None, (Excluded(BOB, "bob", "already tried"), Excluded(CYD, "bob", "takes no more work", passes=True))
    )


# --- The draw -----------------------------------------------------------------------------------------------------------


def speeds(dice: Random, *tokens_per_second: float, **settings: float) -> Knowledge:
    """Workers 100, 101, … with these speeds."""
    knowledge = Knowledge(dice, **settings)
    for number, speed in enumerate(tokens_per_second):
        knowledge.knows(node_id(100 + number), capability(tokens_per_second=speed))
    return knowledge


def test_candidates_come_best_first_and_ties_go_to_the_smaller_id() -> None:
    knowledge = Knowledge(Random(1))
    for node in (DAN, CYD, BOB):
        knowledge.knows(node)
    knowledge.knows(node_id(9), capability(tokens_per_second=90.0))
    assert [found.node for found in knowledge.route().candidates] == [node_id(9), BOB, CYD, DAN]


def test_the_better_of_those_drawn_is_taken() -> None:
    knowledge = speeds(Random(1), 10, 20, 30, 40, 50)
    for _ in range(50):
        routing = knowledge.route()
        ranks = [candidate.node for candidate in routing.candidates]
        assert len(routing.drawn) == 2
        assert routing.chosen == routing.drawn[0] == min(routing.drawn, key=ranks.index)


def test_two_drawn_spread_the_tasks_and_still_do_better_than_one() -> None:
    """Ten workers; always the best would herd, one drawn ignores all that is known, two drawn do neither.

    All alike, that is: the cheaper are not likelier.
    """
    costs = {}
    for draws in (0, 1, 2):
        knowledge = speeds(Random(7), *range(10, 110, 10), choosing_draws=draws, choosing_focus=0)
        routings = [knowledge.route() for _ in range(1_000)]
        cost = {found.node: found.cost_s for found in routings[0].candidates}
        chosen = Counter(routing.chosen for routing in routings)
        costs[draws] = sum(cost[node] * count for node, count in chosen.items()) / 1_000
        shares = sorted(count / 1_000 for count in chosen.values())
        match draws:
            case 0:
                assert len(chosen) == 1
            case 1:
                assert shares[0] > 0.06 and shares[-1] < 0.14
            case 2:
                # The best of n is taken whenever it is drawn: two times in n. The worst of them never is.
                assert shares[-1] == pytest.approx(0.2, abs=0.04)
                assert len(chosen) == 9
    assert costs[0] < costs[2] < 0.75 * costs[1]


@pytest.mark.parametrize("workers", [1, 2])
def test_few_workers_are_all_drawn(workers: int) -> None:
    routing = speeds(Random(1), *range(10, 10 + workers)).route()
    assert routing.drawn == tuple(found.node for found in routing.candidates)


def test_nobody_able_is_a_routing_without_a_choice() -> None:
    assert Knowledge(Random(1)).route() == Routing((), (), None, ())


def test_only_the_dice_that_are_handed_in_are_thrown() -> None:
    once, again = ([speeds(dice, 10, 20, 30, 40).route().drawn for _ in range(9)] for dice in (Random(5), Random(5)))
    assert once == again


def test_the_draw_does_not_depend_on_the_order_in_which_workers_became_known() -> None:
    forward, backward = Knowledge(Random(3)), Knowledge(Random(3))
    nodes = [node_id(100 + number) for number in range(8)]
    for knowledge, order in ((forward, nodes), (backward, nodes[::-1])):
        for node in order:
            knowledge.knows(node)
    assert [forward.route() for _ in range(9)] == [backward.route() for _ in range(9)]


def test_a_dry_run_chooses_nobody_and_changes_no_later_choice() -> None:
    looking, not_looking = (speeds(Random(1), 10, 20, 30, 40) for _ in range(2))
    for _ in range(9):
        dry = looking.router.consider(task(), (), NOW)
        assert (dry.drawn, dry.chosen) == ((), None)
        assert looking.route() == not_looking.route()
        assert dry.candidates == not_looking.router.consider(task(), (), NOW).candidates


# --- What goes into the cost --------------------------------------------------------------------------------------------


def test_this_node_itself_is_not_far_away() -> None:
    knowledge = Knowledge(Random(1))
    knowledge.knows(ADA)
    knowledge.knows(BOB)
    assert [found.node for found in knowledge.route().candidates] == [ADA, BOB]


def test_the_distance_of_a_neighbour_is_the_one_measured() -> None:
    knowledge = Knowledge(Random(1))
    for node in (BOB, CYD):
        knowledge.knows(node)
    knowledge.roster.add(CYD, "cyd", (), "", NOW)
    knowledge.roster.pong(CYD, 1, NOW + 0.001)
    assert [found.node for found in knowledge.route().candidates] == [CYD, BOB]


def test_what_this_node_has_seen_counts() -> None:
    knowledge = Knowledge(Random(1))
    for node in (BOB, CYD):
        knowledge.knows(node)
    knowledge.standings.answered(BOB, Usage("stop", 1, 11, 0.1, 10.0), 0.1, NOW)
    assert [found.node for found in knowledge.route().candidates] == [CYD, BOB]


def test_the_cheaper_are_likelier() -> None:
    """The likelier by the power of the focus; whoever is very dear is never drawn."""
    shares = {}
    for focus in (0, 4, 16):
        knowledge = speeds(Random(7), 100, 80, 50, 10, 1, choosing_draws=1, choosing_focus=focus)
        chosen = Counter(knowledge.route().chosen for _ in range(2_000))
        shares[focus] = [chosen[node_id(100 + number)] / 2_000 for number in range(5)]
    assert shares[0] == pytest.approx([0.2] * 5, abs=0.04)
    assert shares[4][0] > shares[4][1] > shares[4][2] > shares[4][3] >= shares[4][4] == 0
    assert shares[16][0] > 0.9


def test_the_draws_follow_their_weights() -> None:
    knowledge = speeds(Random(3), 100, 80, choosing_draws=1, choosing_focus=4)
    routings = [knowledge.route() for _ in range(4_000)]
    one, two = routings[0].candidates
    weight = (one.cost_s / two.cost_s) ** 4
    share = sum(routing.chosen == two.node for routing in routings) / 4_000
    assert share == pytest.approx(weight / (1 + weight), abs=0.02)


# --- Strangers, the broken, and who holds the conversation -----------------------------------------------------------------


def experienced(*addresses: str, claims: float = 90.0, **settings: float) -> Knowledge:
    """Bob has answered; of the workers at these addresses nothing was seen. They claim to be nearly as fast."""
    knowledge = Knowledge(Random(5), **settings)
    knowledge.knows(BOB, capability(tokens_per_second=100.0))
    knowledge.standings.begun(BOB, NOW)
    knowledge.standings.answered(BOB, Usage("stop", 1, 101, 0.1, 1.1), 0.2, NOW, 0.1)
    for number, address in enumerate(addresses):
        knowledge.knows(node_id(100 + number), capability(tokens_per_second=claims + number), addresses=(address,))
    return knowledge


def test_strangers_are_tried_now_and_then() -> None:
    knowledge = experienced("/ip4/1.1.1.1/tcp/1", exploration_share=0.25)
    routings = [knowledge.route() for _ in range(1_000)]
    assert sum(routing.explored for routing in routings) == pytest.approx(250, abs=50)
    assert all((routing.chosen == BOB) is not routing.explored for routing in routings)


@pytest.mark.parametrize(("claims", "is_tried"), [(90.0, True), (50.0, False), (0.0, True)])
def test_strangers_that_claim_to_be_slow_are_not_worth_a_try(claims: float, is_tried: bool) -> None:
    """Who claims nothing may be anything."""
    knowledge = experienced("/ip4/1.1.1.1/tcp/1", claims=claims, exploration_share=1.0)
    assert knowledge.route().explored is is_tried


def test_a_task_for_one_worker_explores_nobody() -> None:
    knowledge = experienced("/ip4/1.1.1.1/tcp/1", exploration_share=1.0)
    assert knowledge.route(task(worker=BOB)).chosen == BOB


def test_where_all_are_strangers_every_choice_explores() -> None:
    knowledge = speeds(Random(1), 10, 20, exploration_share=1.0)
    assert not knowledge.route().explored


def test_a_thousand_strangers_in_one_place_are_drawn_as_two() -> None:
    crowd = [f"/ip4/6.6.6.{number}/tcp/1" for number in range(50)]
    knowledge = experienced(*crowd, "/ip4/9.9.9.9/tcp/1", exploration_share=1.0)
    alone = node_id(150)
    for _ in range(50):
        drawn = knowledge.route().drawn
        assert sum(node != alone for node in drawn) <= 2
        assert alone in drawn
        assert len(drawn) <= 3


def test_this_nodes_own_model_is_asked_rather_than_nobody() -> None:
    knowledge = Knowledge(Random(1))
    knowledge.knows(ADA)
    for _ in range(3):
        knowledge.standings.begun(ADA, NOW)
        knowledge.standings.ended(ADA, errors.BACKEND_FAILED, True, NOW)
    assert knowledge.route().chosen == ADA
    knowledge.knows(BOB)
    routing = knowledge.route()
    assert routing.chosen == BOB
    assert [left.node for left in routing.excluded] == [ADA]


def test_a_broken_worker_is_left_alone_and_tried_again() -> None:
    knowledge = experienced("/ip4/1.1.1.1/tcp/1")
    stranger = node_id(100)
    knowledge.standings.begun(stranger, NOW)
    knowledge.standings.ended(stranger, errors.BACKEND_FAILED, True, NOW)
    [left_out] = knowledge.route().excluded
    assert left_out == Excluded(stranger, "bob", "failed 1 times in a row; tried again in 480 s", passes=True)
    assert knowledge.router.consider(task(worker=stranger), (), NOW).candidates, "whoever insists may try"
    again = knowledge.router.consider(task(), (), NOW + 481)
    assert stranger in [found.node for found in again.candidates]
    knowledge.standings.begun(stranger, NOW + 481)
    [left_out] = knowledge.router.consider(task(), (), NOW + 481).excluded
    assert left_out.reason == "is being tried again after failures"


def test_the_holder_of_a_conversation_is_cheaper_but_not_at_any_price() -> None:
    knowledge = Knowledge(Random(1))
    for node in (BOB, CYD):
        knowledge.knows(node, capability(first_token_ms=3000))
    asked = task()
    knowledge.router.remember(asked, "Because of the air.", CYD, NOW)
    more = task(turns=(*asked.turns, Turn("assistant", "Because of the air."), Turn("user", "And at dusk?")))
    found = knowledge.route(more).candidates[0]
    assert found.node == CYD
    assert ("prefix", "76 % held") in found.parts
    knowledge.knows(CYD, capability(first_token_ms=3000), busy=1, issued_at=NOW + 1)
    assert knowledge.route(more).candidates[0].node == BOB


def test_who_computes_the_same_goes_on_and_others_only_if_nobody_does() -> None:
    begun_by = capability(digest=b"d" * 32, numerics=b"x")
    knowledge = Knowledge(Random(1))
    knowledge.knows(BOB, capability(digest=b"d" * 32, numerics=b"y", tokens_per_second=1000.0))
    knowledge.knows(CYD, begun_by)
    knowledge.knows(DAN)
    asked = task(begun_by=begun_by)
    assert [found.node for found in knowledge.route(asked).candidates] == [CYD]
    assert [found.node for found in knowledge.route(asked, (CYD,)).candidates] == [BOB]
    assert "does not have the model that began this answer" in [each.reason for each in knowledge.route(asked).excluded]


def test_an_answer_goes_on_where_there_is_as_much_room_as_it_was_begun_with() -> None:
    begun_by = capability(digest=b"d" * 32, numerics=b"x", context_tokens=8192)
    knowledge = Knowledge(Random(1))
    knowledge.knows(BOB, replace(begun_by, context_tokens=4096, tokens_per_second=1000.0))
    knowledge.knows(CYD, begun_by)
    asked = task(begun_by=begun_by)
    assert [found.node for found in knowledge.route(asked).candidates] == [CYD]
    assert [found.node for found in knowledge.route(asked, (CYD,)).candidates] == [BOB], "it may be enough"


# --- Strangers who may not exist --------------------------------------------------------------------------------------------


def unreachable(knowledge: Knowledge, *nodes: NodeId) -> None:
    for node in nodes:
        knowledge.standings.begun(node, NOW)
        knowledge.standings.ended(node, errors.UNREACHABLE, True, NOW)


def test_few_strangers_of_one_public_place_are_considered_and_none_once_they_fail() -> None:
    knowledge = Knowledge(Random(1))
    knowledge.standings = Standings(knowledge.settings, lambda node: "/ip4/8.8.8")
    knowledge.router = Router(ADA, knowledge.settings, Random(1), knowledge.index, knowledge.roster, knowledge.standings)
    knowledge.knows(BOB)
    for number in range(5):
        knowledge.knows(node_id(10 + number), addresses=(f"/ip4/8.8.8.{number}/tcp/1",))
    assert [found.node for found in knowledge.route().candidates] == [BOB, node_id(10), node_id(11)]
    assert {left.reason for left in knowledge.route().excluded} == {"others at its place come first"}
    unreachable(knowledge, node_id(10), node_id(11))
    assert [found.node for found in knowledge.route().candidates] == [BOB]
    knowledge.roster.add(node_id(14), "", (), "", NOW)
    assert node_id(14) in [found.node for found in knowledge.route().candidates], "a neighbour is no stranger"


def test_where_strangers_fail_none_looks_better_than_those_that_were_met() -> None:
    knowledge = Knowledge(Random(1), choosing_draws=0)
    slow, wonder = capability(tokens_per_second=10.0), capability(tokens_per_second=1000.0)
    knowledge.knows(BOB, slow)
    knowledge.roster.add(BOB, "bob", (), "", NOW)
    knowledge.knows(CYD, wonder)
    assert knowledge.router.consider(task(), (), NOW).candidates[0].node == CYD
    unreachable(knowledge, node_id(20), node_id(21))
    candidates = knowledge.router.consider(task(), (), NOW).candidates
    assert [found.node for found in candidates] == [BOB, CYD]
    assert candidates[1].cost_s == pytest.approx(STRANGER_COST * candidates[0].cost_s)


def test_where_strangers_fail_and_all_are_strangers_they_look_alike() -> None:
    knowledge = Knowledge(Random(1), choosing_draws=1, exploration_share=0)
    for number in range(10):
        knowledge.knows(node_id(30 + number), capability(tokens_per_second=1000.0 if number else 10.0))
    assert {knowledge.route().chosen for _ in range(100)} == {node_id(30 + number) for number in range(1, 10)}
    unreachable(knowledge, node_id(20), node_id(21))
    assert len({knowledge.route().chosen for _ in range(100)}) == 10, "the one that tells the truth as well"


def test_who_has_read_the_instructions_is_cheaper_for_a_task_that_begins_with_them() -> None:
    instructions = Turn("system", "Answer as a librarian would. " * 40)
    digest, size = prefix_of("smollm2", (instructions,))
    knowledge = Knowledge(Random(1))
    reads = capability(tokens_in_per_second=200.0)
    knowledge.knows(BOB, reads)
    knowledge.knows(CYD, reads, prefixes=(digest,))
    knowledge.knows(DAN, replace(reads, model="other"), prefixes=(digest,))
    asked = task(turns=(instructions, Turn("user", "why?")))
    best, *others = knowledge.route(asked).candidates
    assert best.node == CYD
    assert [("prefix", f"{100 * size / (size + 4):.0f} % held") in found.parts for found in (best, *others)] == [True, False, False]
    costs = {found.cost_s for found in knowledge.route(task()).candidates}
    assert len(costs) == 1, "another task costs the same everywhere"
