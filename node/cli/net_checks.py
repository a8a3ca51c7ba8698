"""What `swarm doctor --net` looks at: whether others can reach this node, by which ways it reaches them, and what to do."""

from collections.abc import Sequence

from node import notation
from node.cli.checks import Check, State, Surroundings
from node.cli.reading import read
from node.views import PeerView, StatusView

_ROUTER = {
    "off": "the router is not asked to let others in",
    "searching": "the router is being asked to let others in (UPnP)",
    "none": "no router that speaks UPnP",
    "refused": "the router does not let others in (UPnP refused)",
    "mapped": "the router lets others in (UPnP)",
}


def listening(status: StatusView) -> Check:
    addresses = [address.partition("/p2p/")[0] for address in status.addresses if "/p2p-circuit" not in address]
    if all(map(notation.on_loopback_only, addresses)):
        finding = f"only this machine can reach this node ({', '.join(addresses) or 'it listens nowhere'})"
        return Check("listening", State.WARNING, finding, "If that is not meant: node.offline and node.listen.")
    return Check("listening", State.OK, f"others are told to dial {', '.join(addresses)}")


def reachable(status: StatusView) -> Check:
    reach = status.reach
    seen = "; ".join(
        f"at {place.seen.removeprefix('/ip4/').removeprefix('/ip6/')} {place.reached} of {place.reached + place.failed} got in"
        for place in reach.sightings
    )
    if reach.verdict == "open":
        return Check("reachable", State.OK, f"others can dial this node ({seen})")
    if reach.verdict == "unknown":
        return Check("reachable", State.OK, "nobody has tried to dial this node yet, so nobody knows whether that works")
    ports = sorted({address.split("/tcp/")[1].split("/")[0] for address in status.addresses if "/tcp/" in address})
    finding = f"others cannot dial this node ({seen})"
    if reach.relays:
        finding += f"; they come through {', '.join(reach.relays)}"
    hint = f"Let the router forward TCP port {' and '.join(ports[:2])} to this machine, and its firewall let it in."
    if not reach.relays:
        hint += " Until then this node has to dial the others; a node with node.relay = serve would lead them here."
    return Check("reachable", State.WARNING, finding, hint)


def router(status: StatusView) -> Check:
    return Check("router", State.OK, _ROUTER.get(status.reach.router, status.reach.router))


def relaying(status: StatusView) -> Check:
    reach = status.reach
    if reach.relaying:
        return Check("relaying", State.OK, f"this node is a relay, and carries links to {reach.carried} nodes")
    return Check("relaying", State.OK, "this node is no relay")


def paths(status: StatusView) -> Check:
    linked = [peer for peer in status.peers if peer.path]
    if not linked:
        hint = "Connect with: swarm join ADDRESS" + ("" if status.reach.mdns else ", or switch node.mdns on")
        return Check("paths", State.WARNING, "no other node is connected", hint)
    carried = [f"{peer.name} ({peer.path})" for peer in linked if peer.path != "direct"]
    far = f", {len(carried)} over relays: {', '.join(carried[:5])}" if carried else ""
    return Check("paths", State.OK, f"{len(linked) - len(carried)} nodes connected directly{far}{_fastest(linked)}")


def _fastest(linked: Sequence[PeerView]) -> str:
    times = sorted(peer.rtt_ms for peer in linked if peer.rtt_ms is not None)
    return f"; {times[0]:.0f} to {times[-1]:.0f} ms away" if times else ""


def local_network(status: StatusView) -> Check:
    if status.reach.mdns:
        return Check("mdns", State.OK, "looks for nodes on the local network (mDNS)")
    return Check("mdns", State.OK, "does not look for nodes on the local network (node.mdns is off)")


def identity(status: StatusView) -> Check:
    if status.twin:
        finding = f"another node runs with this node's identity, at {status.twin[0]}"
        hint = "A copied identity.key is one node in two places. Remove it in one of them; a new one is made at the next start."
        return Check("twin", State.FAILED, finding, hint)
    return Check("twin", State.OK, "nobody else was heard with this node's identity")


def refusals(status: StatusView) -> Check:
    if not status.refused:
        return Check("refused", State.OK, "nothing that others sent was refused")
    told = ", ".join(f"{count} {kind}" for kind, count in sorted(status.refused.items()))
    return Check("refused", State.OK, f"refused of what others sent: {told}")


_OF_STATUS = (listening, reachable, router, relaying, paths, local_network, identity, refusals)


def look(about: Surroundings) -> list[Check]:
    """Every check that a running node answers; one that does not run fails."""
    if about.status is None:
        return [Check("node", State.FAILED, "this node is not running, so nobody can reach it", "Start it with: swarm up")]
    status = read(StatusView, about.status)
    return [check(status) for check in _OF_STATUS]
