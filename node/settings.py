"""What a user may set: config.toml, its twins in the environment, and the flags of `swarm up`, checked and with their origin.

Later layers win: default < file < env < flag. Every problem is a ConfigError that names where the value came from.
"""

import difflib
import json
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec
from msgspec import Meta, Struct

from node import notation
from node.exits import ExitCode, Failure
from node.store.home import Home
from protocol import limits as lim

VERSION = 1
OVERRIDES_VARIABLE = "SWARM_OVERRIDES"
"""Carries the flags of `swarm up` to the daemon: a JSON object of dotted keys, {"node.mdns": false}."""

_CONFIG_BYTES_MAX = 1_000_000  # A config is a page of text; more is some other file.
_SHORT_VARIABLES = {"SWARM_LOG": "log.level", "SWARM_OFFLINE": "node.offline"}

Texts = Annotated[tuple[str, ...], Meta(max_length=64)]  # Nobody writes more by hand.


class NodeSettings(Struct, frozen=True):
    """How this node is reached and called. An empty name: the bird of its identity (`node.store.names`)."""

    name: str = ""
    listen: Annotated[tuple[str, ...], Meta(max_length=lim.ADDRESSES_MAX)] = ("/ip4/0.0.0.0/tcp/4976",)
    announce: Annotated[tuple[str, ...], Meta(max_length=lim.ADDRESSES_MAX)] = ()  # Instead of what we listen on.
    mdns: bool = True
    relay: Literal["off", "use", "serve"] = "use"  # Whether relays carry links to this node; serve: it is one itself.
    upnp: bool = True  # Ask the router to let others in.
    join: Texts = ()  # Addresses of nodes to dial at start.
    offline: bool = False  # Loopback only, no mDNS.


class SwarmSettings(Struct, frozen=True):
    """Which swarm this node is in."""

    current: Annotated[str, Meta(min_length=1, max_length=lim.NAME_BYTES_MAX)] = "public"


class ApiSettings(Struct, frozen=True):
    """The HTTP API for programs of this machine."""

    listen: str = "127.0.0.1:7976"
    hosts: Texts = ()  # Further Host names to answer to, for a proxy in front.
    origins: Texts = ()  # Of web pages that may use it, as a browser writes them.

    @property
    def host(self) -> str:
        return notation.host_and_port(self.listen)[0]

    @property
    def url_host(self) -> str:
        """As it stands in a URL and in a Host header."""
        return f"[{self.host}]" if ":" in self.host else self.host

    @property
    def port(self) -> int:
        """0: the system chooses."""
        return notation.host_and_port(self.listen)[1]


class OfferSettings(Struct, frozen=True):
    """What this node gives to others."""

    models: Texts = ()  # References, see `node.backends`.
    max_parallel: Annotated[int, Meta(ge=1, le=lim.SLOTS_MAX)] = 16  # Generations at once, of all models together.
    threads: Annotated[int, Meta(ge=0, le=1024)] = 0  # Of one model; 0: the node chooses.
    memory: str = "auto"  # For all models together; those that are over it are loaded when they are asked for.
    context: Annotated[int, Meta(ge=256, le=131_072)] = 4096  # Tokens of one conversation at most, answer included.
    pinned: Texts = ()  # References of models that stay in memory.
    exact: Literal["auto", "always"] = "auto"  # Whether others can go on with and check every answer.
    when: Literal["always", "idle"] = "always"  # Whether peers get work done while the owner uses the machine.

    @property
    def memory_bytes(self) -> int | None:
        """None: the node chooses."""
        return None if self.memory == "auto" else notation.byte_count(self.memory)


class AskSettings(Struct, frozen=True):
    """How our own tasks travel."""

    deadline: str = "60s"

    @property
    def deadline_s(self) -> float:
        return notation.seconds(self.deadline)


class JournalSettings(Struct, frozen=True):
    """What is kept of the tasks that this node's users asked. It never leaves this machine."""

    texts: bool = True  # Questions and answers too; never those of tasks asked with --local.
    keep_days: Annotated[int, Meta(ge=1, le=36_500)] = 30
    entries_max: Annotated[int, Meta(ge=0, le=1_000_000)] = 10_000  # 0: no journal, so nothing can be detached.


class LogSettings(Struct, frozen=True):
    """What the daemon writes down."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"
    prompts: bool = False  # Text of users is never logged unless this is true.
    stderr: bool = False  # Also to stderr; `swarm up --foreground` sets it.


_TABLES: dict[str, type[Struct]] = {
    "node": NodeSettings,
    "swarm": SwarmSettings,
    "api": ApiSettings,
    "offer": OfferSettings,
    "ask": AskSettings,
    "journal": JournalSettings,
    "log": LogSettings,
}
_KEYS = {name: {field.name: field for field in msgspec.structs.fields(table)} for name, table in _TABLES.items()}


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that is set. `origins` tells for each dotted key where its value came from: default, file, env or flag."""

    node: NodeSettings
    swarm: SwarmSettings
    api: ApiSettings
    offer: OfferSettings
    ask: AskSettings
    journal: JournalSettings
    log: LogSettings
    origins: Mapping[str, str]

    def items(self) -> Iterator[tuple[str, Any, str]]:
        """Dotted key, value and origin of every setting, in the order of the file."""
        for key, origin in self.origins.items():
            table, _, name = key.partition(".")
            yield key, getattr(getattr(self, table), name), origin


class ConfigError(Failure):
    """A setting cannot be used; nothing was started. `where` names file and line, variable or flag."""

    def __init__(self, where: str, problem: str, hint: str = "") -> None:
        super().__init__("config_invalid", f"{where}: {problem}", hint=hint, exit=ExitCode.CONFIG_INVALID)


@dataclass(frozen=True, slots=True)
class _Given:
    """One value that somebody gave, where, and the folder that relative paths in it start from."""

    value: Any
    origin: str
    where: str
    folder: Path
    lax: bool  # Text may stand for numbers and booleans: the environment knows nothing else.


def load(
    home: Home, overrides: Mapping[str, Any] | None = None, *, environ: Mapping[str, str] = os.environ
) -> Settings:
    """The settings of a home. `overrides` are flags by dotted key; None takes them from SWARM_OVERRIDES.

    Raises ConfigError. A missing config.toml is all defaults, unless SWARM_CONFIG names it.
    """
    given: dict[str, _Given] = {}
    given |= _from_file(home.config_file, must_exist=bool(environ.get("SWARM_CONFIG")))
    given |= _from_environment(environ)
    given |= _from_flags(_overrides(environ) if overrides is None else overrides)
    tables: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for table, fields in _KEYS.items():
        values = {}
        for name, field in fields.items():
            found = given.get(f"{table}.{name}")
            origins[f"{table}.{name}"] = found.origin if found else "default"
            if found:
                values[name] = _checked(f"{table}.{name}", field, found)
        tables[table] = _TABLES[table](**values)
    tables["node"] = _offline(tables["node"])
    return Settings(**tables, origins=origins)


# --- The four layers --------------------------------------------------------------------------------------------------


def _from_file(file: Path, *, must_exist: bool) -> dict[str, _Given]:
    text = _read(file, must_exist)
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(str(file), f"is not TOML: {error}") from None
    version = content.pop("version", VERSION)
    if version != VERSION or isinstance(version, bool):
        raise ConfigError(
            _at(file, text, "", "version"), f"version is {version!r}; this program reads version {VERSION}"
        )
    given = {}
    for table, values in content.items():
        if table not in _KEYS:
            raise ConfigError(_at(file, text, table, ""), f'unknown section "{table}"', _did_you_mean(table, _KEYS))
        if not isinstance(values, dict):
            raise ConfigError(_at(file, text, "", table), f"{table} is a section: write [{table}]")
        for name, value in values.items():
            where = _at(file, text, table, name)
            if name not in _KEYS[table]:
                raise ConfigError(where, f'unknown key "{name}" in [{table}]', _did_you_mean(name, _KEYS[table]))
            given[f"{table}.{name}"] = _Given(value, "file", where, file.parent, lax=False)
    return given


def _from_environment(environ: Mapping[str, str]) -> dict[str, _Given]:
    given = {}
    twins = {f"SWARM_{table.upper()}__{name.upper()}": f"{table}.{name}" for table, name in _all_keys()}
    known = _SHORT_VARIABLES | twins
    for variable in sorted(environ):
        if variable.startswith("SWARM_") and "__" in variable and variable not in known:
            raise ConfigError(f"environment variable {variable}", "no such setting", _did_you_mean(variable, known))
    for variable, key in known.items():  # The short ones come first, so that the long ones win.
        text = environ.get(variable)
        if text is None or (text == "" and variable in _SHORT_VARIABLES):
            continue
        where = f"environment variable {variable}"
        table, _, name = key.partition(".")
        value: Any = _listed(text, where) if isinstance(_KEYS[table][name].default, tuple) else text
        given[key] = _Given(value, "env", where, Path.cwd(), lax=True)
    return given


def _from_flags(overrides: Mapping[str, Any]) -> dict[str, _Given]:
    given = {}
    known = {f"{table}.{name}" for table, name in _all_keys()}
    for key, value in overrides.items():
        if key not in known:
            raise ConfigError(f"flag for {key}", "no such setting", _did_you_mean(key, sorted(known)))
        given[key] = _Given(value, "flag", f"flag for {key}", Path.cwd(), lax=False)
    return given


def _overrides(environ: Mapping[str, str]) -> Mapping[str, Any]:
    text = environ.get(OVERRIDES_VARIABLE, "")
    try:
        found = json.loads(text) if text else {}
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ConfigError(f"environment variable {OVERRIDES_VARIABLE}", "is not a JSON object")
    return found


def _read(file: Path, must_exist: bool) -> str:
    try:
        with open(file, "rb") as opened:
            content = opened.read(_CONFIG_BYTES_MAX + 1)
    except FileNotFoundError:
        if must_exist:
            raise ConfigError(str(file), "there is no such file, but it was asked for") from None
        return ""
    except OSError as error:
        raise ConfigError(str(file), f"cannot be read: {error.strerror}") from None
    if len(content) > _CONFIG_BYTES_MAX:
        raise ConfigError(str(file), f"is larger than {_CONFIG_BYTES_MAX} bytes; this is not a configuration")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ConfigError(f"{file}, line {line}", "is not UTF-8 text; this is not a configuration") from None


def _listed(text: str, where: str) -> list[Any]:
    """A list in the environment: JSON if it begins with a bracket, else separated by commas."""
    if text.lstrip().startswith("["):
        try:
            return list(json.loads(text))
        except ValueError:
            raise ConfigError(where, "is not a JSON list") from None
    return [part.strip() for part in text.split(",") if part.strip()]


# --- One value --------------------------------------------------------------------------------------------------------


def _checked(key: str, field: msgspec.structs.FieldInfo, given: _Given) -> Any:
    try:
        value = msgspec.convert(given.value, field.type, strict=not given.lax)
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, str) and (not part.isprintable() or (isinstance(value, tuple) and not part)):
                raise ValueError("an entry is empty or has characters that cannot be printed")
            if key in _CHECKS:
                _CHECKS[key](part)
    except (msgspec.ValidationError, ValueError) as error:
        problem = str(error).split(" - at `$")[0]
        if get_origin(field.type) is Literal:
            problem = f"one of {', '.join(get_args(field.type))}"
        raise ConfigError(given.where, f"{key}: {problem}, not {_shown(given.value)}") from None
    if key in ("offer.models", "offer.pinned"):
        return tuple(notation.absolute_reference(ref, given.folder) for ref in value)
    return value


def _check_name(name: str) -> None:
    if len(name.encode()) > lim.NAME_BYTES_MAX or name != name.strip():
        raise ValueError(f"at most {lim.NAME_BYTES_MAX} bytes, without spaces around it")


def _check_api(listen: str) -> None:
    host, _ = notation.host_and_port(listen)
    if not notation.is_loopback(host):
        raise ValueError("the API listens on loopback only, such as 127.0.0.1:7976")


def _check_deadline(text: str) -> None:
    if not 0 < notation.seconds(text) * 1000 <= lim.DEADLINE_MS_MAX:
        raise ValueError(f"a deadline is over 0 s and at most {lim.DEADLINE_MS_MAX // 1000} s")


def _check_memory(text: str) -> None:
    if text != "auto":
        notation.byte_count(text)


def _check_host(host: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\]", host):
        raise ValueError("a Host name without scheme, port or wildcard")


def _check_origin(origin: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:]+\])(:[1-9]\d{0,4})?", origin) or re.fullmatch(
        r"http://.*:80|https://.*:443", origin
    ):
        raise ValueError("an origin as a browser writes it, such as http://localhost:3000, without path, wildcard or a usual port")


_CHECKS: dict[str, Callable[[Any], object]] = {
    "node.name": _check_name,
    "node.listen": notation.listening_parts,
    "node.announce": notation.check_dialled,
    "node.join": notation.check_dialled,
    "swarm.current": _check_name,
    "api.listen": _check_api,
    "api.hosts": _check_host,
    "api.origins": _check_origin,
    "offer.memory": _check_memory,
    "ask.deadline": _check_deadline,
}


def _offline(node: NodeSettings) -> NodeSettings:
    """Offline wins over what it contradicts: listening is moved to loopback, mDNS is off, far addresses are not dialled."""
    if not node.offline:
        return node
    moved = []
    for address in node.listen:
        if not notation.on_loopback_only(address):
            host, port = notation.listening_parts(address)
            address = f"/ip4/127.0.0.1/tcp/{port}" if host.version == 4 else f"/ip6/::1/tcp/{port}"
        moved.append(address)
    near = tuple(address for address in node.join if notation.on_loopback_only(address))
    listen = tuple(dict.fromkeys(moved))
    return msgspec.structs.replace(node, listen=listen, announce=(), mdns=False, relay="off", upnp=False, join=near)


# --- Words about it ---------------------------------------------------------------------------------------------------


def _at(file: Path, text: str, table: str, name: str) -> str:
    """File and, if it can be found, line of a key or (without name) of a section."""
    section = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[\s*\"?([^\]\"]+?)\"?\s*\]", line):
            section = header[1]
            if section == table and not name:
                return f"{file}, line {number}"
        elif match := re.match(r"\s*\"?([\w.-]+)\"?\s*=", line):
            key = f"{section}.{match[1]}".strip(".")
            if key == f"{table}.{name}".strip(".") or (not name and key.startswith(f"{table}.")):
                return f"{file}, line {number}"
    return str(file)


def _did_you_mean(word: str, known: Any) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f'Did you mean "{close[0]}"?' if close else f"There are: {', '.join(known)}."


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else f"{text[:79]}…"


def _all_keys() -> Iterator[tuple[str, str]]:
    for table, fields in _KEYS.items():
        for name in fields:
            yield table, name
