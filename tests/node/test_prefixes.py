"""Instructions that several programs send are read once, and everybody knows where, through real nodes."""

from typing import Any

from tests.processes import RealNode, Starter

INSTRUCTIONS = "Answer as a librarian would, in two sentences, and name the shelf. " * 20


def asked(question: str, instructions: str = INSTRUCTIONS) -> list[dict[str, str]]:
    return [{"role": "system", "text": instructions}, {"role": "user", "text": question}]


def parts(node: RealNode, turns: list[dict[str, str]]) -> dict[str, dict[str, str]]:
    """What each worker would cost this node's user, in its parts."""
    found: dict[str, Any] = node.control("POST", "route", {"skill": "chat", "turns": turns})
    return {each["name"]: dict(each["parts"]) for each in found["candidates"]}


def test_who_has_read_the_instructions_of_several_is_known_to_a_third(start: Starter) -> None:
    """[ADV-11] What one has sent is told to nobody; what two have, to everybody; and what it saves is counted."""
    reader = start.start("reader", models=("echo:reads=400",))
    here = reader.addresses[:1]
    start.start("other", models=("echo:reads=400",), join=here)
    ada, bob, cyd = (start.start(name, join=here) for name in ("ada", "bob", "cyd"))
    for node in (ada, bob, cyd):
        node.wait_for("chat", 2)
    for node in (ada, ada):
        node.ask(None, turns=asked("Where is Darwin?"), peer="reader")
    ada.ask(None, turns=asked("And mine?", "This is nobody's business but my own. " * 20), peer="reader")
    reader.control("POST", "models", {"ref": "echo:model=second,skills=complete"})  # And so a new advert.
    cyd.wait_until(lambda: "second" in str(cyd.control("GET", "skills")))
    assert not any("prefix" in each for each in parts(cyd, asked("?")).values()), "so far only Ada has sent it"
    assert "prefix" in parts(ada, asked("?"))["reader"], "which she knows herself"

    bob.ask(None, turns=asked("Where is Wallace?"), peer="reader")
    reader.control("POST", "models", {"ref": "echo:model=third,skills=complete"})
    cyd.wait_until(lambda: "third" in str(cyd.control("GET", "skills")))
    found = parts(cyd, asked("?"))
    assert found["reader"]["prefix"] == "100 % held"
    assert "prefix" not in found["other"]
    reading = {name: int(each.get("reading", "0 ms").removesuffix(" ms")) for name, each in found.items()}
    assert reading["other"] > 500 > 150 > reading["reader"]
    mine = parts(cyd, asked("?", "This is nobody's business but my own. " * 20))
    assert not any("prefix" in each for each in mine.values())
    assert cyd.ask(None, turns=asked("Where is Linnaeus?"))[1]["name"] == "reader"
