"""The only package that imports libp2p."""

from node.libp2p.lean_import import import_libp2p

import_libp2p()
