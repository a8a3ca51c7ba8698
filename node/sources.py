"""What is known of one model source, and who is loaded next."""

from dataclasses import dataclass, field

import trio

from node.backends import Backend
from node.backends.references import without_secrets
from node.views import ModelView
from protocol.parts import Capability


@dataclass(eq=False, slots=True)
class Source:
    """One reference, and the backend that it has now. `resting`: out of memory, and loaded when somebody asks for it; `leaving`: on
    its way there.
    """

    ref: str
    pinned: bool
    backend: Backend | None = None
    state: str = "loading"
    detail: str = ""
    note: str = ""  # What it cannot do, in words for people.
    capabilities: tuple[Capability, ...] = ()
    able: bool = True  # Whether the backend can work now; a process that is being restarted cannot.
    memory_bytes: int = 0  # What it took when it was last loaded, and
    load_s: float = 0.0  # how long that was.
    used_at: float = 0.0
    active: int = 0  # Attempts that need it;
    working: int = 0  # those of them that have it.
    has_worked: bool = False  # Since it was loaded last.
    failures: int = 0  # To load it again, in a row.
    settled: trio.Event = field(default_factory=trio.Event)  # It has been ready, or has failed.
    changed: trio.Event = field(default_factory=trio.Event)  # Of the state; a new one each time.
    wanted: trio.Event = field(default_factory=trio.Event)  # It shall be loaded,
    dismissed: trio.Event = field(default_factory=trio.Event)  # or leave memory.
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)  # It is removed.

    @property
    def names(self) -> set[str]:
        """What a user may call it."""
        return {self.ref, without_secrets(self.ref), *(offered.model for offered in self.capabilities)}

    @property
    def rest_ms(self) -> int:
        """What being out of memory adds to the first token."""
        return 0 if self.state == "ready" else round(self.load_s * 1000)

    @property
    def shown_state(self) -> str:
        """As people see it."""
        if self.state == "ready" and not self.able:
            return "restarting"
        return "resting" if self.state == "leaving" else self.state

    def set(self, state: str, detail: str = "") -> None:
        self.state, self.detail = state, detail
        self.stir()

    def stir(self) -> None:
        """Let those look again who wait for a change."""
        self.changed.set()
        self.changed = trio.Event()

    @property
    def view(self) -> ModelView:
        fastest = max(self.capabilities, key=lambda offered: offered.tokens_per_second, default=None)
        return ModelView(
            ref=without_secrets(self.ref),
            model=fastest.model if fastest else "",
            state=self.shown_state,
            detail=self.detail,
            skills=[offered.skill for offered in self.capabilities],
            tokens_per_second=fastest.tokens_per_second if fastest else None,
            first_token_ms=fastest.first_token_ms if fastest else None,
            memory_bytes=self.memory_bytes,
            pinned=self.pinned,
        )


class LoadQueue:
    """Those that are to be loaded, one at a time: so its speed is measured undisturbed, and memory counted."""

    def __init__(self) -> None:
        self._waiting: list[Source] = []
        self._moved = trio.Event()

    def join(self, source: Source) -> None:
        self._waiting.append(source)

    def leave(self, source: Source) -> None:
        """Whether its turn has come or not."""
        if source in self._waiting:
            self._waiting.remove(source)
            self._moved.set()
            self._moved = trio.Event()

    async def wait_turn(self, source: Source) -> None:
        """Until all are gone that have joined before."""
        while self._waiting[0] is not source:
            await self._moved.wait()
