"""The baselines of another revision of the project, out of git: what has changed in the figures since, without playing anything."""

import json
import subprocess
from typing import Any

from simulations.report import TOLERANCE, TOLERANCES, is_near
from simulations.scenario import BASELINES, ScenarioError

ROOT = BASELINES.parent.parent
FOLDER = BASELINES.relative_to(ROOT).as_posix()

Baselines = dict[str, dict[str, float]]
"""Scenario to its figures."""


def baselines_here() -> Baselines:
    """As they are in the folder now."""
    return {path.stem: _figures(path.read_bytes()) for path in sorted(BASELINES.glob("*.json"))}


def baselines_of(revision: str) -> Baselines:
    """As they were. Raises ScenarioError if there is no git, or no such revision."""
    listed = _git("ls-tree", "--name-only", f"{revision}:{FOLDER}").decode().split()
    return {
        name.removesuffix(".json"): _figures(_git("show", f"{revision}:{FOLDER}/{name}"))
        for name in sorted(listed)
        if name.endswith(".json")
    }


def changes(one: Baselines, two: Baselines) -> str:
    """Each figure that differs, and by how much; `<--` marks what is more than chance is taken for."""
    lines: list[str] = []
    for name in sorted({*one, *two}):
        before, after = one.get(name), two.get(name)
        if before is None or after is None:
            lines.append(f"{name}: {'new' if before is None else 'gone'}")
            continue
        rows = [_row(figure, before.get(figure), after.get(figure)) for figure in dict.fromkeys([*before, *after])]
        if any(rows):
            lines += [f"{name}:", *filter(None, rows)]
    return "\n".join(lines) or "No figure of any baseline differs."


def _row(name: str, was: float | None, now: float | None) -> str:
    if was == now:
        return ""
    if was is None or now is None:
        return f"  {name:<24}{'new' if was is None else 'gone':>14}"
    ratio = f"{now / was:>8.2f}x" if was else f"{'':>9}"
    mark = "" if is_near(now, was, *TOLERANCES.get(name, TOLERANCE)) else "   <--"
    return f"  {name:<24}{was:>14,.6g}{now:>14,.6g}{ratio}{mark}"


def _figures(raw: bytes) -> dict[str, float]:
    kept: dict[str, Any] = json.loads(raw)
    figures: dict[str, float] = kept["figures"]
    return figures


def _git(*args: str) -> bytes:
    try:
        done = subprocess.run(["git", *args], cwd=ROOT, capture_output=True, check=False)
    except OSError as wrong:
        raise ScenarioError(f"git cannot be run: {wrong}") from None
    if done.returncode:
        raise ScenarioError(f"git {' '.join(args)}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout
