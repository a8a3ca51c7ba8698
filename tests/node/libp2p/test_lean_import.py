"""What libp2p loads and this project never uses stays unloaded, and nobody else notices."""

import subprocess
import sys

SCRIPT = """
import sys
import node.libp2p.transport
loaded = {name.split(".")[0] for name in sys.modules}
print(sorted(loaded & {"aioquic", "httpx", "requests", "dns", "zeroconf", "rich", "OpenSSL", "trio_websocket"}))
import libp2p.discovery.mdns.mdns as real
print(real.MDNSDiscovery.__module__, hasattr(real.MDNSDiscovery, "start"))
"""


def test_unused_packages_stay_unloaded_and_importable() -> None:
    said = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == ["[]", "libp2p.discovery.mdns.mdns True"]
