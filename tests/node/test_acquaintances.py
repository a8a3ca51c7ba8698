"""Who a node was linked with is on the disk for its next start, and a broken file costs nothing else."""

from pathlib import Path

import pytest
import trio

from node import acquaintances
from node.acquaintances import Acquaintances
from node.store.peers import CONTACTS_MAX, read_peers, write_peers
from protocol.identity import Identity, node_text
from swarm.events import ContactsFound
from swarm.values import MEMBERSHIP, Contact

BOB, CYD = (Contact(Identity(bytes([n]) * 32).node, (f"/ip4/192.0.2.{n}/tcp/4976",)) for n in (1, 2))


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "peers.json"
    assert write_peers(path, (BOB, CYD)) == ""
    assert read_peers(path) == (BOB, CYD)
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", '{"version": 2, "peers": []}', '{"version": 1}', '{"version": 1, "peers": [3]}',
        '{"version": 1, "peers": [{"node": "x", "addresses": []}]}',
        '{"version": 1, "peers": [{"node": "' + node_text(BOB.node) + '", "addresses": 3}]}',  # type: ignore[arg-type]
    ],
)  # fmt: skip
def test_a_file_that_makes_no_sense_is_no_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "peers.json"
    path.write_text(text)
    assert read_peers(path) == ()


def test_addresses_that_are_none_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "peers.json"
    long = Contact(BOB.node, ("/dns/" + "x" * 1000, *BOB.addresses, *(f"/ip4/192.0.2.9/tcp/{n}" for n in range(1, 30))))
    write_peers(path, (long,) * (CONTACTS_MAX + 9))
    found = read_peers(path)
    assert len(found) == CONTACTS_MAX
    assert found[0].addresses[0] == BOB.addresses[0] and len(found[0].addresses) == 8


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    assert "peers.json" in write_peers(tmp_path / "missing" / "peers.json", (BOB,))


async def test_they_are_told_at_the_start_and_kept_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acquaintances, "KEEP_S", 0.02)
    path = tmp_path / "peers.json"
    write_peers(path, (BOB,))
    best: tuple[Contact, ...] = ()
    told: list[ContactsFound] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Acquaintances(path, lambda: best, told.append).run)
        while not told:
            await trio.sleep(0.01)
        await trio.sleep(0.1)
        assert told == [ContactsFound("saved", MEMBERSHIP, (BOB,))]
        assert read_peers(path) == (BOB,)  # A node that is alone forgets nobody.
        best = (CYD,)
        while read_peers(path) != (CYD,):
            await trio.sleep(0.01)
        best = (CYD, BOB)
        nursery.cancel_scope.cancel()
    assert read_peers(path) == (CYD, BOB)
