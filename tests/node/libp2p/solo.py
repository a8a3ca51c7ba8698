"""One libp2p transport in a process of its own, for tests that kill, stop or torment it. Answers every Ping with a Pong.

`python -m tests.node.libp2p.solo SEED_HEX [ADDRESS…]` dials the addresses and prints one line of JSON for each event.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import trio

from node.libp2p.transport import Libp2pTransport
from node.transport import TransportEvent
from node.transport_bench import SWARM
from protocol.identity import node_text
from protocol.messages import Ping, Pong
from swarm.effects import Dial
from swarm.events import DialFailed, NeighbourDown, NeighbourUp, Received
from swarm.values import Contact

ROOT = Path(__file__).resolve().parents[3]
PATIENCE_S = 60  # A safety net for loaded machines.


async def main(seed: bytes, dials: list[str]) -> None:
    listen = ["/ip4/127.0.0.1/tcp/0"]
    transport = Libp2pTransport(seed, SWARM, "solo", "starlings/test", listen, [], False, time.time, Random())

    def post(event: TransportEvent) -> None:
        match event:
            case NeighbourUp() | NeighbourDown():
                told = {"node": node_text(event.node), "cause": getattr(event, "cause", "")}
                say(event=type(event).__name__, **told)
            case DialFailed():
                say(event="DialFailed", cause=event.cause)
            case Received(sender, Ping(nonce)):
                transport.send(sender, Pong(nonce))
            case _:
                pass

    async with trio.open_nursery() as nursery:
        addresses = await nursery.start(transport.run, post)
        say(event="ready", addresses=addresses)
        for address in dials:
            transport.dial(Dial(Contact(None, (address,))))


def say(**what: object) -> None:
    print(json.dumps(what), flush=True)


@dataclass
class Solo:
    """A running one, as its test sees it."""

    process: subprocess.Popen[str]
    addresses: list[str] = field(default_factory=list)

    def next(self, event: str) -> dict[str, Any]:
        """The next event of this kind; raises EOFError if the process ends first."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            said: dict[str, Any] = json.loads(line)
            if said["event"] == event:
                return said
        raise EOFError(f"the node has ended with status {self.process.wait()}")

    def rss_bytes(self) -> int:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def cpu_s(self) -> float:
        """Time that the process has spent on a processor."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def solo(seed: bytes, *dials: str, patience_s: int = PATIENCE_S) -> Iterator[Solo]:
    """Start one and end it with the block."""
    command = [sys.executable, "-m", "tests.node.libp2p.solo", seed.hex(), *dials]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        guard = signal.signal(signal.SIGALRM, _give_up)
        signal.alarm(patience_s)
        try:
            one = Solo(process)
            one.addresses = one.next("ready")["addresses"]
            yield one
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, guard)
            process.kill()
            process.wait()


def _give_up(*_: object) -> None:
    raise TimeoutError("the test waits in vain")


if __name__ == "__main__":
    trio.run(main, bytes.fromhex(sys.argv[1]), sys.argv[2:])
