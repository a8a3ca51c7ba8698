"""Messages as the bytes of `protocol.link`: signed, framed, cut into chunks that do not respect frames, and read again."""

from random import Random

from protocol.identity import NodeId
from protocol.link import Link
from protocol.messages import Hello
from simulations.agenda import Agenda
from simulations.network import End
from swarm.events import NeighbourUp, Received

AGENT = "starlings/simulation"


class Wire:
    """Makes links that cross as bytes, in worlds small enough for signatures."""

    def __init__(self, agenda: Agenda, swarm: bytes, dice: Random) -> None:
        self._agenda, self._swarm, self._dice = agenda, swarm, dice

    def __call__(self, near: End, far: End) -> bytes:
        """Both ends' links, after the dialler's Hello has been read; the far end's Hello, on its way back."""
        near.wire, far.wire = self._link(near), self._link(far)
        (hello,) = far.wire.receive(self._hello(near, near.wire), self._clock(far))
        assert isinstance(hello, Hello)
        return self._hello(far, far.wire)

    def read(self, end: End, chunk: bytes) -> list[NeighbourUp | Received]:
        """The events in a chunk. Raises RemoteProtocolError, which in a world without liars is a bug."""
        assert end.wire is not None
        cut = self._dice.randrange(len(chunk))  # TCP does not keep frames together.
        now = self._clock(end)
        messages = [*end.wire.receive(chunk[:cut], now), *end.wire.receive(chunk[cut:], now)]
        return [self._event(end, message) for message in messages]

    def _event(self, end: End, message: object) -> NeighbourUp | Received:
        if isinstance(message, Hello):
            return NeighbourUp(end.peer, message.name, message.addresses, end.dialled, end.seen, end.relay_node)
        return Received(end.peer, message)  # type: ignore[arg-type]

    def _link(self, end: End) -> Link:
        identity = end.process.machine.identity
        assert identity is not None
        return Link(identity, NodeId(end.peer), self._swarm, self._dice)

    def _hello(self, end: End, link: Link) -> bytes:
        process = end.process
        return link.hello(process.machine.name, AGENT, process.addresses, self._clock(end))

    def _clock(self, end: End) -> float:
        return end.process.epoch + self._agenda.now
