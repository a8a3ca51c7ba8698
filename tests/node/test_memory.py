"""More models than memory, in a real node: who is asked for is loaded, and who was not leaves."""

import json

import psutil

from node.memory import model_memory, process_bytes
from tests.node.backends.llama_cpp.gguf_files import SMOLLM2
from tests.processes import RealNode, Starter


def states(node: RealNode) -> dict[str, str]:
    return {model["model"]: model["state"] for model in node.control("GET", "models")["models"]}


def children(node: RealNode) -> int:
    return sum("llama_cpp.child" in " ".join(child.cmdline()) for child in psutil.Process(node.process.pid).children())


def test_two_models_share_the_memory_of_one(start: Starter) -> None:
    """SmolLM2 takes about 150 MB; there are 200 for both."""
    refs = tuple(f"llama_cpp:{name}={SMOLLM2}" for name in ("left", "right"))
    worker = start.start("worker", models=refs, **{"offer.memory": "200MB"})
    assert states(worker) == {"left": "resting", "right": "ready"}
    asker = start.start("asker", join=worker.addresses[:1])
    asker.wait_for("chat", 2)
    for model, other in (("left", "right"), ("left", "right"), ("right", "left")):
        text, end = asker.ask("Say hello.", model=model, tokens_max=4)
        assert (end["code"], end["model"], bool(text)) == ("", model, True), json.dumps(end)
        assert states(worker) == {model: "ready", other: "resting"}
        assert children(worker) == 1
    asker.wait_until(lambda: _first_token_ms(asker, "left") > 3 * _first_token_ms(asker, "right"))
    removed = worker.control("POST", "models/remove", {"ref": "right"})
    assert removed["model"] == "right"
    asker.wait_until(lambda: _offered(asker) == {"left"})
    assert asker.ask("Say hello.", tokens_max=4)[1]["model"] == "left"


def _offered(node: RealNode) -> set[str]:
    return {offer["model"] for offer in node.control("GET", "skills")["skills"]}


def _first_token_ms(node: RealNode, model: str) -> int:
    return next(
        int(offer["first_token_ms"])
        for offer in node.control("GET", "skills")["skills"]
        if (offer["model"], offer["skill"]) == (model, "chat")
    )


def test_memory_is_that_of_this_machine() -> None:
    assert 0 < model_memory() < psutil.virtual_memory().total
    assert process_bytes(psutil.Process().pid) > 10 * 2**20
    assert process_bytes(None) == process_bytes(2**22 + 1) == 0
