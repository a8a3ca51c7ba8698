"""Remembers over restarts who this node was linked with, so that it needs an address only once in its life."""

import logging
from collections.abc import Callable
from pathlib import Path

import trio

from node.store.peers import read_peers, write_peers
from swarm.events import ContactsFound
from swarm.values import MEMBERSHIP, Contact

KEEP_S = 60.0  # Between looks at whether there is anything new to keep.
LAST_S = 1.0  # For the last writing, when the node stops.

log = logging.getLogger(__name__)


class Acquaintances:
    """One node's, in one file."""

    def __init__(
        self, path: Path, best: Callable[[], tuple[Contact, ...]], post: Callable[[ContactsFound], None]
    ) -> None:
        """`best` tells whom to begin with after a restart."""
        self._path, self._best, self._post = path, best, post
        self._kept: tuple[Contact, ...] = ()

    async def run(self) -> None:
        """Tell the member whom it knew, and keep whom it knows, until cancelled."""
        self._kept = await trio.to_thread.run_sync(read_peers, self._path)
        if self._kept:
            self._post(ContactsFound("saved", MEMBERSHIP, self._kept))
        try:
            while True:
                await trio.sleep(KEEP_S)
                await self._keep()
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(LAST_S):
                await self._keep()

    async def _keep(self) -> None:
        best = self._best()
        # Whoever is alone knows nobody better than those of before.
        if not best or set(best) == set(self._kept):
            return
        trouble = await trio.to_thread.run_sync(write_peers, self._path, best, abandon_on_cancel=True)
        if trouble:
            log.warning("the peers of this node are not kept: %s", trouble)
        else:
            self._kept = best
