"""Imports libp2p without the parts that this project never uses: a third of an idle node's memory, half of its start.

`import libp2p` loads QUIC, WebSockets, TLS, three HTTP clients and a DNS library whatever is asked of it (37 MB, measured with
0.8.1). While it is imported here, placeholders stand in for those packages; afterwards they are gone, and whoever wants the
real ones imports them as usual.
"""

import importlib
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

UNUSED = (
    "libp2p.transport.quic",
    "libp2p.transport.websocket",
    "libp2p.transport.webrtc",
    "libp2p.transport.webtransport",
    "libp2p.security.tls",
    "libp2p.security.secio",
    "libp2p.security.pnet",
    "libp2p.security.noise.webtransport",
    "libp2p.discovery.bootstrap",
    "libp2p.discovery.mdns",
    "libp2p.discovery.random_walk",
    "libp2p.discovery.upnp",
    "libp2p.relay",
    "libp2p.bitswap",
    "libp2p.peer.persistent",
    "libp2p.rcmgr.prometheus_exporter",
    "multiaddr.resolvers",
)


class _Placeholder(ModuleType):
    """Whatever is imported from it is an exception class of that name: good for annotations, `except` and `isinstance`."""

    __path__ = ()  # type: ignore[assignment]

    def __getattr__(self, name: str) -> type[Exception]:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (Exception,), {})


class _Finder(MetaPathFinder, Loader):
    def find_spec(self, name: str, path: object, target: object = None) -> ModuleSpec | None:
        unused = any(name == each or name.startswith(f"{each}.") for each in UNUSED)
        return ModuleSpec(name, self, is_package=True) if unused else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Placeholder(spec.name)

    def exec_module(self, module: ModuleType) -> None: ...


def import_libp2p() -> None:
    """Import what the other modules of this package use; once for a process that has not imported libp2p in full before."""
    if "libp2p" in sys.modules:
        return
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        importlib.import_module("libp2p.host.basic_host")
        importlib.import_module("libp2p.kad_dht.kad_dht")
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name, module in sys.modules.items() if isinstance(module, _Placeholder)]:
            del sys.modules[name]
