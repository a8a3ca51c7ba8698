"""One node per home."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from node.exits import ExitCode, Failure
from node.store.home import Home, find_home
from node.store.lock import HomeLocked, held, hold


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = find_home({"SWARM_HOME": str(tmp_path / "home")})
    home.create()
    return home


def test_a_home_that_is_held_refuses_a_second_node_and_names_the_first(home: Home) -> None:
    with hold(home):
        with pytest.raises(HomeLocked) as caught, hold(home):
            pass
        assert str(os.getpid()) in caught.value.message
        assert caught.value.exit == ExitCode.ALREADY_HELD
        holder = held(home)
        assert holder is not None
        assert (holder.pid, holder.socket) == (os.getpid(), home.socket)
    assert held(home) is None


def test_a_home_is_free_again_after_its_node(home: Home) -> None:
    for _ in range(3):
        with hold(home):
            pass
    assert held(home) is None


def test_asking_who_holds_a_fresh_home_creates_nothing(tmp_path: Path) -> None:
    home = find_home({"SWARM_HOME": str(tmp_path / "fresh")})
    assert held(home) is None
    assert not home.state.exists()


def test_the_lock_of_a_killed_node_is_free_at_once(home: Home) -> None:
    program = (
        "import sys, time; from node.store.home import find_home; from node.store.lock import hold\n"
        "with hold(find_home()):\n print('held', flush=True); sys.stdin.read()"
    )
    node = subprocess.Popen(
        [sys.executable, "-c", program],
        env=os.environ | {"SWARM_HOME": str(home.data)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with node:
        assert node.stdout
        assert node.stdout.readline() == b"held\n"
        holder = held(home)
        assert holder is not None
        assert holder.pid == node.pid
        node.send_signal(signal.SIGKILL)
        node.wait(timeout=30)
    assert held(home) is None
    with hold(home):
        pass


def test_somebody_who_only_asks_does_not_keep_a_node_from_starting(home: Home) -> None:
    program = (
        "import sys; from node.store.home import find_home; from node.store.lock import held\n"
        "print('asking', flush=True)\nwhile not sys.stdin.closed: held(find_home())"
    )
    environment = os.environ | {"SWARM_HOME": str(home.data)}
    asker = subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE)
    with asker:
        try:
            assert asker.stdout
            assert asker.stdout.readline() == b"asking\n"
            for _ in range(20):
                with hold(home):
                    pass
        finally:
            asker.kill()


def test_a_symbolic_link_in_place_of_the_lock_is_not_followed(home: Home) -> None:
    target = home.data / "precious"
    target.write_text("content")
    home.lock.symlink_to(target)
    with pytest.raises(Failure, match="cannot be opened"), hold(home):
        pass
    assert target.read_text() == "content"
