"""What this node says of itself: its advert when that changes, and a small pulse when its load does or time has passed."""

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Protocol, TypeVar

from protocol import codec
from protocol import limits as lim
from protocol.identity import NodeId
from protocol.messages import Advert, AdvertPush, Message, Pulse, Rumours, Signed
from protocol.parts import Capability
from swarm.effects import AdvertDue, Effect, Provide, Send, SetTimer
from swarm.finding.capabilities import PRESENCE_S, CapabilityIndex
from swarm.settings import Settings
from swarm.values import Subject

JITTER = (0.8, 1.2)
SEAL_BYTES = lim.HEADER_BYTES_MAX + 128  # What an envelope puts around an advert, and room for its load to grow,
PREFIXES_BYTES = lim.PREFIXES_MAX * (lim.PREFIX_BYTES + 2)  # and for these.
WORTH_TELLING = 1.4  # So many times as long, or as short, an answer takes that shares a processor with others.
PREFIXES_PERIOD_S = 20.0  # Between adverts that are issued for new prefixes alone. prefixes.toml: with 60 s a tenth less is held.

_M = TypeVar("_M", bound=Message)


class Notary(Protocol):
    """Signs what this node says to everybody, and proves what others say; `protocol.notary.Notary` is the real one."""

    def sign(self, message: _M, lifetime_s: float, now: float) -> Signed[_M]: ...

    def fault(self, signed: Signed[Message], now: float) -> str: ...


class Issuer:
    """This node's own advert and pulse, and when they are due again. Every neighbour is told of each at once."""

    def __init__(
        self, node: NodeId, name: str, settings: Settings, notary: Notary, dice: Random, index: CapabilityIndex,
        load: Callable[[], tuple[int, int, int]], prefixes: Callable[[], tuple[bytes, ...]],
        neighbours: Callable[[], list[NodeId]],
    ) -> None:  # fmt: skip
        """`load()` gives this node's slots, busy slots and queue length now; `prefixes()` what its models hold that may be told,
        the latest last; `neighbours()` who has a link with it.
        """
        self._node, self._name, self._settings, self._notary, self._dice = node, name, settings, notary, dice
        self._index, self._load, self._prefixes, self._neighbours = index, load, prefixes, neighbours
        self._addresses: tuple[str, ...] = ()
        self._capabilities: tuple[Capability, ...] = ()
        self._draining = self._reserved = self._relays = False
        self._newest_ms = 0  # Versions grow, even when two are issued within a millisecond.
        self._issues = 0
        self._hurried = 0  # The issue after which the next one was brought forward.
        self._told_load = (0, 0)
        self.advert: Signed[Advert] | None = None
        self.pulse: Signed[Pulse] | None = None

    @property
    def version(self) -> int:
        """Of the newest that this node has said."""
        return self._newest_ms

    def start(self, addresses: tuple[str, ...], now: float) -> list[Effect]:
        self._addresses = addresses[: lim.ADDRESSES_MAX]
        self._capabilities = self._fitting(self._capabilities)
        return self.issue(now)

    def move(self, addresses: tuple[str, ...], relays: bool, now: float) -> list[Effect]:
        """Where this node can be dialled, or whether it carries links for others, has changed."""
        if self.advert is None or (addresses, relays) == (self._addresses, self._relays):
            return []
        self._addresses, self._relays = addresses, relays
        self._capabilities = self._fitting(self._capabilities)
        return self.issue(now)

    def offer(self, capabilities: tuple[Capability, ...], now: float) -> list[Effect]:
        """What this node's models can do has changed: everybody near hears it at once."""
        self._capabilities = self._fitting(capabilities[: lim.CAPABILITIES_MAX])
        return [Provide(_subjects(self._capabilities)), *self.issue(now)]

    def reserve(self, reserved: bool, now: float) -> list[Effect]:
        """The owner wants the machine for itself, or not any more: everybody near hears it at once."""
        if reserved == self._reserved:
            return []
        self._reserved = reserved
        return self._beat(now) if self.advert is not None else []

    def leave(self, now: float) -> list[Effect]:
        """The last word: forget this node."""
        self._draining = True
        return self._beat(now, leaving=True) if self.advert is not None else []

    def issue(self, now: float) -> list[Effect]:
        """A new version of this node's advert."""
        slots, busy, queued = (min(count, lim.SLOTS_MAX) for count in self._load())
        advert = Advert(
            self._name, self._addresses, self._capabilities, slots, busy, queued, self._draining or self._reserved, self._relays,
            self._told_prefixes(),
        )  # fmt: skip
        self.advert = self._notary.sign(advert, self._settings.advert_lifetime_s, self._next_version(now))
        self.pulse = None
        self._index.learn(self.advert, now, True)
        return self._said((busy, queued), AdvertPush((self.advert,)))

    def due(self, timer: AdvertDue, now: float) -> list[Effect]:
        if timer.version != self._issues or self.advert is None:
            return []
        age_s = now - self.advert.issued_at_ms / 1000
        return self.issue(now) if age_s >= self._settings.advert_period_s else self._beat(now)

    def load_changed(self, now: float) -> list[Effect]:
        """Tell when this node fills up or has room again, and when its queue has changed; of a long one, when it has by half.

        And, now and then, what its models have read.
        """
        if self.advert is None:
            return []
        age_s, told = now - self.advert.issued_at_ms / 1000, self.advert.body.prefixes
        if age_s >= PREFIXES_PERIOD_S and not set(self._told_prefixes()).issubset(told):
            return self.issue(now)
        slots, busy, queued = self._load()
        return self.speak(now) if _differs(slots, self._parallel, self._told_load, (busy, queued)) else []

    @property
    def _parallel(self) -> float:
        """How many answers at a time all models write as fast as one alone."""
        models = {offered.model: offered.parallel for offered in self._capabilities}
        return sum(models.values()) or float("inf")

    def speak(self, now: float) -> list[Effect]:
        """Give a sign of life, at once or as soon as the last one is old enough."""
        gap_s = now - self._newest_ms / 1000
        if gap_s >= self._settings.pulse_gap_s:
            return self._beat(now)
        if self._hurried == self._issues:
            return []
        self._hurried = self._issues  # Soon enough, and with what is true then.
        return [SetTimer(min(self._settings.pulse_gap_s, self._settings.pulse_gap_s - gap_s), AdvertDue(self._issues))]

    def overtaken(self, version: int, now: float) -> None:
        """A greater version of this node's own is about: what it says next must be newer, as far as others would believe it."""
        ahead_ms = round(now * 1000) + lim.CLOCK_SKEW_MS_MAX // 2
        self._newest_ms = max(self._newest_ms, min(version, ahead_ms))

    def _told_prefixes(self) -> tuple[bytes, ...]:
        told = self._settings.prefixes_told
        return self._prefixes()[-told:] if told else ()

    def _beat(self, now: float, leaving: bool = False) -> list[Effect]:
        assert self.advert is not None
        _, busy, queued = (min(count, lim.SLOTS_MAX) for count in self._load())
        pulse = Pulse(self.advert.issued_at_ms, busy, queued, self._draining or self._reserved, leaving)
        self.pulse = self._notary.sign(pulse, PRESENCE_S, self._next_version(now))
        self._index.beat(self.pulse, now, True)
        return self._said((busy, queued), Rumours((self.pulse,), ()))

    def _said(self, load: tuple[int, int], told: Message) -> list[Effect]:
        self._issues += 1
        self._told_load = load
        due_s = self._settings.pulse_period_s * self._dice.uniform(*JITTER)
        return [SetTimer(due_s, AdvertDue(self._issues)), *[Send(node, told) for node in self._neighbours()]]

    def _next_version(self, now: float) -> float:
        self._newest_ms = max(round(now * 1000), self._newest_ms + 1)
        return self._newest_ms / 1000

    def _fitting(self, capabilities: tuple[Capability, ...]) -> tuple[Capability, ...]:
        """The capabilities as they fit into one advert: if they are too long, the last ones lose their texts first."""
        fitted = list(capabilities)
        for at in reversed(range(len(fitted))):
            advert = Advert(self._name, self._addresses, tuple(fitted), 0, 0, 0, False)
            if len(codec.encode(advert)) <= lim.ADVERT_BYTES_MAX - SEAL_BYTES - PREFIXES_BYTES:
                break
            fitted[at] = replace(fitted[at], description="", labels=())
        return tuple(fitted)


def _subjects(capabilities: tuple[Capability, ...]) -> tuple[Subject, ...]:
    """What a node with these is found under: its skills, then its models' files, then their names."""
    skills = [Subject(skill=skill) for skill in sorted({offered.skill for offered in capabilities})]
    files = [Subject(digest=digest) for digest in sorted({offered.digest for offered in capabilities}) if digest]
    names = [Subject(model=model) for model in sorted({offered.model for offered in capabilities}) if model]
    return (*skills, *files, *names)


def _differs(slots: int, parallel: float, told: tuple[int, int], now: tuple[int, int]) -> bool:
    """Whether a load is worth telling: the last slot was taken or given back, one more answer takes quite another time, or the
    queue is another.
    """
    if (told[0] >= slots) != (now[0] >= slots):
        return True
    longer = (parallel + now[0]) / (parallel + told[0])
    if parallel < slots and not 1 / WORTH_TELLING < longer < WORTH_TELLING:
        return True
    if min(told[1], now[1]) <= slots:
        return told[1] != now[1]
    return not told[1] / 2 <= now[1] <= 2 * told[1]
