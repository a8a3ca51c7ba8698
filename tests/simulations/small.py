"""Small worlds for the tests of the simulator: stand-in members that show what the world itself does, and scenarios in a line."""

from collections.abc import Callable
from random import Random
from typing import Any

from protocol.identity import NodeId
from protocol.messages import Ping, TaskRequest
from protocol.parts import AttemptId, Sampling, TaskId, Turn
from simulations.machines import Machine, Process
from simulations.scenario import Scenario, parse
from simulations.world import World
from swarm.effects import Dial, Disconnect, Effect, Generate, GossipDue, Send, SetTimer, StopGenerating
from swarm.events import (
    CarriedChanged,
    ContactsFound,
    DialFailed,
    DialledBack,
    Event,
    GenerationFailed,
    GenerationFinished,
    LoopLate,
    NeighbourDown,
    NeighbourUp,
    PieceGenerated,
    Received,
    RelayChanged,
    Started,
    TimerFired,
    Undelivered,
)
from swarm.finding.issuing import Notary
from swarm.settings import Settings
from swarm.values import Contact

SEEN = (
    Started, NeighbourUp, NeighbourDown, DialFailed, Received, Undelivered, TimerFired, LoopLate, ContactsFound,
    PieceGenerated, GenerationFinished, GenerationFailed, DialledBack, RelayChanged, CarriedChanged,
)  # fmt: skip

PAIR = """
about = "two machines that know each other's address, and nothing else"
seconds = 60
start_s = 0
[[members]]
name = "node"
count = 2
skills = ["chat"]
tokens_per_second = [10, 10]
first_token_ms = [100, 100]
[network]
jitter = 0
"""


class Idle:
    """Does nothing by itself: the test says what it does, and the world's watchers see what happens to it."""

    def __init__(self, node: NodeId, name: str, settings: Settings, notary: Notary, dice: Random) -> None:
        self.node = node

    def handle(self, event: Event, now: float) -> list[Effect]:
        return []


class Chatterer:
    """Dials whom it hears of, and from then on answers every ping with a ping and sets a timer again and again."""

    def __init__(self, node: NodeId, name: str, settings: Settings, notary: Notary, dice: Random) -> None:
        self._dice, self._nonce = dice, 0

    def handle(self, event: Event, now: float) -> list[Effect]:
        match event:
            case Started():
                return [SetTimer(self._dice.random(), GossipDue())]
            case ContactsFound(_, _, contacts):
                return [Dial(contact) for contact in contacts]
            case NeighbourUp(node):
                return [Send(node, Ping(number)) for number in range(3)]
            case Received(sender, Ping(nonce)):
                return [Send(sender, Ping(nonce + 1))] if nonce < 40 else []
            case TimerFired():
                return [SetTimer(self._dice.random(), GossipDue())]
        return []


class Log:
    """Everything that has happened to each machine, in order."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.all: list[tuple[float, Machine, Any]] = []
        world.watch(self)

    def watches(self) -> dict[type, Callable[[Process, Any], None]]:
        return dict.fromkeys(SEEN, self._see)

    def _see(self, process: Process, event: Any) -> None:
        self.all.append((self._world.agenda.now, process.machine, event))

    def of(self, machine: Machine, *kinds: type) -> list[Any]:
        """The events of one machine, of these classes."""
        return [event for _, where, event in self.all if where is machine and isinstance(event, kinds or SEEN)]

    def times(self, machine: Machine, kind: type) -> list[float]:
        """When events of one class happened to a machine."""
        return [at for at, where, event in self.all if where is machine and isinstance(event, kind)]


class Pair:
    """Two idle machines, `near` and `far`, and a hand on what they do."""

    def __init__(self, text: str = PAIR, seed: int = 1) -> None:
        self.world = World(parse(text, "pair"), seed, Idle)
        self.log = Log(self.world)
        self.near, self.far = self.world.machines[:2]
        self.world.run(1.0)

    def do(self, machine: Machine, effect: Effect) -> None:
        """Let a machine's process have this effect now."""
        assert machine.process is not None
        self.world.perform(machine.process, effect)

    def dial(self) -> None:
        """`near` dials `far`."""
        self.do(self.near, Dial(Contact(self.far.node, self.far.addresses)))

    def link(self) -> None:
        """A link from `near` to `far`, up at both ends."""
        self.dial()
        self.wait(2.0)
        assert self.log.of(self.near, NeighbourUp) and self.log.of(self.far, NeighbourUp)

    def say(self, nonce: int) -> None:
        """`near` sends a Ping to `far`."""
        self.do(self.near, Send(self.far.node, Ping(nonce)))

    def hang_up(self) -> None:
        """`near` closes the link."""
        self.do(self.near, Disconnect(self.far.node, "enough"))

    def wait(self, seconds: float) -> None:
        """Let time go by."""
        self.world.run(self.world.agenda.now + seconds)

    def heard(self) -> list[int]:
        """The nonces that `far` has received."""
        return [event.message.nonce for event in self.log.of(self.far, Received)]

    def split(self) -> None:
        """Put a wall between the two."""
        self.far.island = 1
        self.world.network.mended()

    def heal(self) -> None:
        """Take it away again."""
        self.far.island = 0
        self.world.network.mended()

    def generate(self, tokens_max: int = 20, turns: tuple[Turn, ...] = (Turn("user", "?"),), number: int = 115) -> AttemptId:
        """Let a model of `near` work, on several attempts at once if they have other numbers."""
        attempt = AttemptId(bytes([*range(100, 115), number]))
        request = TaskRequest(attempt, TaskId(b"\xff" * 16), "chat", "", turns, tokens_max, Sampling(), (), 30_000)
        self.do(self.near, Generate(request, "micro"))
        return attempt

    def stop(self, attempt: AttemptId) -> None:
        """Let the model of `near` stop."""
        self.do(self.near, StopGenerating(attempt))


def askers(rate_per_s: int = 4, deadline_s: int = 12, count: int = 4) -> str:
    """Tables of members who ask."""
    return f"""
[[members]]
name = "asker"
count = {count}
[[workload]]
skills = ["chat"]
by = "asker"
rate_per_s = {rate_per_s}
from_s = 8
tokens = [8, 32]
deadline_s = {deadline_s}
"""


def scenario(members: str = "", rest: str = "", seconds: float = 20.0, wired: bool = False) -> Scenario:
    """A small scenario: 12 workers and 4 askers of real members, a task every quarter of a second."""
    tables = (
        members
        or """
[[members]]
name = "worker"
count = 12
skills = ["chat"]
tokens_per_second = [20, 60]
slots = 2
"""
        + askers()
    )
    return parse(
        f'about = "small"\nseconds = {seconds}\nstart_s = 2\nwired = {str(wired).lower()}\n{tables}\n{rest}', "small"
    )
