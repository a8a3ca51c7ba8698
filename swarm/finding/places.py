"""Where an address is, roughly: one operator's machines share a place, so nothing should hang on a single one."""


def place_of(addresses: tuple[str, ...]) -> str:
    """The /24 of an IPv4 multiaddress or the /48 of an IPv6 one, of the first address; other addresses are their own place."""
    if not addresses:
        return ""
    parts = addresses[0].split("/")
    if len(parts) > 2 and parts[1] == "ip4":
        return "/ip4/" + ".".join(parts[2].split(".")[:3])
    if len(parts) > 2 and parts[1] == "ip6":
        return "/ip6/" + ":".join(parts[2].split(":")[:3])
    return addresses[0]
