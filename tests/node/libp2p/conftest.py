"""Imports libp2p as the node does, before a test module imports it in full; and what several of these tests share."""

import pytest

import node.libp2p  # noqa: F401


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes write their records down at once. Only as many as servers take in ten seconds, though."""
    monkeypatch.setattr("node.libp2p.rendezvous.PROVIDE_PAUSE_S", 0.05)
    monkeypatch.setattr("node.libp2p.rendezvous.EARLY_S", 0.2)
