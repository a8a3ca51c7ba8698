"""Plays transcripts: commands to a small world of members, and after `----` every effect that every member wanted.

A transcript is written by the machine and read by a person, in the manner of etcd-io/raft's interaction tests. A block is one
or more commands, `----`, and what came of them up to the next empty line; lines that start with `#` are for the reader.
`pytest --rewrite` writes the answers anew: read the difference before it is committed.

    node NAME [SKILL:MODEL[:TOKENS_PER_SECOND[:SLOTS]]]… [SETTING=NUMBER]…    start a node, or a new run of a killed one
    join A B            the user of A gives B's address         provider SKILL NAME   the DHT knows NAME for SKILL
    ask A TASK SKILL TEXT [deadline=S] [model=M] [worker=NAME] [tokens=N] [privacy=local]       cancel A TASK
    generate A TEXT     A's model writes, for the oldest        finish A              … and is done       fail A [REASON]
    halt A              A's model obeys what it was told to stop
    advance SECONDS     let time pass                           late A SECONDS        A's loop notices that it ran late
    kill A              the process ends, its links close       freeze A / thaw A     it stands still, its links stay open
    stop A              the user stops A                        drop A B              the link between them breaks
    hold A B            what A sends to B waits on its way      release A B           … and arrives
    route A SKILL       a dry run at A                          known A               whose adverts A believes
    hide finding        from here on leave out pings, adverts and the timers of finding; `show finding` undoes it
"""

import shlex
from dataclasses import fields, replace
from hashlib import sha256

from protocol.errors import BACKEND_FAILED
from protocol.messages import (
    AdvertDigest,
    AdvertPull,
    AdvertPush,
    AdvertWant,
    Ping,
    Pong,
    ReachAnswer,
    ReachAsk,
    Rumours,
)
from protocol.parts import AttemptId, Sampling, TaskId, Turn
from swarm import effects as fx
from swarm.effects import Effect
from swarm.events import (
    AskCancelled,
    Asked,
    ContactsFound,
    Event,
    GenerationFailed,
    GenerationFinished,
    LoopLate,
    PieceGenerated,
    Stopping,
)
from swarm.settings import Settings
from swarm.values import MEMBERSHIP, Contact, Privacy, Routing, Subject, Task, Usage
from tests.swarm.small_world import EPOCH_S, Node, SmallWorld, address, capability, identity
from tests.swarm.telling import Teller

STEPS_MAX = 5_000  # Deliveries in one command; more is a loop between two members.
FINDING_TIMERS = (fx.GossipDue, fx.AdvertDue, fx.SweepDue, fx.PongOverdue, fx.DigestDue, fx.SuspectDue, fx.BurialDue)
FINDING_MESSAGES = (Ping, Pong, AdvertPush, AdvertPull, AdvertDigest, AdvertWant, Rumours, ReachAsk, ReachAnswer)


def play(text: str) -> str:
    """The transcript with its answers written anew."""
    player = _Player()
    blocks = []
    for block in text.strip("\n").split("\n\n"):
        asked = block.split("\n----")[0]
        commands = [line for line in asked.splitlines() if line and not line.startswith("#")]
        if not commands:
            blocks.append(asked)
            continue
        blocks.append("\n".join([asked, "----", *player.run(commands)]))
    return "\n\n".join(blocks) + "\n"


class _Player:
    def __init__(self) -> None:
        self._world = SmallWorld(self._observe)
        self._teller = Teller(self._name)
        self._held: list[tuple[str, str, str]] = []
        self._lines: list[str] = []
        self._hides_finding = False

    def run(self, commands: list[str]) -> list[str]:
        self._lines = []
        for command in commands:
            verb, *words = shlex.split(command)
            getattr(self, f"_do_{verb}")(*words)
            self._settle()
        return self._lines or ["(nothing)"]

    # --- Nodes and links ----------------------------------------------------------------------------------------------

    def _do_node(self, name: str, *words: str) -> None:
        numbers = {field.name: float if field.type is float else int for field in fields(Settings)}
        given = dict(word.split("=") for word in words if "=" in word)
        settings = replace(Settings(), **{key: numbers[key](value) for key, value in given.items()})
        offered = []
        for word in words:
            if "=" not in word:
                skill, model, *rest = word.split(":")
                speed, slots = [*rest, "20", "1"][0], [*rest[1:], "1"][0]
                offered.append(capability(skill, model, tokens_per_second=float(speed), slots=int(slots)))
        self._world.start(name, settings, tuple(offered))

    def _do_join(self, name: str, other: str) -> None:
        self._post(name, ContactsFound("join", MEMBERSHIP, (Contact(None, (address(other),)),)))

    def _do_provider(self, skill: str, name: str) -> None:
        self._world.providers.setdefault(Subject(skill), []).append(name)

    def _do_kill(self, name: str) -> None:
        self._world.kill(self._world.nodes[name])

    def _do_freeze(self, name: str) -> None:
        self._world.nodes[name].frozen = True

    def _do_thaw(self, name: str) -> None:
        self._world.thaw(self._world.nodes[name])

    def _do_stop(self, name: str) -> None:
        self._post(name, Stopping())
        self._settle()
        self._do_kill(name)

    def _do_drop(self, name: str, other: str) -> None:
        nodes = self._world.nodes
        self._world.break_link(nodes[name], nodes[other], "the connection broke")

    def _do_hold(self, name: str, other: str) -> None:
        self._held.append(("link", name, other))

    def _do_release(self, name: str, other: str) -> None:
        self._held.remove(("link", name, other))

    # --- Tasks --------------------------------------------------------------------------------------------------------

    def _do_ask(self, name: str, label: str, skill: str, text: str, *words: str) -> None:
        wishes = dict(word.split("=") for word in words)
        worker = wishes.get("worker")
        task = Task(
            id=self._task(label),
            skill=skill,
            turns=(Turn("user", text),),
            model=wishes.get("model", ""),
            tokens_max=int(wishes.get("tokens", "64")),
            sampling=Sampling(),
            stops=(),
            deadline_s=float(wishes.get("deadline", "60")),
            privacy=Privacy(wishes.get("privacy", "swarm")),
            worker=identity(worker).node if worker else None,
        )
        self._post(name, Asked(task))

    def _do_cancel(self, name: str, label: str) -> None:
        self._post(name, AskCancelled(self._task(label)))

    def _do_route(self, name: str, skill: str) -> None:
        node = self._world.nodes[name]
        task = Task(TaskId(b"dry run"), skill, (), "", 64, Sampling(), (), 60.0, Privacy.SWARM, None)
        routing: Routing = node.member.route(task)
        self._lines += [f"{node.name}  {self._teller.routing(routing)}"]

    def _do_known(self, name: str) -> None:
        node = self._world.nodes[name]
        self._lines += [f"{node.name}  knows {self._teller.signed(known.signed)}" for known in node.member.index]

    # --- Models -------------------------------------------------------------------------------------------------------

    def _do_generate(self, name: str, text: str) -> None:
        self._post(name, PieceGenerated(self._oldest(name), text))

    def _do_finish(self, name: str) -> None:
        usage = Usage("stop", 8, 4, 0.1, 0.3)
        self._world.end_generation(self._world.nodes[name], GenerationFinished(self._oldest(name), usage))

    def _do_fail(self, name: str, reason: str = "the model has crashed") -> None:
        failed = GenerationFailed(self._oldest(name), BACKEND_FAILED.number, reason)
        self._world.end_generation(self._world.nodes[name], failed)

    def _do_halt(self, name: str) -> None:
        self._world.obey_stops(self._world.nodes[name])

    # --- Time ---------------------------------------------------------------------------------------------------------

    def _do_advance(self, seconds: str) -> None:
        until = self._world.now + float(seconds)
        while self._world.next_timer_at() <= until:
            self._world.fire_next_timer()
            self._settle()
        self._world.now = until

    def _do_late(self, name: str, seconds: str) -> None:
        self._post(name, LoopLate(float(seconds)))

    # --- What is shown ------------------------------------------------------------------------------------------------

    def _do_hide(self, what: str) -> None:
        assert what == "finding"
        self._hides_finding = True

    def _do_show(self, what: str) -> None:
        assert what == "finding"
        self._hides_finding = False

    def _observe(self, node: Node, event: Event, wanted: list[Effect]) -> None:
        at = f"{self._world.now - EPOCH_S:7.2f} {node.name:4}"
        self._teller.learn(wanted)
        for effect in wanted:
            if not (self._hides_finding and _is_finding(effect)):
                self._lines.append(f"{at}  {self._teller.effect(effect)}")

    # --- Inside -------------------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Let everything arrive that is on its way and not held."""
        for _ in range(STEPS_MAX):
            pending = [found for found in self._world.pending() if found not in self._held]
            if not pending:
                return
            self._world.let(pending[0])
        raise AssertionError(f"still busy after {STEPS_MAX} deliveries: {pending}")

    def _post(self, name: str, event: Event) -> None:
        self._world.post(self._world.nodes[name], event)

    def _oldest(self, name: str) -> AttemptId:
        return next(iter(self._world.nodes[name].generations))

    def _name(self, node: bytes) -> str:
        ends = {bytes(32): "the first", b"\xff" * 32: "the last"}  # The range of a digest.
        return next((known.name for known in self._world.nodes.values() if known.id == node), ends.get(node, node.hex()))

    def _task(self, label: str) -> TaskId:
        task = TaskId(sha256(label.encode()).digest()[:16])
        self._teller.labels[task] = label
        return task


def _is_finding(effect: Effect) -> bool:
    match effect:
        case fx.Send(_, message):
            return isinstance(message, FINDING_MESSAGES)
        case fx.SetTimer(_, timer):
            return isinstance(timer, FINDING_TIMERS)
        case fx.Provide():
            return True
    return False
