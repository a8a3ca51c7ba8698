"""How people write values on the command line and in config.toml: durations, HOST:PORT, multiaddrs, model references."""

import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h)?")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}
_BYTES = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT])i?B", re.IGNORECASE)
_UNIT_BYTES = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_BACKEND = re.compile(r"([a-z][a-z0-9_]*):(?!//)(.*)", re.DOTALL)
_LISTEN = re.compile(r"/(ip4|ip6)/([^/]+)/tcp/(\d+)")
_DIALLED_FIRST = {"ip4", "ip6", "dns", "dns4", "dns6", "dnsaddr"}
PORT_MAX = 65_535


def seconds(text: str) -> float:
    """A duration such as `20s`, `500ms`, `1.5m` or `2h`; a bare number counts seconds. Raises ValueError."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f'not a duration: "{text}"; write it like 20s, 500ms or 2m')
    return float(match[1]) * _UNIT_S[match[2]]


def byte_count(text: str) -> int:
    """An amount of memory such as `6GB` or `512MB`, in powers of 1024. Raises ValueError."""
    match = _BYTES.fullmatch(text.strip())
    if match is None:
        raise ValueError(f'not an amount of memory: "{text}"; write it like 6GB or 512MB')
    return int(float(match[1]) * _UNIT_BYTES[match[2].upper()])


def host_and_port(text: str) -> tuple[str, int]:
    """The parts of `127.0.0.1:7976` or `[::1]:7976`. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > PORT_MAX:
        raise ValueError(f'not HOST:PORT: "{text}"; write it like 127.0.0.1:7976')
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f'an IPv6 host stands in brackets: "[{host}]:{port}"')
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine can reach the host. Names other than localhost are not looked up: no."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def listening_parts(address: str) -> tuple[IPv4Address | IPv6Address, int]:
    """Host and port of a multiaddr to listen on, `/ip4/0.0.0.0/tcp/4976`. Raises ValueError."""
    match = _LISTEN.fullmatch(address)
    try:
        if match is None:
            raise ValueError
        host = (IPv4Address if match[1] == "ip4" else IPv6Address)(match[2])
    except ValueError:
        raise ValueError(f'cannot listen on "{address}"; write it like /ip4/0.0.0.0/tcp/4976') from None
    if int(match[3]) > PORT_MAX:
        raise ValueError(f'"{address}": a port is at most {PORT_MAX}')
    return host, int(match[3])


def check_dialled(address: str) -> None:
    """Raises ValueError unless the text looks like a multiaddr that can be dialled; whether somebody answers shows later."""
    parts = address.split("/")
    if parts[0] or len(parts) < 3 or parts[1] not in _DIALLED_FIRST or not all(parts[1:]) or not address.isprintable():
        raise ValueError(f'not an address: "{address}"; write it like /ip4/192.168.1.20/tcp/4976/p2p/12D3KooW…')


def on_loopback_only(address: str) -> bool:
    """Whether a multiaddr names a loopback IP address."""
    parts = address.split("/")
    return len(parts) > 2 and parts[1] in ("ip4", "ip6") and is_loopback(parts[2])


def model_file(ref: str) -> Path | None:
    """The file that a model reference names, if it names one: `x.gguf`, `~/x.gguf`, `llama_cpp:x.gguf`, `llama_cpp:NAME=x.gguf`."""
    _, text = _around_file(ref)
    return None if "://" in text or not text.lower().endswith(".gguf") else Path(text)


def absolute_reference(ref: str, folder: Path) -> str:
    """The model reference with its file, if any, made absolute from `folder`: the daemon runs elsewhere."""
    file = model_file(ref)
    if file is None:
        return ref
    before, _ = _around_file(ref)
    return before + str(folder / file.expanduser())


def _around_file(ref: str) -> tuple[str, str]:
    """What stands before the file in a reference, and the file, if it is one: backend and name go with it."""
    match = _BACKEND.fullmatch(ref)
    if match is None:
        return "", ref
    name, equals, path = match[2].partition("=")
    if equals and name and "/" not in name:
        return f"{match[1]}:{name}=", path
    return f"{match[1]}:", match[2]
