"""`make demo`: three real nodes on this machine form a swarm, two of them answer and share a plan, and nothing is left running.

Everything here is what a user would type; the demo only types it, in three homes of its own under a temporary folder.
"""

import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLAN = ROOT / "tools" / "demo_plan.json"
LOOPBACK = ["--offline", "--listen", "/ip4/127.0.0.1/tcp/0", "--api", "127.0.0.1:0"]
NOTICE = (
    "The town library is closed next week because its old heating is being replaced. Books that are due in that week can be "
    "returned until the following Monday without a fee. The reading room in the school next door stays open every afternoon."
)
QUESTION = "Onde fica a estação de comboios mais próxima?"


class Demo:
    """Types commands, shows them as they are typed, and remembers which homes have a node to stop."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: list[str] = []

    def run(self) -> None:
        say("Three nodes, each a process with a key of its own. The first has no model: it can only ask.")
        self.up("asker", "--no-models")
        address = json.loads(self.swarm("asker", "status", "--json", quiet=True))["addresses"][0]
        say("The second chats and summarises: SmolLM2, 135 million parameters, on your processor.")
        self.up("talker", "--model", "smollm2-135m", "--join", address)
        say("The third is a specialist of one megabyte: it knows 176 languages by sight.")
        self.up("linguist", "--model", "language", "--join", address)
        say("Who is here, as the asker sees it:")
        self.wait_for_skills(3)
        self.swarm("asker", "peers")
        say(f"Two tasks for the asker, who cannot do either. A summary:\n\n{indented(NOTICE)}")
        self.swarm("asker", "ask", "--skill", "summarize", "--why", NOTICE, shown='"…"')
        say("And a question that a small language model gets wrong, and a smaller specialist right:")
        self.swarm("asker", "ask", "--skill", "classify:language", "--why", QUESTION)
        say("Four messages in three languages; what do those in English say? Nobody here can do that. A plan shares it out:")
        self.swarm("asker", "plan", str(PLAN), shown=str(PLAN.relative_to(ROOT)))

    def up(self, node: str, *arguments: str) -> None:
        self._started.append(node)
        self.swarm(node, "up", "--name", node, *LOOPBACK, *arguments, hidden=len(LOOPBACK) + 2)

    def wait_for_skills(self, count: int) -> None:
        """Adverts travel within a fraction of a second; this asks until they are here."""
        for _ in range(100):
            if len(json.loads(self.swarm("asker", "skills", "--json", quiet=True))["skills"]) >= count:
                return
        raise SystemExit("demo: the nodes have not found each other; see `swarm doctor`")

    def stop(self) -> None:
        say("Stopping all three.")
        for node in reversed(self._started):
            self.swarm(node, "down", checked=False)

    def swarm(
        self,
        node: str,
        verb: str,
        *arguments: str,
        hidden: int = 0,
        shown: str = "",
        quiet: bool = False,
        checked: bool = True,
    ) -> str:
        """One command of one node. `hidden` arguments are left out of what is shown: they only keep demo homes apart."""
        if not quiet:
            visible = [*arguments[:-1], shown] if shown else list(arguments[hidden:])
            words = " ".join(word if word == shown else shlex.quote(word) for word in visible)
            print(f"\n[{node}] $ swarm {verb} {words}".rstrip(), flush=True)
        done = subprocess.run(
            [sys.executable, "-m", "node.cli", verb, *arguments],
            env=os.environ | {"SWARM_HOME": str(self._folder / node), "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE if quiet else None,
            text=True,
            check=False,
        )
        if done.returncode and checked:
            raise SystemExit(f"demo: `swarm {verb}` has failed with exit code {done.returncode}")
        return done.stdout or ""


def say(text: str) -> None:
    print(f"\n{text}", flush=True)


def indented(text: str) -> str:
    words, lines = text.split(), [" "]
    for word in words:
        if len(lines[-1]) + len(word) > 96:
            lines.append(" ")
        lines[-1] += " " + word
    return "\n".join(lines)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="starlings-demo-") as folder:
        demo = Demo(Path(folder))
        try:
            demo.run()
        except KeyboardInterrupt:
            print("\ninterrupted", flush=True)
            sys.exit(130)
        finally:
            demo.stop()
    say('Yours to try:  .venv/bin/swarm up --model smollm2-135m     then     .venv/bin/swarm ask "…"')


if __name__ == "__main__":
    main()
