"""Links between processes: how long messages take, what a partition holds up, and how links come and go.

A link is a TCP connection: in order, and reliable while it is up. Loss is therefore delay, a crash is a reset, and a partition
is silence: what is sent waits until the partition heals or one of the two ends gives the link up. `node/transport.py` says what
a member may rely on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from heapq import heappush
from math import hypot
from random import Random
from typing import Any

from protocol.envelope import SWARM_BYTES
from protocol.errors import RemoteProtocolError
from protocol.exchange import TASK_MESSAGES, Exchanges
from protocol.identity import NodeId
from protocol.link import Link
from protocol.messages import Message
from simulations.agenda import Agenda
from simulations.machines import Machine, Process
from simulations.scenario import NetworkTable
from simulations.sizes import Sizes
from swarm.effects import Dial, DialBack
from swarm.events import (
    CarriedChanged,
    DialFailed,
    DialledBack,
    NeighbourDown,
    NeighbourUp,
    Received,
    RelayChanged,
    Undelivered,
)
from swarm.finding.places import is_relayed
from swarm.values import Contact

HANDSHAKE_TRIPS = 3  # One-way trips until the peer has our Hello: TCP and Noise, and the Hello itself on top.
UNKNOWN_ADDRESS_S = 0.05  # A name server says no.
STAGGER_S = 0.25  # A circuit is tried this much later than the address before it.
RETRANSMIT_S = 0.2  # Linux waits this long at least before it sends a lost segment again.
HEAL_S_MAX = 15.0  # TCP doubles its wait between tries, so a link that stalled notices late that the way is free again.
WAITING_MAX = 64  # Messages held for one dial; the real links hold as many.
STALLED_MAX = 4096  # Messages on a stalled link before our side gives it up, as the real outbox does after 2 MB.
MAP_DIAGONAL = hypot(1.0, 1.0)

CLOSED_BY_PEER = "The peer closed the connection."
RESET = "The peer's machine reset the connection."
RELAY_GONE = "The relay closed the circuit."
REPLACED = "The peer opened a new connection."
NOT_READING = "The peer does not read what is sent to it."


@dataclass(slots=True, eq=False)
class DialUnderWay:
    """One dial, and who asked for it, until the link is up or the dial has failed."""

    machine: Machine
    address: str
    contacts: list[Contact]
    began: float
    relay: Machine | None = None
    upgrade: bool = False
    waiting: list[Message] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class End:
    """One process's end of a link. `up` turns true when the process has been told NeighbourUp."""

    process: Process
    peer: NodeId
    dialled: str
    latency_s: float
    other: End = None  # type: ignore[assignment]  # Set as soon as both ends are made, and gone with the link.
    wire: Link | None = None
    exchanges: Exchanges | None = None  # Most links never carry a task.
    open: bool = True
    up: bool = False
    last_at: float = 0.0
    stalled: list[Any] = field(default_factory=list)
    stalled_at: float = 0.0
    orphaned: bool = False  # The other end vanished without a word.
    relay: Process | None = None  # Who carries it, if it is not direct.

    @property
    def relay_node(self) -> NodeId | None:
        return None if self.relay is None else self.relay.node

    @property
    def seen(self) -> str:
        """Where this end sees the other."""
        return "" if self.relay is not None else self.other.process.machine.addresses[0]


class Network:
    """Every link of a world. Counts what is sent."""

    def __init__(
        self, agenda: Agenda, table: NetworkTable, machines: Sequence[Machine], dice: Random, wire: WireMaker | None,
        swarm: bytes = bytes(SWARM_BYTES),
    ) -> None:  # fmt: skip
        """`wire` makes both ends' `Link`s in worlds where every message crosses as bytes."""
        self._agenda, self._table, self._dice, self._wire = agenda, table, dice, wire
        self._by_address = {address: machine for machine in machines for address in machine.addresses}
        self._stalled: list[End] = []
        self._carried: list[End] = []  # Ends of links through relays.
        self._loss, self._jitter = table.loss, table.jitter
        self.task_classes = frozenset(TASK_MESSAGES)
        self.sent: dict[type[Message], int] = {}
        self.refused: dict[str, int] = {}  # Greetings, by offence.
        self._sizes = Sizes(swarm)
        self.bytes = 0  # Of messages that are not encoded, what they would take.

    # --- What a process asks for --------------------------------------------------------------------------------------

    def send(self, process: Process, to: NodeId, message: Message) -> None:
        """Put a message on its link, or keep it for a dial under way, or say Undelivered."""
        end = process.links.get(to)
        if end is not None and end.up:
            self._put(end, message)
            return
        dial = process.dials.get(to)
        if dial is not None and len(dial.waiting) < WAITING_MAX:
            dial.waiting.append(message)
        else:
            self._agenda.post(0.0, process, Undelivered(to, message))

    def dial(self, process: Process, dial: Dial) -> None:
        """Ends in NeighbourUp or DialFailed; in neither if the link is up already."""
        contact = dial.contact
        address = next((text for text in contact.addresses if text in self._by_address), None)
        machine = self._by_address.get(address or "")
        relay: Machine | None = None
        if machine is None or machine.hidden:
            for text in () if dial.upgrade else filter(is_relayed, contact.addresses):
                before, _, behind = text.partition("/p2p-circuit")
                address, relay, machine = text, self._by_address.get(before), self._by_address.get(behind)
                if relay is not None and relay.process is not None:
                    break  # All are tried, one soon after the other.
        if address is None and any(text.startswith("/ip4/") for text in contact.addresses):
            # Somebody made it up: packets go nowhere.
            self._agenda.post(self._table.dial_limit_s, process, DialFailed(contact, "No answer."))
            return
        if address is None or machine is None or machine.node != (contact.node or machine.node):
            self._agenda.post(UNKNOWN_ADDRESS_S, process, DialFailed(contact, "Nothing answers there."))
            return
        if machine.node == process.node:
            self._agenda.post(0.0, process, DialFailed(contact, f"{address} is this node itself."))
            return
        end = process.links.get(machine.node)
        if end is not None and end.up and not (dial.upgrade and end.relay is not None):
            return
        known = process.dials.get(machine.node)
        if known is not None:
            known.contacts.append(contact)
            return
        under_way = DialUnderWay(machine, address, [contact], self._agenda.now, relay, dial.upgrade)
        process.dials[machine.node] = under_way
        trips_s = HANDSHAKE_TRIPS * self._way_s(process.machine, relay, machine) + (STAGGER_S if relay else 0.0)
        self._agenda.call(trips_s, partial(self._knock, process, under_way))

    def dial_back(self, process: Process, dial: DialBack) -> None:
        """Ends in DialledBack."""
        machine = next((found for text in dial.addresses if (found := self._by_address.get(text))), None)
        open = machine is not None and not machine.hidden and machine.node == dial.node and machine.process is not None
        reached = dial.addresses if open and machine and machine.island == process.machine.island else ()
        took_s = 2.0 * self.latency_s(process.machine, machine) if machine and reached else self._table.dial_limit_s
        self._agenda.post(took_s, process, DialledBack(dial.node, reached))

    def use_relays(self, process: Process, nodes: tuple[NodeId, ...]) -> None:
        """RelayChanged follows for each that was not in use before."""
        for node in [node for node in process.relays if node not in nodes]:
            del process.relays[node]
            end = process.links.get(node)
            if end is not None and end.up and end.other.open:
                self._release(end.other.process, process.node)
        for node in nodes:
            if node not in process.relays:
                process.relays[node] = None
                end = process.links.get(node)
                delay_s = 2.0 * end.latency_s if end is not None else 0.0
                self._agenda.call(delay_s, partial(self._reserve, process, node))

    def _reserve(self, process: Process, node: NodeId) -> None:
        if not process.open or node not in process.relays:
            return
        end = process.links.get(node)
        relay = end.other.process if end is not None and end.up and end.other.open else None
        if relay is None or relay.frozen_at is not None or len(relay.carried) >= relay.machine.carries:
            del process.relays[node]
            self._agenda.post(0.0, process, RelayChanged(node, ()))
            return
        relay.carried[process.node] = None
        self._agenda.post(0.0, relay, CarriedChanged(tuple(relay.carried)))
        circuit = f"{relay.machine.addresses[0]}/p2p-circuit{process.machine.addresses[0]}"
        self._agenda.post(0.0, process, RelayChanged(node, (circuit,)))

    def _release(self, relay: Process, node: NodeId) -> None:
        """A relay does not carry for a node any more, and ends what it carried."""
        if relay.carried.pop(node, 0) == 0:
            return
        self._agenda.post(0.0, relay, CarriedChanged(tuple(relay.carried)))
        for end in [end for end in self._carried if end.relay is relay and end.process.node == node]:
            self._cut(end)

    def _cut(self, end: End) -> None:
        """Both ends of a carried link hear that it is over."""
        for each in (end, end.other):
            if each is not None and each.open and each.up:
                self._drop(each, RELAY_GONE)

    def disconnect(self, process: Process, node: NodeId, cause: str) -> None:
        """Close our end now; the peer hears of it behind all that was sent before."""
        end = process.links.get(node)
        if end is None or not end.up:
            return
        self._carry(end, NeighbourDown(process.node, CLOSED_BY_PEER))
        self._drop(end, cause)

    # --- What happens to links ----------------------------------------------------------------------------------------

    def reached(self, end: End, event: NeighbourUp | NeighbourDown) -> None:
        """A link changes at the end where this event arrives."""
        process = end.process
        if isinstance(event, NeighbourDown):
            self._ended(end)
            end.open = False
            if process.links.get(end.peer) is end:
                del process.links[end.peer]
            end.stalled.clear()
            end.other = None  # type: ignore[assignment]  # No cycle for the garbage collector.
        elif not end.up:  # The side that was dialled is up from the moment the link is made.
            end.up = True
            for message in process.dials.pop(end.peer).waiting:
                self._put(end, message)

    def crashed(self, process: Process, silently: bool) -> None:
        """The process is gone. Its kernel resets its links, unless the kernel is gone as well or nobody can hear it."""
        for end in [end for end in self._carried if end.relay is process and end.open]:
            if not silently:
                self._cut(end)
        for end in list(process.links.values()):
            self._ended(end)
            end.open = False
            if silently or _apart(end):
                end.other.orphaned = True
            elif end.other.open:
                self._carry(end, NeighbourDown(process.node, RESET))
        process.links.clear()
        process.dials.clear()

    def mended(self) -> None:
        """Islands have changed: what is stalled goes on where the way is free."""
        stalled, self._stalled = self._stalled, []
        for end in stalled:
            if not end.process.open or not end.stalled:
                end.stalled.clear()
            elif _apart(end):
                self._stalled.append(end)
            else:
                items, end.stalled = end.stalled, []
                waited_s = min(HEAL_S_MAX, self._agenda.now - end.stalled_at)
                end.last_at = max(end.last_at, self._agenda.now + RETRANSMIT_S + self._dice.uniform(0.0, waited_s))
                for item in items:
                    self._carry(end, item)

    # --- Inside -------------------------------------------------------------------------------------------------------

    def _put(self, end: End, message: Message) -> None:
        if end.wire is not None:
            chunk = end.wire.send(message, end.process.epoch + self._agenda.now)
            if not chunk:
                return
            self.bytes += len(chunk)
            item: Any = chunk
        else:
            if message.__class__ in self.task_classes and not exchanges_of(end).sent(message):  # type: ignore[arg-type]
                return
            self.bytes += self._sizes.of(message)
            item = Received(end.process.node, message)
        kind = message.__class__
        self.sent[kind] = self.sent.get(kind, 0) + 1
        self._carry(end, item)

    def _carry(self, end: End, item: Any) -> None:
        """Bring an item to the other end, behind all that went before it."""
        other = end.other
        if end.stalled or _apart(end):
            self._stall(end, item)
            return
        roll = self._dice.random()
        delay_s = end.latency_s * (1.0 + self._jitter * roll)
        if roll < self._loss:
            delay_s += RETRANSMIT_S + 2.0 * end.latency_s
        agenda = self._agenda
        at = agenda.now + delay_s
        if at < end.last_at:
            at = end.last_at
        else:
            end.last_at = at
        if end.orphaned:
            self._reset(end)
        heappush(agenda.heap, (at, next(agenda.order), other, item))

    def _stall(self, end: End, item: Any) -> None:
        if not end.stalled:
            end.stalled_at = self._agenda.now
            self._stalled.append(end)
        end.stalled.append(item)
        if len(end.stalled) >= STALLED_MAX and end.open and end.up:
            self._drop(end, NOT_READING)

    def _reset(self, end: End) -> None:
        """The machine of a process that vanished is back, and knows nothing of this link."""
        machine = end.other.process.machine
        if machine.has_power:
            end.orphaned = False
            self._agenda.post(2.0 * end.latency_s, end, NeighbourDown(end.peer, RESET))

    def _drop(self, end: End, cause: str) -> None:
        """Our own end is over, and our process is told."""
        self._ended(end)
        end.open = False
        del end.process.links[end.peer]
        self._agenda.post(0.0, end.process, NeighbourDown(end.peer, cause))

    def _ended(self, end: End) -> None:
        """One end is over: nobody is carried over it any more."""
        if end.relay is not None:
            self._carried = [each for each in self._carried if each is not end]
        elif end.process.carried:
            self._release(end.process, end.peer)

    def _knock(self, process: Process, dial: DialUnderWay) -> None:
        """Our Hello reaches the machine that was dialled."""
        machine = dial.machine
        if not process.open or process.dials.get(machine.node) is not dial:
            return  # Crashed since; or the peer's own dial was faster, and its link serves both.
        there = machine.process
        frozen = process.frozen_at is not None or (there is not None and there.frozen_at is not None)
        if dial.relay is not None:
            carrier = dial.relay.process
            leads = carrier is not None and carrier.frozen_at is None and machine.node in carrier.carried
            apart = not leads or len({process.machine.island, dial.relay.island, machine.island}) > 1
        else:
            apart = machine.hidden or process.machine.island != machine.island
        if frozen or not machine.has_power or apart:
            left_s = max(0.0, self._table.dial_limit_s - (self._agenda.now - dial.began))
            self._agenda.call(left_s, partial(self._fail, process, dial, "No answer."))
        elif there is None:
            latency_s = self.latency_s(process.machine, machine)
            self._agenda.call(latency_s, partial(self._fail, process, dial, "Connection refused."))
        else:
            self._connect(process, there, dial)

    def _connect(self, process: Process, there: Process, dial: DialUnderWay) -> None:
        old = process.links.get(there.node)
        if old is not None and old.relay is not None:
            self._drop(old, REPLACED)  # Whoever upgrades a link lets go of the old one first.
        latency_s = self._way_s(process.machine, dial.relay, there.machine)
        near = End(process, there.node, dial.address, latency_s)
        far = End(there, process.node, "", latency_s)
        near.other, far.other = far, near
        try:
            hello = b"" if self._wire is None else self._wire(near, far)
        except RemoteProtocolError as refused:
            self.refused[refused.kind] = self.refused.get(refused.kind, 0) + 1
            self._agenda.call(latency_s, partial(self._fail, process, dial, CLOSED_BY_PEER))
            return
        stale = there.links.get(process.node)
        if stale is not None:
            if stale.other is not None and stale.other.open and stale.other.process is not process:
                self._carry(stale, NeighbourDown(there.node, CLOSED_BY_PEER))  # It was that of a second node with this identity.
            self._drop(stale, REPLACED)  # Whoever dials has no link: ours leads nowhere.
        if dial.relay is not None:
            near.relay = far.relay = dial.relay.process
            self._carried += [near, far]
        process.links[there.node], there.links[process.node] = near, far
        far.up = True
        ours, theirs = process.machine, there.machine
        up = NeighbourUp(ours.node, ours.name, process.addresses, "", far.seen, far.relay_node)
        self._agenda.post(0.0, far, up)
        if self._wire is None:
            up = NeighbourUp(theirs.node, theirs.name, there.addresses, dial.address, near.seen, near.relay_node)
            self._carry(far, up)
        else:
            self.bytes += len(hello)
            self._carry(far, hello)
        crossed = there.dials.pop(process.node, None)
        if crossed is not None:
            for message in crossed.waiting:
                self._put(far, message)

    def _fail(self, process: Process, dial: DialUnderWay, cause: str) -> None:
        node = dial.machine.node
        if not process.open or process.dials.get(node) is not dial:
            return
        del process.dials[node]
        if dial.upgrade:
            return
        for message in dial.waiting:
            self._agenda.post(0.0, process, Undelivered(node, message))
        for contact in dial.contacts:
            self._agenda.post(0.0, process, DialFailed(contact, cause))

    def _way_s(self, one: Machine, relay: Machine | None, two: Machine) -> float:
        if relay is None:
            return self.latency_s(one, two)
        return self.latency_s(one, relay) + self.latency_s(relay, two)

    def latency_s(self, one: Machine, two: Machine) -> float:
        least, most = self._table.latency_ms
        return (least + (most - least) * hypot(one.x - two.x, one.y - two.y) / MAP_DIAGONAL) / 1000.0


def exchanges_of(end: End) -> Exchanges:
    """The attempts open between the two, as this end sees them."""
    if end.exchanges is None:
        end.exchanges = Exchanges()
    return end.exchanges


WireMaker = Callable[[End, End], bytes]
"""Gives both ends their protocol.link.Link, brings the dialler's Hello to the far end, and returns the far end's Hello."""


def _apart(end: End) -> bool:
    island = end.process.machine.island
    if island != end.other.process.machine.island:
        return True
    relay = end.relay
    return relay is not None and (not relay.open or relay.frozen_at is not None or relay.machine.island != island)
