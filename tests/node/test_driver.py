"""Whole nodes over memory, under a clock that jumps: what the driver, the models and the desk do together."""

from pathlib import Path

import pytest
import trio
import trio.testing

from node import daemon, meeting
from node.backends import BackendError, Generated, GenerationRequest
from node.desk import AskText
from node.meeting import JoinError
from protocol.identity import node_text
from swarm.effects import SweepDue
from swarm.events import TimerFired
from tests.node.memory_swarm import ScriptedBackend, answer, memory_swarm, task

# Time jumps to the next timer whenever nothing else is left to do.
Jumping = trio.testing.MockClock


async def test_node_alone_answers_from_its_own_model(tmp_path: Path, autojump_clock: Jumping) -> None:
    async with memory_swarm(tmp_path) as swarm:
        node = await swarm.start("ada", ScriptedBackend("small"))
        text, end = await answer(node, task())
        assert (text, end.code, end.name, end.model) == ("hello world", "", "ada", "small")
        assert (end.tokens_in, end.tokens_out, end.finish) == (3, 2, "stop")


async def test_node_without_models_is_answered_by_a_peer(tmp_path: Path, autojump_clock: Jumping) -> None:
    async with memory_swarm(tmp_path) as swarm:
        await swarm.start("bob", ScriptedBackend("small"))
        ada = await swarm.start("ada", knows=("bob",))
        text, end = await answer(ada, task())
        assert (text, end.name, len(end.routes)) == ("hello world", "bob", 1)
        assert [candidate.chosen for candidate in end.routes[0].candidates] == [True]


async def test_task_asked_before_any_worker_is_known_waits_for_one(tmp_path: Path, autojump_clock: Jumping) -> None:
    async with memory_swarm(tmp_path) as swarm:
        ada = await swarm.start("ada")
        answers = []

        async def ask() -> None:
            answers.append(await answer(ada, task()))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            await swarm.start("bob", ScriptedBackend("small"), knows=("ada",))
        assert answers[0][1].name == "bob"


async def test_nobody_able_is_said_with_the_skill(tmp_path: Path, autojump_clock: Jumping) -> None:
    async with memory_swarm(tmp_path) as swarm:
        ada = await swarm.start("ada", ScriptedBackend("small"))
        _, end = await answer(ada, task(skill="vision"))
        assert end.code == "no_capable_peer"
        assert "vision" in end.reason


async def test_worker_killed_before_its_first_text_is_replaced(tmp_path: Path, autojump_clock: Jumping) -> None:
    async with memory_swarm(tmp_path) as swarm:
        first, second = ScriptedBackend("small"), ScriptedBackend("small")
        ada = await swarm.start("ada")
        await swarm.start("bob", first, knows=("ada",))
        await swarm.start("cyd", second, knows=("ada",))
        await trio.sleep(3)
        first.hold = second.hold = trio.Event()
        answers = []

        async def ask() -> None:
            answers.append(await answer(ada, task()))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            victim = "bob" if first.begun.is_set() else "cyd"
            swarm.kill(victim)
            await trio.testing.wait_all_tasks_blocked()
            first.hold.set()
        text, end = answers[0]
        assert text == "hello world"
        assert end.name != victim
        assert [attempt.code for attempt in end.attempts] == ["connection_lost", ""]


async def test_worker_killed_in_mid_answer_is_a_clear_end(tmp_path: Path, autojump_clock: Jumping) -> None:
    async with memory_swarm(tmp_path) as swarm:
        backend = ScriptedBackend("small")
        backend.hold_after_first = trio.Event()
        ada = await swarm.start("ada")
        await swarm.start("bob", backend, knows=("ada",))
        async with ada.desk.ask(task()) as items:
            while not isinstance(await items.receive(), AskText):
                pass
            swarm.kill("bob")
            end = [item async for item in items][-1]
        assert end.answer.code == "stream_broken"
        assert "bob" in end.answer.reason


async def test_user_who_leaves_stops_the_worker(tmp_path: Path, autojump_clock: Jumping) -> None:
    async with memory_swarm(tmp_path) as swarm:
        backend = ScriptedBackend("small")
        backend.hold = trio.Event()
        ada = await swarm.start("ada")
        await swarm.start("bob", backend, knows=("ada",))
        await trio.sleep(3)
        async with ada.desk.ask(task()):
            await backend.begun.wait()
        await backend.cancelled.wait()
        assert len(ada.member.asking) == 0


async def test_user_who_leaves_in_the_same_breath_stops_the_work(tmp_path: Path, autojump_clock: Jumping) -> None:
    async with memory_swarm(tmp_path) as swarm:
        backend = ScriptedBackend("small")
        backend.hold = trio.Event()
        ada = await swarm.start("ada", backend)
        await ada.models.sources[0].settled.wait()
        async with ada.desk.ask(task()):
            assert ada.member.serving.load()[1] == 1
        await trio.testing.wait_all_tasks_blocked()
        assert ada.member.serving.load()[1] == 0


async def test_worker_that_accepts_and_stays_silent_is_left(tmp_path: Path, autojump_clock: Jumping) -> None:
    async with memory_swarm(tmp_path) as swarm:
        backend = ScriptedBackend("small")
        backend.hold = trio.Event()
        ada = await swarm.start("ada")
        await swarm.start("bob", backend, knows=("ada",))
        _, end = await answer(ada, task(deadline_s=100))
        assert end.code == "exhausted"
        assert [attempt.code for attempt in end.attempts] == ["stalled"]
        await backend.cancelled.wait()


async def test_deadline_ends_the_task_on_both_sides(tmp_path: Path, autojump_clock: Jumping) -> None:
    async with memory_swarm(tmp_path) as swarm:
        backend = ScriptedBackend("small")
        backend.hold = trio.Event()
        ada = await swarm.start("ada")
        await swarm.start("bob", backend, knows=("ada",))
        _, end = await answer(ada, task(deadline_s=5))
        assert end.code == "deadline_exceeded"
        await backend.cancelled.wait()


async def test_model_that_fails_is_told_with_its_reason(tmp_path: Path, autojump_clock: Jumping) -> None:
    async with memory_swarm(tmp_path) as swarm:
        backend = ScriptedBackend("small")
        backend.error = BackendError("the model ran out of memory")
        ada = await swarm.start("ada", backend)
        _, end = await answer(ada, task())
        assert end.code == "exhausted"
        assert "ran out of memory" in end.reason


async def test_second_model_of_one_name_is_refused_and_the_first_stays(tmp_path: Path, autojump_clock: Jumping) -> None:
    async with memory_swarm(tmp_path) as swarm:
        ada = await swarm.start("ada", ScriptedBackend("small"), ScriptedBackend("small"))
        for source in ada.models.sources:
            await source.settled.wait()
        assert sorted(view.state for view in ada.desk.models()) == ["failed", "ready"]
        assert (await answer(ada, task()))[0] == "hello world"


class Slow(ScriptedBackend):
    """Never done with loading."""

    async def run(self, **_: object) -> None:
        await trio.sleep_forever()


async def test_model_that_is_removed_while_it_loads_is_told_as_removed(tmp_path: Path, autojump_clock: Jumping) -> None:
    told = []
    async with memory_swarm(tmp_path) as swarm:
        ada = await swarm.start("ada", Slow("small"))

        async def add() -> None:
            told.append((await ada.desk.add_model("test:0")).state)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(daemon._report_models, ada.models, lambda event, **fields: told.append(fields["state"]))
            nursery.start_soon(add)
            await trio.sleep(1)
            await ada.desk.remove_model("test:0")
        assert (told, ada.desk.models()) == (["loading", "removed", "removed"], [])


async def test_peer_that_leaves_as_it_is_joined_is_told_of(
    tmp_path: Path, autojump_clock: Jumping, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with memory_swarm(tmp_path) as swarm:
        await swarm.start("bob")
        ada = await swarm.start("ada", knows=("bob",))
        await trio.sleep(3)
        monkeypatch.setattr(meeting, "peer_views", lambda member, now: [])
        with pytest.raises(JoinError, match="has left again"):
            await ada.desk.join("/memory/bob")


async def test_join_names_the_peer_and_tells_why_it_cannot(tmp_path: Path, autojump_clock: Jumping) -> None:
    async with memory_swarm(tmp_path) as swarm:
        bob = await swarm.start("bob")
        ada = await swarm.start("ada")
        joined = await ada.desk.join("/memory/bob")
        assert joined.node == node_text(bob.member.node)
        again = await ada.desk.join(f"/memory/bob/p2p/{node_text(bob.member.node)}")
        assert again.node == joined.node
        assert (await ada.desk.join("/memory/bob")).node == joined.node
        assert (await bob.desk.join("/memory/ada")).name == "ada"
        with pytest.raises(JoinError, match="Nothing answers at /memory/nobody"):
            await ada.desk.join("/memory/nobody")
        with pytest.raises(JoinError, match="not a multiaddr"):
            await ada.desk.join("bob")


async def test_peers_and_skills_show_who_can_do_what(tmp_path: Path, autojump_clock: Jumping) -> None:
    async with memory_swarm(tmp_path) as swarm:
        await swarm.start("bob", ScriptedBackend("small"))
        ada = await swarm.start("ada", knows=("bob",))
        await trio.sleep(3)
        assert [(peer.name, peer.state) for peer in ada.desk.peers()] == [("ada", "self"), ("bob", "connected")]
        assert [(skill.skill, skill.name) for skill in ada.desk.skills()] == [("chat", "bob")]
        assert ada.desk.route(task()).candidates[0].name == "bob"


async def test_bug_in_the_member_ends_the_driver(tmp_path: Path, autojump_clock: Jumping) -> None:
    with pytest.RaisesGroup(pytest.RaisesExc(AttributeError), flatten_subgroups=True):
        async with memory_swarm(tmp_path) as swarm:
            ada = await swarm.start("ada")
            del ada.member.roster
            ada.driver.post(TimerFired(SweepDue()))
            await trio.sleep(1)


async def test_plug_in_that_counts_out_of_bounds_does_not_end_the_node(
    tmp_path: Path, autojump_clock: Jumping
) -> None:
    class Boaster(ScriptedBackend):
        async def generate(self, request: GenerationRequest, pieces: trio.MemorySendChannel[str]) -> Generated:
            await super().generate(request, pieces)
            return Generated("because I say so, at great length", -1, 10**12)

    async with memory_swarm(tmp_path) as swarm:
        await swarm.start("bob", Boaster("small"))
        ada = await swarm.start("ada", knows=("bob",))
        _, end = await answer(ada, task())
        assert (end.code, end.finish, end.tokens_in) == ("", "stop", 0)
