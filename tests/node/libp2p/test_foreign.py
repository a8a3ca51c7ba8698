"""A libp2p of other people's making, js-libp2p, dials us and is dialled: Noise, yamux, identify and ping fit."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from libp2p.host.ping import ID as PING
from libp2p.identity.identify.identify import ID as IDENTIFY

from node.libp2p.dht_mends import KAD
from node.libp2p.transport import WIRE
from node.transport_bench import ALICE, running
from swarm.effects import Dial
from swarm.events import DialFailed
from swarm.values import Contact
from tests.node.libp2p.strangers import LoopbackBench, connected, opened, stranger_host

HERE = Path(__file__).parent / "foreign"
CACHE = Path(__file__).resolve().parents[3] / ".cache" / "js-libp2p"
INSTALL_S = 300


@pytest.fixture(scope="module")
def installed() -> Path:
    """Where js-libp2p is installed, from the package registry if it is not there yet."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("needs Node.js and npm")
    wanted = (HERE / "package.json").read_text()
    complete = CACHE / "complete.json"
    if not complete.exists() or complete.read_text() != wanted:
        CACHE.mkdir(parents=True, exist_ok=True)
        (CACHE / "package.json").write_text(wanted)
        command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--no-package-lock"]
        try:
            subprocess.run(command, cwd=CACHE, check=True, capture_output=True, timeout=INSTALL_S)
        except (subprocess.SubprocessError, OSError) as error:
            pytest.skip(f"js-libp2p cannot be installed: {error}")
        complete.write_text(wanted)
    shutil.copy(HERE / "peer.js", CACHE)
    return CACHE


class Foreigner:
    """A js-libp2p peer in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.address: str = self._answer()["address"]

    def dial(self, address: str) -> dict[str, Any]:
        """What it finds there."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{address}\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


@pytest.fixture
def foreigner(installed: Path) -> Iterator[Foreigner]:
    command = ["node", "peer.js"]
    with subprocess.Popen(command, cwd=installed, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Foreigner(process)
        finally:
            process.kill()


async def test_foreigner_dials_us(foreigner: Foreigner) -> None:
    async with running(LoopbackBench(), ALICE) as alice:
        found = await trio.to_thread.run_sync(foreigner.dial, alice.addresses[0])
    assert found.get("peer") == alice.addresses[0].rsplit("/", 1)[1], found
    assert found["encryption"] == "/noise"
    assert len(found["rtts"]) == 3
    assert {WIRE, KAD, PING, IDENTIFY} <= set(found["protocols"])


async def test_we_dial_the_foreigner(foreigner: Foreigner) -> None:
    async with stranger_host(ALICE) as host:
        connection = await connected(host, foreigner.address)
        assert str(connection.muxed_conn.peer_id) == foreigner.address.rsplit("/", 1)[1]
        stream = await opened(host, connection, [PING])
        for turn in range(3):
            await stream.write(bytes((turn,)) * 32)
            assert await stream.read(32) == bytes((turn,)) * 32


async def test_foreigner_is_no_starlings_node(foreigner: Foreigner) -> None:
    async with running(LoopbackBench(), ALICE) as alice:
        alice.transport.dial(Dial(Contact(None, (foreigner.address,))))
        assert (await alice.next(DialFailed)).cause == f"{foreigner.address} answers, but is not a starlings node."
