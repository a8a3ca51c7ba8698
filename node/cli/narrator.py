"""Tells what the daemon reports while it starts: to people as lines, to programs as events."""

import time
from contextlib import suppress
from typing import Any

import click

from node import notation
from node.cli.client import ControlClient
from node.cli.terminal import Terminal, duration, plain, short_id, short_path
from node.exits import Failure
from node.store.home import Home

_OFFERED = ("ready", "resting", "restarting")  # It may have left memory to another by the time that it is told of.


class Narrator:
    """One start. `ready` comes last; by then every model has been told of."""

    def __init__(self, terminal: Terminal, home: Home) -> None:
        self._terminal = terminal
        self._home = home
        self._begun = time.monotonic()
        self._addresses: list[str] = []
        self._loading: set[str] = set()
        self._models = 0

    def tell(self, event: dict[str, Any]) -> None:
        kind = event["event"]
        if kind == "model":
            self._count(str(event.get("ref", "")), event.get("state"))
        elif kind == "ready":
            self._tell_unsettled()
        if self._terminal.json:
            self._terminal.record({"schema": "swarm.event/1", "t": utc_now(), **event})
        elif kind == "identity" and event.get("created"):
            name, node = plain(str(event.get("name", ""))), short_id(str(event.get("node", "")))
            self._terminal.say(f"Made this node's identity: {name}  {node}  ({short_path(self._home.identity_key)})")
        elif kind == "listening":
            self._addresses = [str(address) for address in event.get("addresses", [])]
        elif kind == "model":
            self._tell_model(event)
        elif kind == "ready":
            self._tell_ready(str(event.get("api", "")))

    def _count(self, ref: str, state: object) -> None:
        if state == "loading":
            self._loading.add(ref)
        else:
            self._loading.discard(ref)
        self._models += state in _OFFERED

    def _tell_unsettled(self) -> None:
        """A model can be done before the daemon begins to report how models fare; then it is asked."""
        if not self._loading:
            return
        models: Any = None
        with suppress(Failure):
            models = ControlClient(self._home).get("/models")
        for model in models.get("models", []) if isinstance(models, dict) else []:
            if isinstance(model, dict) and model.get("ref") in self._loading:
                self.tell({"event": "model", **model})

    def _tell_model(self, event: dict[str, Any]) -> None:
        ref, state, detail = (plain(str(event.get(field, ""))) for field in ("ref", "state", "detail"))
        if state in _OFFERED:
            self._terminal.say(f"Model {ref} is ready.")
        elif state == "failed":
            self._terminal.complain(f"! model {ref} failed: {detail}")
        elif state == "removed":
            self._terminal.say(f"Model {ref} was removed.")
        else:
            self._terminal.say(f"Loading {ref} …")

    def _tell_ready(self, api: str) -> None:
        say = self._terminal.say
        say(f"{click.style('●', fg='green')} ready in {duration(time.monotonic() - self._begun)}")
        say(f"  API    {plain(api)}/v1    key in {short_path(self._home.api_key)}")
        for address in sorted(self._addresses, key=notation.on_loopback_only)[:1]:
            say(f"  Others join with: swarm join {plain(address)}")
        say('Next: swarm ask "…"' if self._models else "Next: swarm models add FILE.gguf   or   swarm join ADDRESS")


def utc_now() -> str:
    """The time for an event, to the millisecond."""
    now = time.time()
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now))}.{int(now % 1 * 1000):03d}Z"
