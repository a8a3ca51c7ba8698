"""What a scenario file says: a TOML file of known tables and keys, checked against their types and against `swarm.settings`."""

import difflib
import tomllib
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import msgspec
from msgspec import Meta

from swarm.finding.regions import REGIONS
from swarm.settings import Settings

FOLDER = Path(__file__).parent / "scenarios"
SIZE = "size"  # The key of a variant that is no setting.
BASELINES = Path(__file__).parent / "baselines"

Whole = Annotated[int, Meta(ge=0)]
Some = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
Feature = Literal["schema", "grammar", "options", "forced", "logprobs", "tools"]
Range = tuple[Annotated[float, Meta(ge=0)], Annotated[float, Meta(ge=0)]]
"""The least and the most; what lies between is drawn."""


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of a scenario file. Unknown keys are errors: a misspelt fault would be a fault that never happens."""


class NetworkTable(Table, frozen=True, kw_only=True):
    """What lies between machines."""

    latency_ms: Range = (5.0, 80.0)
    """One way, from the same place to opposite corners of the map."""
    jitter: Share = 0.2
    """Up to this share of the latency on top, for each message."""
    loss: Share = 0.0
    """Share of messages that arrive only after a retransmission."""
    dial_limit_s: Seconds = 5.0
    """Until a dial that nobody answers has failed."""
    record_delay_s: Range = (0.5, 3.0)
    """Until a provider record can be found."""
    record_lifetime_s: Seconds = 600.0
    """How long the record of a node that has gone is still found."""
    lookup_s: Range = (0.1, 1.0)
    """How long a search for provider records takes."""


class MembersTable(Table, frozen=True, kw_only=True):
    """Machines of one kind. Without skills they only ask."""

    name: str
    count: Some
    skills: list[str] = []
    skills_each: Whole = 0
    """How many of `skills` each draws; 0 means all."""
    features: list[Feature] = []
    """Demands that each honours, whatever its skill."""
    model: str = "micro"
    models: Some = 1
    """Skills are dealt out over so many models, each with slots of its own."""
    tokens_per_second: Range = (20.0, 20.0)
    """Drawn so that each doubling is as likely as the next: real speeds spread over decades."""
    first_token_ms: Range = (50.0, 200.0)
    tokens_in_per_second: Range = (0.0, 0.0)
    """How fast each reads, drawn likewise; 0: inputs take no time. Each model remembers the prefixes of its last `slots` tasks."""
    context_tokens: Some = 2048
    slots: Some = 1
    speedup: Annotated[float, Meta(ge=0)] = 0.0
    """How many times as fast as one all slots together are, since they share a processor; 0: each has its own."""
    tells_speedup: bool = True
    failing: Share = 0.0
    """Share of the answers that break off."""
    claims: Annotated[float, Meta(gt=0)] = 1.0
    """How many times its true speed each advertises."""
    straggling: Share = 0.0
    """Share of the answers that take `straggle_factor` times as long."""
    straggle_factor: Annotated[float, Meta(ge=1)] = 10.0
    spam_per_s: Annotated[float, Meta(ge=0)] = 0.0
    """Adverts of workers that do not exist, which each tells each of its neighbours every second."""
    poisons: Annotated[int, Meta(ge=0, le=REGIONS)] = 0
    """In so many regions of the DHT each also writes hundreds of such workers down, under every skill and as members."""
    slanders: bool = False
    """Whether each says of all others, one after the other, that they are dead."""
    hidden: bool = False
    """Whether each is behind a router that lets nobody in."""
    carries: Whole = 0
    """For how many neighbours each is a relay."""
    skew_s: Seconds = 0.0
    """Clocks are wrong by up to this much, either way."""
    clock_s: float = 0.0
    """And all of them by this much."""
    hides_load: bool = False
    """Whether each says at all times that it is free."""
    twins: bool = False
    """Whether all hold the same identity, as after a disk was copied."""


class WorkloadTable(Table, frozen=True, kw_only=True):
    """Who asks what, when. Rates are of the whole group."""

    skills: list[str]
    by: str = ""
    """Group of members who ask; empty: everyone."""
    demands: list[Feature] = []
    """What each task demands of its worker."""
    requesters: Whole = 0
    """Only the first so many of the group; 0: all."""
    rate_per_s: Annotated[float, Meta(ge=0)] = 0.0
    """Tasks a second; or else"""
    load: Annotated[float, Meta(ge=0)] = 0.0
    """the share of what all workers with these skills can do in that time."""
    arrival: Literal["poisson", "even", "bursts"] = "poisson"
    burst: Some = 1
    """Tasks that come at once; the rate of tasks stays the same."""
    from_s: Seconds = 10.0
    until_s: Seconds = 0.0
    """0: until the end."""
    tokens: tuple[Some, Some] = (16, 128)
    input_bytes: Whole = 200
    prefixes: Whole = 0
    """So many programs ask, each with instructions of its own, which"""
    prefix_bytes: Whole = 6_000
    """come before each input, and are so long."""
    deadline_s: Annotated[float, Meta(gt=0)] = 30.0
    items: tuple[Whole, Whole] = (0, 0)
    """With other than 0, plans over so many items are asked for instead of tasks: see `simulations/plans.py`."""
    cancelled: Share = 0.0
    """Share of tasks whose user loses patience after a while."""
    patience_s: Range = (0.1, 5.0)


class FaultTable(Table, frozen=True, kw_only=True):
    """What goes wrong, and for how long. `crash` resets links, `vanish` and `blackhole` tell nobody, `freeze` stops a process that
    catches up later, `sleep` does so with the network gone, as of a closed laptop, `partition` parts a share of the machines from
    the others, `slow` multiplies the time that models take, `leave` is a clean stop, `change` gives a member something new to say
    of itself, and by `reserve` its owner wants the machine back."""

    kind: Literal["crash", "vanish", "freeze", "sleep", "blackhole", "partition", "slow", "leave", "change", "reserve"]
    at_s: Seconds
    for_s: Seconds = 0.0
    """0: for ever."""
    every_s: Seconds = 0.0
    """0: once."""
    until_s: Seconds = 0.0
    """No more repetitions from then on; 0: until the end."""
    group: str = ""
    """Group of members that it may hit; empty: everyone."""
    count: Whole = 0
    share: Share = 0.0
    """Either `count` machines or a `share` of the group, drawn each time."""
    factor: Annotated[float, Meta(gt=0)] = 1.0


class Scenario(Table, frozen=True, kw_only=True):
    """One world and what happens in it."""

    name: str = "?"
    """What was loaded: the reference that plays it again."""
    about: str
    seed: Whole = 1
    seconds: Annotated[float, Meta(gt=0)]
    """Until the workload ends. The world goes on until every deadline has passed."""
    start_s: Seconds = 5.0
    """Machines start within this time."""
    bootstraps: Some = 3
    """The first so many machines are there from the beginning, and known to all."""
    join: Some = 3
    """So many of them each machine dials at first, drawn."""
    wired: bool = False
    """Every message crosses as signed bytes."""
    pieces_max: Some = 4
    """Pieces in which an answer comes; each costs events."""
    members: list[MembersTable]
    workload: list[WorkloadTable] = []
    faults: list[FaultTable] = []
    network: NetworkTable = NetworkTable()
    swarm: dict[str, Any] = {}
    """Overrides of `swarm.settings`."""
    variants: dict[str, dict[str, Any]] = {}
    """Further overrides, by name: `swarm sim compare herd:greedy herd`. `size` multiplies members and rates."""
    goals: dict[str, float] = {}
    """Figures of the report with `_min` or `_max` behind them: the run fails beyond."""

    @property
    def longest_deadline_s(self) -> float:
        return max((work.deadline_s for work in self.workload), default=0.0)

    def settings(self) -> Settings:
        """What members decide by in this world."""
        return replace(Settings(), **self.swarm)


class ScenarioError(Exception):
    """A scenario cannot be used. The message names the file, the key and what to write instead."""


def load(reference: str) -> Scenario:
    """A scenario by name (`churn`), by name and variant (`herd:greedy`) or by file. Raises ScenarioError."""
    named, _, variant = reference.partition(":")
    path = Path(named) if named.endswith(".toml") else FOLDER / f"{named}.toml"
    if not path.exists():
        raise ScenarioError(f"no scenario {named!r}{_perhaps(named, names())}. `swarm sim ls` shows all.")
    scenario = parse(path.read_text(encoding="utf-8"), str(path))
    if variant and variant not in scenario.variants:
        raise ScenarioError(f"{path}: no variant {variant!r}{_perhaps(variant, list(scenario.variants))}.")
    overrides = dict(scenario.variants.get(variant, {}))
    scenario = _sized(scenario, overrides.pop(SIZE, 1.0))
    return msgspec.structs.replace(scenario, name=reference, swarm={**scenario.swarm, **overrides})


def _sized(scenario: Scenario, size: float) -> Scenario:
    """So many times as many members, who are asked as many times as much."""
    if size == 1.0:
        return scenario
    many = msgspec.structs.replace
    return many(
        scenario,
        members=[many(table, count=max(1, round(table.count * size))) for table in scenario.members],
        workload=[many(table, rate_per_s=table.rate_per_s * size) for table in scenario.workload],
        bootstraps=max(1, round(scenario.bootstraps * size)),
    )


def names() -> list[str]:
    """Every scenario that comes with the project."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def parse(text: str, origin: str) -> Scenario:
    """A scenario out of TOML. `origin` names the file in errors. Raises ScenarioError."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as wrong:
        raise ScenarioError(f"{origin}: {wrong}") from None
    if "name" in raw:
        raise ScenarioError(f"{origin}: unknown key name. A scenario is named as its file is.")
    _refuse_unknown(raw, Scenario, origin, "")
    try:
        scenario = msgspec.convert(raw, Scenario)
    except msgspec.ValidationError as wrong:
        raise ScenarioError(f"{origin}: {wrong}") from None
    _check_settings(scenario.swarm, {}, origin, "swarm")
    for name, overrides in scenario.variants.items():
        settings = {key: value for key, value in overrides.items() if key != SIZE}
        _check_settings(settings, scenario.swarm, origin, f"variants.{name}")
        if not overrides.get(SIZE, 1.0) > 0:
            raise ScenarioError(f"{origin}: variants.{name}.{SIZE} must be positive.")
    _check_groups(scenario, origin)
    return scenario


def _refuse_unknown(raw: Any, table: type[Table], origin: str, where: str) -> None:
    """msgspec refuses unknown keys as well, but cannot say what was meant."""
    known = {field.name: field.type for field in msgspec.structs.fields(table)}
    for key, value in raw.items():
        if key not in known:
            raise ScenarioError(f"{origin}: unknown key {where}{key}{_perhaps(key, list(known))}.")
        hint = known[key]
        inner = next((part for part in (hint, *getattr(hint, "__args__", ())) if _is_table(part)), None)
        for part in value if isinstance(value, list) else [value]:
            if inner is not None and isinstance(part, dict):
                _refuse_unknown(part, inner, origin, f"{where}{key}.")


def _is_table(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Table)


def _check_settings(overrides: dict[str, Any], below: dict[str, Any], origin: str, label: str) -> None:
    hints = get_type_hints(Settings)
    known = [field.name for field in fields(Settings)]
    for key, value in overrides.items():
        if key not in known:
            raise ScenarioError(f"{origin}: unknown key {label}.{key}{_perhaps(key, known)}.")
        try:
            msgspec.convert(value, hints[key])
        except msgspec.ValidationError as wrong:
            raise ScenarioError(f"{origin}: {label}.{key}: {wrong}") from None
    try:
        replace(Settings(), **{**below, **overrides}).validate()
    except ValueError as wrong:
        raise ScenarioError(f"{origin}: [{label}] {wrong}") from None


def _check_groups(scenario: Scenario, origin: str) -> None:
    groups = [table.name for table in scenario.members]
    if len(dict.fromkeys(groups)) != len(groups):
        raise ScenarioError(f"{origin}: two tables of members have the same name.")
    for work in scenario.workload:
        if (work.rate_per_s > 0) is (work.load > 0):
            raise ScenarioError(f"{origin}: workload: either rate_per_s or load says how much is asked.")
    wanted = [("workload.by", work.by) for work in scenario.workload] + [
        ("faults.group", fault.group) for fault in scenario.faults
    ]
    for key, group in wanted:
        if group and group not in groups:
            raise ScenarioError(f"{origin}: {key}: no members named {group!r}{_perhaps(group, groups)}.")
    for fault in scenario.faults:
        if (fault.count > 0) is (fault.share > 0):
            raise ScenarioError(f"{origin}: faults.{fault.kind}: either count or share says how many machines it hits.")


def _perhaps(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""
