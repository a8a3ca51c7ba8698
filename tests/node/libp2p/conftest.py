"""Imports libp2p as the node does, before a test module imports it in full."""

import node.libp2p  # noqa: F401
