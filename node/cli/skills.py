"""`swarm skills`: what can be asked for, and who offers it."""

import click

from node.cli.client import ControlClient
from node.cli.options import Verb, pass_terminal
from node.cli.reading import read_list
from node.cli.terminal import Terminal, table
from node.views import SkillView


@click.command(cls=Verb)
@pass_terminal
def command(terminal: Terminal) -> None:
    """Show what can be asked for, and who offers it.

    Speeds are what the nodes claim of themselves.
    """
    data = ControlClient(terminal.home, terminal.timeout_s).get("/skills")
    skills = read_list(SkillView, data, "skills")
    if terminal.json:
        terminal.record(data)
    elif skills:
        terminal.out(_table(skills))
    else:
        terminal.say("Nobody offers anything yet. Add a model with: swarm models add FILE.gguf")


def _table(skills: list[SkillView]) -> str:
    rows = [
        [
            skill.skill,
            skill.model,
            skill.name,
            f"{skill.tokens_per_second:.0f}",
            f"{skill.first_token_ms} ms",
            skill.description,
        ]
        for skill in sorted(skills, key=lambda skill: (skill.skill, skill.model, skill.name, skill.node))
    ]
    return table(["SKILL", "MODEL", "PEER", "TOK/S", "FIRST", "ABOUT"], rows, right=["TOK/S", "FIRST"])
