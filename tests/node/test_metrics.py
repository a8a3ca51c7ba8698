"""The metrics page is what Prometheus reads, counts what has happened, and cannot be made to grow by peers."""

import re
from pathlib import Path

import trio
from trio.testing import MockClock

from node.metrics import Histogram, Measures, Tallies, exposition
from node.recording import Recorder
from node.transport import Counts
from node.views import AnswerView, AttemptView
from tests.node.api.raw_http import served
from tests.node.cli import control_api as canned
from tests.node.memory_swarm import ScriptedBackend, answer, memory_swarm, task

COUNTS = Counts({"stale": 2}, {"Rumours": 4_000, "Ping": 90}, 5_000, 3, 8)
LINE = re.compile(r'([a-z_]+)(?:\{((?:[a-z]+="(?:[^"\\\n]|\\["\\n])*",?)*)\})? (-?[0-9.e+-]+)')


def samples(page: str) -> dict[str, float]:
    """Every sample by name and labels; each line must be of the format, and each metric be announced once."""
    found: dict[str, float] = {}
    announced: list[str] = []
    for line in page.splitlines():
        if line.startswith("# TYPE "):
            announced.append(line.split()[2])
        elif not line.startswith("# HELP "):
            match = LINE.fullmatch(line)
            assert match, line
            assert re.sub("_(bucket|sum|count)$", "", match[1]) in (announced[-1], match[1]), line
            key = match[1] + (f"{{{match[2]}}}" if match[2] else "")
            assert key not in found, line
            found[key] = float(match[3])
    assert page.endswith("\n") and len(set(announced)) == len(announced)
    return found


def measured(tallies: Tallies) -> dict[str, float]:
    return samples(exposition(Measures(canned.status(), tallies, 3, 2, 7, 9, 4, 1, 2, 1.25, COUNTS, 60)))


def test_the_page_tells_of_tasks_attempts_and_load() -> None:
    tallies = Tallies()
    tallies.concluded(canned.answer())
    tallies.concluded(canned.answer("exhausted", "nobody is left"))
    found = measured(tallies)
    assert found['swarm_attempts_total{end="busy",why="first"}'] == 2
    assert found['swarm_attempts_total{end="answered",why="first"}'] == 1
    assert (found["swarm_tasks_answered_total"], found['swarm_tasks_failed_total{code="exhausted"}']) == (1, 1)
    assert (found["swarm_hedges_total"], found["swarm_resumes_total"]) == (3, 2)
    assert (found["swarm_neighbours"], found["swarm_adverts"]) == (7, 9)
    assert (found["swarm_slots"], found["swarm_slots_busy"], found["swarm_queue"]) == (4, 1, 2)
    assert found['swarm_refused_total{reason="stale"}'] == 2
    assert (found["swarm_connections"], found["swarm_streams"], found["process_loop_tasks"]) == (3, 8, 60)
    assert found['swarm_link_sent_bytes_total{message="Rumours"}'] == 4_000
    assert found["swarm_link_received_bytes_total"] == 5_000
    assert found["process_resident_memory_bytes"] == 91_000_000
    assert found["swarm_first_text_seconds_count"] == 2


def test_a_histogram_counts_cumulatively() -> None:
    tallies = Tallies(first_text_s=Histogram((0.1, 1.0)))
    for value in (0.05, 0.1, 0.5, 7.0):
        tallies.first_text_s.add(value)
    found = measured(tallies)
    assert [found[f'swarm_first_text_seconds_bucket{{le="{bound}"}}'] for bound in ("0.1", "1", "+Inf")] == [2, 3, 4]
    assert found["swarm_first_text_seconds_sum"] == 7.65


def test_codes_that_peers_invent_share_one_series() -> None:
    tallies = Tallies()
    for number in range(1000):
        attempts = [AttemptView("12D3", "wren", "m", f"code_{number}", 'say "no"\n', 0.1, why=f"x{number}")]
        tallies.concluded(AnswerView("7f", "chat", f"code_{number}", "", "", "", "", "", 0, 0, None, 1.0, attempts, []))
    found = measured(tallies)
    assert found['swarm_attempts_total{end="other",why="other"}'] == 1000
    assert found['swarm_tasks_failed_total{code="other"}'] == 1000


async def test_the_page_needs_no_key_but_the_right_host(tmp_path: Path) -> None:
    async with served(tmp_path) as api:
        reply = await api.get("/metrics", [("host", f"127.0.0.1:{api.port}")])
        assert (reply.status, reply.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
        assert samples(reply.body.decode())["swarm_neighbours"] == 2
        assert (await api.get("/metrics", [("host", "evil.example")])).status == 403


async def test_a_real_node_counts_its_tasks(tmp_path: Path) -> None:
    async with memory_swarm(tmp_path) as swarm:
        node = await swarm.start("alone", ScriptedBackend("m"), recorder=Recorder(None, lambda: 0, texts=False))
        before = samples(exposition(node.desk.measures()))
        await answer(node, task())
        after = samples(exposition(node.desk.measures()))
    assert after["swarm_tasks_answered_total"] - before["swarm_tasks_answered_total"] == 1
    assert after['swarm_attempts_total{end="answered",why="first"}'] == 1
    assert after["swarm_task_seconds_count"] == 1
    assert after["swarm_slots"] == 1


async def test_a_peer_says_how_old_its_news_are_though_it_pings_all_the_time(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with memory_swarm(tmp_path) as swarm:
        ada = await swarm.start("ada")
        await swarm.start("bob", ScriptedBackend("m"), knows=("ada",))
        await trio.sleep(12)
        (bob,) = [peer for peer in ada.desk.peers() if peer.name == "bob"]
        assert bob.told_s is not None and bob.told_s > 9 > 4 > bob.heard_s
        sent = ada.desk.measures().counts.sent_bytes
        assert set(sent) >= {"Hello", "AdvertPush", "Ping", "Pong"}
