"""What a node tells its user of the nodes around it: who is here, what they offer, by which ways, and who can reach this one."""

from node.views import PeerView, ReachView, SightingView, SkillView
from protocol.identity import NodeId, node_text
from swarm.finding.capabilities import Known
from swarm.finding.roster import Neighbour
from swarm.member import Member


def peer_views(member: Member, now: float) -> list[PeerView]:
    """Every known node, this one first, then the neighbours, then those heard of."""
    known = {found.node: found for found in member.index}
    views = [_peer_view(member, member.node, known.get(member.node), now)]
    nodes = [neighbour.node for neighbour in member.roster]
    nodes += [node for node in known if node not in member.roster and node != member.node]
    return views + [_peer_view(member, node, known.get(node), now) for node in nodes]


def _peer_view(member: Member, node: NodeId, known: Known | None, now: float) -> PeerView:
    neighbour = member.roster.get(node)
    advert = known.advert if known else None
    heard = max(known.heard_at if known else 0.0, neighbour.heard_at if neighbour else 0.0)
    capabilities = advert.capabilities if advert else ()
    if node == member.node:
        state, heard = "self", now
    elif advert is not None and advert.draining:
        state = "draining"
    else:
        state = "connected" if neighbour else "known"
    return PeerView(
        node=node_text(node),
        name=neighbour.name if neighbour else advert.name if advert else member.name,
        state=state,
        rtt_ms=round(neighbour.rtt_s * 1000, 1) if neighbour and neighbour.rtt_s is not None else None,
        heard_s=round(max(0.0, now - heard), 1),
        told_s=round(max(0.0, now - known.heard_at), 3) if known else None,
        addresses=list(advert.addresses if advert else neighbour.addresses if neighbour else ()),
        models=sorted({offered.model for offered in capabilities}),
        skills=sorted({offered.skill for offered in capabilities}),
        tokens_per_second=max((offered.tokens_per_second for offered in capabilities), default=None),
        slots=advert.slots if advert else 0,
        busy=advert.busy if advert else 0,
        queued=advert.queued if advert else 0,
        path=path_to(member, neighbour) if neighbour else "",
    )


def skill_views(member: Member) -> list[SkillView]:
    """Every capability known now, this node's own first."""
    views = []
    for known in sorted(member.index, key=lambda found: found.node != member.node):
        advert = known.advert
        if advert.draining and known.node != member.node:
            continue
        for offered in advert.capabilities:
            views.append(
                SkillView(
                    skill=offered.skill,
                    model=offered.model,
                    node=node_text(known.node),
                    name=advert.name,
                    tokens_per_second=round(offered.tokens_per_second, 1),
                    first_token_ms=offered.first_token_ms,
                    context_tokens=offered.context_tokens,
                    labels=list(offered.labels),
                    features=list(offered.features),
                    tokens_in_per_second=round(offered.tokens_in_per_second, 1),
                    slots=offered.slots,
                    speedup=offered.speedup,
                    description=offered.description,
                )
            )
    return views


def path_to(member: Member, neighbour: Neighbour) -> str:
    """How a neighbour is linked: `direct`, or `relay NAME`."""
    return "direct" if neighbour.relay is None else f"relay {_name(member, neighbour.relay)}"


def _name(member: Member, node: NodeId) -> str:
    neighbour, known = member.roster.get(node), member.index.get(node)
    return neighbour.name if neighbour else known.advert.name if known else node_text(node)


def reach_view(member: Member, router: str, mdns: bool) -> ReachView:
    """Whether others can dial this node, and how they get here if not."""
    reach = member.reach
    places: dict[str, list[bool]] = {}
    for sighting in reach.sightings.values():
        places.setdefault(sighting.seen, []).append(bool(sighting.reached))
    return ReachView(
        verdict=reach.verdict,
        sightings=[SightingView(seen, sum(reached), len(reached) - sum(reached)) for seen, reached in places.items()],
        relays=[_name(member, node) for node, addresses in reach.relays.items() if addresses],
        relaying=reach.relaying,
        carried=len(reach.carried),
        router=router,
        mdns=mdns,
    )
