"""Tasks reach the journal before their askers hear of them, with how they went, and a broken journal stops nobody."""

import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest
import trio
import trio.testing

from node import detached, recording
from node.assembly import Node
from node.desk import AskEnded
from node.detached import RUNS_MAX, Refused
from node.recording import BEGINS_CHARACTERS, Recorder, first_words
from node.store import requests
from node.store.journal import Entry, Journal
from node.views import TraceView
from protocol.identity import Identity
from protocol.parts import Demands, Sampling, TaskId, Turn
from swarm.events import Stopping
from swarm.settings import Settings
from swarm.values import Privacy, Task
from tests.node.memory_swarm import MemorySwarm, ScriptedBackend, answer, memory_swarm, task
from tests.node.store.test_journal import entry

NOW_MS = 1_790_000_000_000


def recorder(folder: Path, *, texts: bool = True) -> Recorder:
    return Recorder(Journal(folder / "journal.db", keep_days=30, entries_max=10_000), lambda: NOW_MS, texts=texts)


def on_disk(folder: Path) -> list[tuple[str, str]]:
    """State and text of every task, as another process finds them, oldest first."""
    read = Journal(folder / "journal.db", keep_days=30, entries_max=10_000)
    found = [read.find(one.id.hex())[0] for one in reversed(read.newest(1000))]
    read.close()
    return [(one.state, one.text) for one in found]


def stored(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.glob("journal.db*"))


async def ended(node: Recorder, identity: str) -> TraceView:
    """What became of a task, once it has ended."""
    with trio.fail_after(30):
        while True:
            (found,) = await node.trace(identity, 5)
            if found.task.state != "open":
                return found


async def test_a_task_is_on_the_disk_before_its_asker_hears_of_it(tmp_path: Path) -> None:
    backend = ScriptedBackend("m")
    backend.hold = trio.Event()
    async with memory_swarm(tmp_path) as swarm:
        node = await swarm.start("alone", backend, recorder=recorder(tmp_path))
        async with node.desk.ask(task(text="is it there?")) as items:
            assert on_disk(tmp_path) == [("open", "")]
            backend.hold.set()
            async for item in items:
                if isinstance(item, AskEnded):
                    break


async def test_the_whole_way_of_a_task_can_be_traced(tmp_path: Path) -> None:
    kept = recorder(tmp_path)
    async with memory_swarm(tmp_path) as swarm:
        node = await swarm.start("alone", ScriptedBackend("m", words=("hello", " ", "world")), recorder=kept)
        text, end = await answer(node, task(text="what\nis it?"))
        found = await ended(kept, "0" * 31 + "1")
    assert (found.text, found.asked, found.task.begins) == (text, "what\nis it?", "what is it?")
    assert found.answer == end
    assert (found.task.state, found.task.name, found.task.model, found.task.asked_at_ms) == ("done", "alone", "m", NOW_MS)
    (route,) = found.answer.routes
    assert [candidate.chosen for candidate in route.candidates] == [True]
    assert found.answer.gap_s is not None and found.answer.worker_s is not None


async def test_the_partial_text_of_a_task_that_fails_is_kept(tmp_path: Path) -> None:
    backend = ScriptedBackend("m")
    backend.hold_after_first = trio.Event()
    kept = recorder(tmp_path)
    async with memory_swarm(tmp_path) as swarm:
        node = await swarm.start("asker", recorder=kept)
        await swarm.start("worker", backend, knows=("asker",))
        with trio.fail_after(20):
            while not node.desk.skills():
                await trio.sleep(0.01)
        async with node.desk.ask(task()) as items:
            async for item in items:
                if getattr(item, "text", "") == "hello":
                    swarm.kill("worker")
                if isinstance(item, AskEnded):
                    break
        found = await ended(kept, "0" * 31 + "1")
    assert (found.task.state, found.task.code, found.text) == ("failed", "stream_broken", "hello")


async def test_a_task_whose_asker_leaves_is_cancelled(tmp_path: Path) -> None:
    backend = ScriptedBackend("m")
    backend.hold = trio.Event()
    kept = recorder(tmp_path)
    async with memory_swarm(tmp_path) as swarm:
        node = await swarm.start("alone", backend, recorder=kept)
        async with node.desk.ask(task()):
            await backend.begun.wait()
        found = await ended(kept, "0" * 31 + "1")
        assert (found.task.state, len(found.answer.attempts)) == ("cancelled", 1)


@pytest.mark.parametrize(("texts", "privacy"), [(False, Privacy.SWARM), (True, Privacy.LOCAL)])
async def test_of_private_tasks_only_what_happened_is_kept(tmp_path: Path, texts: bool, privacy: Privacy) -> None:
    kept = recorder(tmp_path, texts=texts)
    asked = task(text="my secret question")
    async with memory_swarm(tmp_path) as swarm:
        node = await swarm.start("alone", ScriptedBackend("m", words=("secret", " answer")), recorder=kept)
        private = Task(*(privacy if name == "privacy" else getattr(asked, name) for name in asked.__slots__))
        assert (await answer(node, private))[0] == "secret answer"
        found = await ended(kept, "0" * 31 + "1")
    assert (found.task.state, found.task.begins, found.asked, found.text) == ("done", "", "", "")
    assert b"secret" not in stored(tmp_path)


async def test_many_tasks_at_once_share_their_commits(tmp_path: Path) -> None:
    kept = recorder(tmp_path)
    async with memory_swarm(tmp_path) as swarm:
        node = await swarm.start("alone", ScriptedBackend("m"), recorder=kept)
        async with trio.open_nursery() as nursery:
            for number in range(1, 21):
                nursery.start_soon(answer, node, task(number))
        found = await kept.history(100)
    assert len(found) == 20
    assert on_disk(tmp_path) == [("done", "hello world")] * 20


async def test_a_journal_that_cannot_be_written_stops_nobody_and_recovers(tmp_path: Path) -> None:
    folder = tmp_path / "not yet"
    kept = recorder(folder)
    async with memory_swarm(tmp_path) as swarm:
        node = await swarm.start("alone", ScriptedBackend("m"), recorder=kept)
        assert (await answer(node, task(1)))[0] == "hello world"
        assert "not recorded" in node.desk.status().journal
        with pytest.raises(Refused, match="not recorded"):
            await node.detached.begin(task(2))
        folder.mkdir()
        assert (await answer(node, task(3)))[0] == "hello world"
        assert [found.state for found in await kept.history(10)] == ["done", "cancelled", "done"]
        assert node.desk.status().journal == ""


async def test_a_journal_that_was_corrupt_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "journal.db").write_bytes(b"nonsense" * 1000)
    async with memory_swarm(tmp_path) as swarm:
        node = await swarm.start("alone", ScriptedBackend("m"), recorder=recorder(tmp_path))
        assert (await answer(node, task()))[0] == "hello world"
        assert "journal.db.bad-1" in node.desk.status().journal


async def test_without_a_journal_nothing_is_detached_and_nothing_is_known(tmp_path: Path) -> None:
    async with memory_swarm(tmp_path) as swarm:
        node = await swarm.start("alone", ScriptedBackend("m"))
        assert (await answer(node, task()))[0] == "hello world"
        with pytest.raises(Refused, match="no journal"):
            await node.detached.begin(task(2))
        assert node.desk.status().journal == ""


# --- Detached tasks ---------------------------------------------------------------------------------------------------


async def test_a_detached_task_is_answered_into_the_journal(tmp_path: Path) -> None:
    kept = recorder(tmp_path, texts=False)
    async with memory_swarm(tmp_path) as swarm:
        node = await swarm.start("alone", ScriptedBackend("m"), recorder=kept)
        identity, state = await node.detached.begin(task(text="later"))
        assert (state, on_disk(tmp_path)[0][0]) == ("open", "open")
        found = await ended(kept, identity)
    assert (found.task.state, found.task.detached, found.asked, found.text) == ("done", True, "later", "hello world")


async def test_a_detached_task_waits_until_somebody_is_able(tmp_path: Path) -> None:
    kept = recorder(tmp_path)
    async with memory_swarm(tmp_path, Settings(search_limit_s=0.05)) as swarm:
        node = await swarm.start("asker", recorder=kept)
        identity, _ = await node.detached.begin(task())
        await trio.sleep(0.2)
        await swarm.start("worker", ScriptedBackend("m"), knows=("asker",))
        found = await ended(kept, identity)
    assert (found.task.state, found.text, found.task.name) == ("done", "hello world", "worker")


async def test_a_detached_task_goes_on_in_the_next_run_and_others_are_interrupted(tmp_path: Path) -> None:
    backend = ScriptedBackend("m")
    backend.hold = trio.Event()
    async with memory_swarm(tmp_path) as swarm:
        node = await swarm.start("alone", backend, recorder=recorder(tmp_path))
        identity, _ = await node.detached.begin(task(1, text="go on"))
        asked = trio.Event()

        async def ask() -> None:
            async with node.desk.ask(task(2)):
                asked.set()
                await trio.sleep_forever()

        swarm.nursery.start_soon(ask)
        await asked.wait()
        before = on_disk(tmp_path)
        swarm.nursery.cancel_scope.cancel()
    assert before == [("open", "")] * 2
    kept = recorder(tmp_path)
    async with memory_swarm(tmp_path) as swarm:
        await swarm.start("alone", ScriptedBackend("m"), recorder=kept)
        found = await ended(kept, identity)
        states = [one.state for one in await kept.history(10)]
    assert (found.task.state, found.text, found.asked) == ("done", "hello world", "go on")
    assert states == ["interrupted", "done"] or states == ["cancelled", "done"]


async def test_a_task_that_is_there_at_every_end_is_given_up(tmp_path: Path) -> None:
    packed = requests.pack(task(1))
    poison = entry(1, "open", detached=True, runs=RUNS_MAX, request=packed, account=b"")
    broken = entry(2, "open", detached=True, request=b"\xff")
    waited = entry(3, "open", text="")
    good = entry(4, "open", detached=True, request=packed)
    before = Journal(tmp_path / "journal.db", keep_days=30, entries_max=10_000)
    before.write([poison, broken, waited, good])
    before.close()
    kept = recorder(tmp_path)
    async with memory_swarm(tmp_path) as swarm:
        await swarm.start("alone", ScriptedBackend("m"), recorder=kept)
        await ended(kept, f"{4:032x}")
        found = {int(one.task, 16): one for one in await kept.history(10)}
    assert [found[number].state for number in (1, 2, 3, 4)] == ["interrupted", "interrupted", "interrupted", "done"]
    assert "3 times" in found[1].reason
    assert "cannot be read" in found[2].reason


async def test_an_item_of_a_batch_is_asked_once(tmp_path: Path) -> None:
    backend = ScriptedBackend("m")
    kept = recorder(tmp_path)
    async with memory_swarm(tmp_path) as swarm:
        node = await swarm.start("alone", backend, recorder=kept)
        first, _ = await node.detached.begin(task(1), "b", "1")
        assert await node.detached.begin(task(2), "b", "1") in ((first, "open"), (first, "done"))
        await ended(kept, first)
        assert await node.detached.begin(task(3), "b", "1") == (first, "done")
        other, _ = await node.detached.begin(task(4), "b", "2")
        third, _ = await node.detached.begin(task(5), "c", "1")
        assert len({first, other, third}) == 3
        await ended(kept, other)
        await ended(kept, third)
        assert len(await kept.history(10, "b")) == 2


async def test_an_item_that_is_handed_in_twice_at_once_is_asked_once(tmp_path: Path) -> None:
    kept = recorder(tmp_path)
    taken = []
    async with memory_swarm(tmp_path) as swarm:
        node = await swarm.start("alone", ScriptedBackend("m"), recorder=kept)

        async def begin(number: int) -> None:
            taken.append((await node.detached.begin(task(number), "b", "1"))[0])

        async with trio.open_nursery() as nursery:
            for number in range(1, 9):
                nursery.start_soon(begin, number)
    assert len(taken) == 8 and len(set(taken)) == 1


async def test_a_clean_stop_leaves_a_detached_task_for_the_next_run(tmp_path: Path) -> None:
    backend = ScriptedBackend("m")
    backend.hold = trio.Event()
    async with memory_swarm(tmp_path) as swarm:
        node = await swarm.start("alone", backend, recorder=recorder(tmp_path))
        await node.detached.begin(task(1))
        await backend.begun.wait()
        await stop(swarm, node)
    assert on_disk(tmp_path) == [("open", "")]


async def test_a_task_is_done_even_if_whoever_hands_it_in_leaves_before_the_disk_has_it(tmp_path: Path) -> None:
    disk = SlowJournal(tmp_path / "journal.db", keep_days=30, entries_max=10_000)
    kept = Recorder(disk, lambda: NOW_MS, texts=True)
    async with memory_swarm(tmp_path) as swarm:
        node = await swarm.start("alone", ScriptedBackend("m"), recorder=kept)
        disk.free.clear()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.detached.begin, task(1))
            await trio.to_thread.run_sync(disk.begun.wait)
            nursery.cancel_scope.cancel()
            disk.free.set()
        assert (await ended(kept, f"{1:032x}")).text == "hello world"


class SlowJournal(Journal):
    """A disk that takes nothing while it is not `free`."""

    def __init__(self, file: Path, **bounds: int) -> None:
        super().__init__(file, **bounds)
        self.free, self.begun, self.done = threading.Event(), threading.Event(), threading.Event()
        self.free.set()

    def write(self, entries: Sequence[Entry]) -> None:
        self.begun.set()
        self.free.wait(20)
        super().write(entries)
        self.done.set()


async def test_a_disk_that_hangs_does_not_keep_a_node_that_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "COMMIT_S", 0.1)
    disk = SlowJournal(tmp_path / "journal.db", keep_days=30, entries_max=10_000)
    disk.free.clear()
    kept = Recorder(disk, lambda: NOW_MS, texts=True)
    async with kept.running():
        kept.begin(task(1))
        await trio.to_thread.run_sync(disk.begun.wait)
    assert not disk.done.is_set()
    disk.free.set()


@pytest.mark.parametrize(("end", "counted"), [("clean", 0), ("crash", 1)])
async def test_only_a_crash_uses_up_one_of_a_detached_tasks_runs(tmp_path: Path, end: str, counted: int) -> None:
    backend = ScriptedBackend("m")
    backend.hold = trio.Event()
    async with memory_swarm(tmp_path) as swarm:
        node = await swarm.start("alone", backend, recorder=recorder(tmp_path))
        await node.detached.begin(task(1))
        await backend.begun.wait()
        if end == "clean":
            await stop(swarm, node)
        swarm.kill("alone")
        await trio.testing.wait_all_tasks_blocked()
    assert runs_on_disk(tmp_path) == [("open", counted)]


async def test_tasks_that_have_not_begun_or_for_which_nobody_is_able_use_up_none_of_their_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detached, "RUNNING_MAX", 1)
    async with memory_swarm(tmp_path, Settings(search_limit_s=0.05)) as swarm:
        node = await swarm.start("alone", recorder=recorder(tmp_path))
        await node.detached.begin(task(1))
        await node.detached.begin(task(2))
        with trio.fail_after(20):
            while not node.member.asking.failed:
                await trio.sleep(0.01)
        assert [runs for _, runs in runs_on_disk(tmp_path)] == [1, 0]
        swarm.kill("alone")
        await trio.testing.wait_all_tasks_blocked()
    assert runs_on_disk(tmp_path) == [("open", 0)] * 2


def runs_on_disk(folder: Path) -> list[tuple[str, int]]:
    read = Journal(folder / "journal.db", keep_days=30, entries_max=10_000)
    found = read.open_entries()
    read.close()
    return [(one.state, one.runs) for one in found]


async def stop(swarm: MemorySwarm, node: Node) -> None:
    node.driver.post(Stopping())
    await trio.testing.wait_all_tasks_blocked()


# --- Requests and words -----------------------------------------------------------------------------------------------


def test_a_request_is_the_same_after_it_was_stored() -> None:
    dice = Random(1)
    asked = Task(
        TaskId(dice.randbytes(16)), "classify:language", (Turn("system", "be brief"), Turn("user", "ĝis")), "m", 7,
        Sampling(0.5, 0.9, 3, 0.0, 1.1, -1.0, 2.0, 2**32 - 1), ("\n", "END"), 12.5, Privacy.LOCAL, Identity(b"\x01" * 32).node,
        Demands("{}", "", ("a", "b"), "", (), 3),
    )  # fmt: skip
    assert requests.unpack(asked.id, requests.pack(asked)) == asked
    assert requests.unpack(task().id, requests.pack(task())) == task()


@pytest.mark.parametrize("stored", [b"", b"\xff", b"\x90", b"\x01", requests.pack(task())[:-3], b"\x9c" + bytes(12)])
def test_what_is_no_stored_request_is_refused(stored: bytes) -> None:
    with pytest.raises(ValueError, match="not a stored request"):
        requests.unpack(task().id, stored)


def test_the_first_words_are_one_short_line() -> None:
    assert first_words(task(text="  why\n\nis\tit ")) == "why is it"
    assert len(first_words(task(text="x" * 50_000))) == BEGINS_CHARACTERS


_ASKER = """
import sys
from pathlib import Path
import trio
from tests.node.memory_swarm import ScriptedBackend, memory_swarm, task
from tests.node.test_recording import recorder

async def main():
    folder = Path(sys.argv[1])
    async with memory_swarm(folder) as swarm:
        node = await swarm.start("alone", ScriptedBackend("m"), recorder=recorder(folder))
        for number in range(1, 1000):
            async with node.desk.ask(task(number)) as items:
                print(number, flush=True)
                async for item in items:
                    pass

trio.run(main)
"""


def test_every_task_that_its_asker_heard_of_is_there_after_kill_9(tmp_path: Path) -> None:
    asker = subprocess.Popen([sys.executable, "-c", _ASKER, str(tmp_path)], stdout=subprocess.PIPE)
    assert asker.stdout is not None
    told = [int(asker.stdout.readline()) for _ in range(50)]
    asker.kill()
    told += [int(line) for line in asker.stdout.read().splitlines()]
    asker.stdout.close()
    asker.wait()
    assert len(on_disk(tmp_path)) >= len(told)
