"""Real nodes that freeze, sleep, stutter or lose their links: who is asked meanwhile, who is believed, what stays behind."""

import re
import signal
import time
from threading import Thread
from typing import Any

import psutil
import pytest

from tests.processes import ControlError, RealNode, Starter
from tests.relays import Relay

SENTENCE = "Nobody leads the flock and yet it turns as one"
HELD = re.compile(r"^(swarm_connections|swarm_streams) (\d+)$", re.MULTILINE)


def names(node: RealNode) -> set[str]:
    return {peer["name"] for peer in node.control("GET", "peers")["peers"]}


def routable(node: RealNode) -> set[str]:
    return {found["name"] for found in node.control("POST", "route", {"text": "Who?"})["candidates"]}


def test_worker_that_freezes_in_mid_answer_is_not_asked_again_until_it_speaks(start: Starter) -> None:
    asker = start.start("asker")
    workers = {
        name: start.start(name, models=("echo:delay_ms=150",), join=asker.addresses[:1]) for name in ("left", "right")
    }
    asker.wait_for("chat", 2)
    for name in workers:
        asker.ask("Hello!", peer=name)  # A stranger whose first answer fails would be left alone for long.
    text, frozen, during = "", "", set[str]()
    for event, data in asker.stream(SENTENCE):
        if event == "route" and frozen:
            during = routable(asker)
        elif event == "route":
            frozen = next(found["name"] for found in data["candidates"] if found["chosen"])
        elif event == "text":
            if not text:
                workers[frozen].kill(signal.SIGSTOP)
            text += data["text"]
        elif event == "end":
            end = data
    (other,) = workers.keys() - {frozen}
    assert (text, end["code"], end["name"]) == (SENTENCE, "", other)
    assert during == {other}, "from the moment on at which another was asked instead"
    workers[frozen].kill(signal.SIGCONT)
    asker.wait_until(lambda: routable(asker) == {"left", "right"})


@pytest.mark.slow
def test_node_that_sleeps_is_forgotten_by_all_and_welcome_when_it_wakes(start: Starter) -> None:
    first = start.start("first")
    others = [first, *(start.start(f"other-{number}", join=first.addresses[:1]) for number in range(3))]
    sleeper = start.start("sleeper", models=("echo:",), join=first.addresses[:1])
    for node in others:
        node.wait_for("chat")
    sleeper.kill(signal.SIGSTOP)
    for node in others:
        node.wait_until(lambda node=node: "sleeper" not in names(node))
    for _ in range(20):
        assert not any("sleeper" in names(node) for node in others), "old gossip does not bring it back"
        time.sleep(0.25)
    sleeper.kill(signal.SIGCONT)
    for node in others:
        node.wait_for("chat")
    assert others[-1].ask("Awake?", peer="sleeper")[0] == "Awake?"


@pytest.mark.slow
def test_node_that_stutters_blames_nobody(start: Starter) -> None:
    first = start.start("first")
    others = [first, *(start.start(f"other-{number}", join=first.addresses[:1]) for number in range(3))]
    slow = start.start("slow", join=first.addresses[:1])
    everybody = {node.name for node in others}
    for node in (*others, slow):
        node.wait_until(lambda node=node: names(node) >= everybody)
    for stopped_s in (0.7, 0.7, 0.7, 4.0, 0.7, 0.7, 4.0):
        slow.kill(signal.SIGSTOP)
        time.sleep(stopped_s)
        slow.kill(signal.SIGCONT)
        for _ in range(5):
            assert all(names(node) >= everybody for node in others)
            time.sleep(0.1)


def test_links_that_are_cut_under_work_come_back_and_leave_nothing_behind(start: Starter) -> None:
    relay = Relay()
    asker = start.start("asker")
    worker = start.start("worker", models=("echo:delay_ms=5",), **{"node.announce": [relay.address]})
    listening = [each for each in psutil.Process(worker.process.pid).net_connections("tcp4") if each.status == psutil.CONN_LISTEN]
    relay.port = next(each.laddr.port for each in listening if not worker.api.endswith(f":{each.laddr.port}"))
    asker.control("POST", "join", {"address": worker.addresses[0]})
    asker.wait_for("chat")
    asker.ask("Hello!")  # A stranger whose first answer fails would be left alone for long.

    def held() -> dict[str, int]:
        return {name: int(count) for name, count in HELD.findall(asker.metrics())}

    before = held()
    answers: list[tuple[str, str, str]] = []

    def ask(user: int) -> None:
        for number in range(20):
            text = f"{user}/{number} {SENTENCE}"
            try:
                said, end = asker.ask(text, deadline_s=30)
            except ControlError as refused:
                said, end = "", refused.answer["error"]
            answers.append((text, said, end["code"]))

    users = [Thread(target=ask, args=(user,)) for user in range(4)]
    for user in users:
        user.start()
    for done in (0, 20):
        asker.wait_until(lambda done=done: len(answers) > done)
        relay.cut()
        asker.wait_for("chat")
    for user in users:
        user.join()
    right = [said == text and not code for text, said, code in answers]
    assert any(right) and all(right[-4:]), "it answers again once the link is back"
    # What was lost with the only worker may fail, but nothing is said twice or wrong.
    assert all(text.startswith(said) for text, said, _ in answers)
    asker.wait_until(lambda: held()["swarm_streams"] <= before["swarm_streams"] + 2)
    asker.wait_until(lambda: held()["swarm_connections"] <= before["swarm_connections"] + 1)
    relay.close()


@pytest.mark.slow
def test_everybody_gets_the_right_answer_while_workers_are_killed(start: Starter) -> None:
    first = start.start("first")
    askers = [first, start.start("second", join=first.addresses[:1])]
    model = ("echo:first_ms=200,delay_ms=30",)
    workers = [start.start(f"worker-{number}", models=model, join=first.addresses[:1]) for number in range(6)]
    for asker in askers:
        asker.wait_for("chat", 6)
    answers: list[tuple[str, str, dict[str, Any]]] = []

    def ask(asker: RealNode, user: int) -> None:
        for number in range(12):
            text = f"{asker.name}/{user}/{number} {SENTENCE}"
            answers.append((text, *asker.ask(text)))

    users = [Thread(target=ask, args=(asker, user)) for asker in askers for user in range(3)]
    for user in users:
        user.start()
    for number, worker in enumerate(workers[:2]):
        first.wait_until(lambda number=number: len(answers) > 10 + 15 * number)
        worker.kill()
    for user in users:
        user.join()
    assert len(answers) == 72
    assert [(text, end["code"]) for text, said, end in answers if said != text or end["code"]] == []
    assert sum(len(end["attempts"]) > 1 for _, _, end in answers) > 0, "somebody was at work when it was killed"
    for asker in askers:
        tasks = asker.control("GET", "tasks?count=100")["tasks"]
        assert len(tasks) == len({task["task"] for task in tasks}) == 36
        assert {task["state"] for task in tasks} == {"done"}
