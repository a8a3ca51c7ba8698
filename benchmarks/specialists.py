"""Composite questions: a plan over two small specialists, beside the same small language model given the whole question.

Three kinds, drawn by a seed: how many of eight sentences are in a language, in which language most of nine are, and which of six is
not in the language of the others. The plan has each sentence named by a classifier of one megabyte and does the rest by itself.
SmolLM2 chooses among the possible answers (the likeliest of them, so it never misses the form), asked in three ways; the best of
these, known only afterwards, is what counts for it.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from time import perf_counter
from typing import Any

from benchmarks.figures import Figure, percentile
from benchmarks.sentences import SENTENCES
from tests.processes import RealNode, real_nodes

SEED = 5
EACH = int(os.environ.get("TASKS", "12"))  # Of each kind.
LANGUAGES = tuple(SENTENCES)
NAMED = {"id": "language", "op": "map", "over": "${texts}"}
CALL = {"skill": "classify:language", "text": "${item}", "stops": [" ("]}  # "Portuguese (pt), 0.98"


@dataclass(frozen=True, slots=True)
class Question:
    """`options` are the possible answers; `steps` make the plan whose last step is the answer."""

    kind: str
    texts: tuple[str, ...]
    wording: str
    options: tuple[str, ...]
    answer: str
    steps: tuple[dict[str, Any], ...]


def measure(folder: Path) -> list[Figure]:
    dice = Random(SEED)
    questions = [make(dice) for make in (_count, _most, _odd) for _ in range(EACH)]
    shown = [make(dice) for make in (_count, _most, _odd)]  # One of each kind, as an example.
    readings: dict[str, Callable[[Question], dict[str, Any]]] = {
        "asked": lambda question: _chat(question, None),
        "asked, with an example": lambda question: _chat(question, _example(question, shown)),
        "as a text to go on with": lambda question: _complete(question, _example(question, shown)),
    }
    with real_nodes(folder) as start:
        asker = start.start("asker")
        start.start("linguist", models=("language",), join=asker.addresses)
        start.start("talker", models=("smollm2-135m",), join=asker.addresses)
        asker.wait_for("classify:language")
        asker.wait_for("chat")
        planned = [_planned(asker, question) for question in questions]
        alone = {name: [_alone(asker, question, words(question)) for question in questions] for name, words in readings.items()}
    best = max(alone, key=lambda name: sum(right for right, _ in alone[name]))
    figures = []
    for kind in ("count", "most", "odd"):
        both = f"{_share(planned, questions, kind)} / {_share(alone[best], questions, kind)}"
        figures.append(Figure(f"{kind}: right by the plan / by one model", both))
    by_plan, by_one = sum(right for right, _ in planned), sum(right for right, _ in alone[best])
    total = len(questions)
    figures.append(
        Figure(f"all {total}", f"{by_plan / total:.0%} / {by_one / total:.0%}", ">= 90 %, +50 points",
               by_plan >= 0.9 * total and by_plan - by_one >= 0.5 * total)
    )  # fmt: skip
    figures += [Figure(f"one model, {name}", f"{sum(right for right, _ in alone[name]) / total:.0%}") for name in alone]
    plan_s, one_s = (percentile([s for _, s in ends], 0.5) for ends in (planned, alone[best]))
    figures.append(Figure("time for an answer p50, plan / one model", f"{plan_s:.2f} / {one_s:.2f} s ({one_s / plan_s:.0f}x)"))
    return figures


def _planned(asker: RealNode, question: Question) -> tuple[bool, float]:
    began = perf_counter()
    steps = [{**NAMED, "call": CALL}, *question.steps]
    inputs = {"texts": question.texts, "places": list(range(1, len(question.texts) + 1))}
    end = asker.plan({"inputs": inputs, "steps": steps, "out": "${" + steps[-1]["id"] + "}"})
    return str(end["value"]) == question.answer, perf_counter() - began


def _alone(asker: RealNode, question: Question, wishes: dict[str, Any]) -> tuple[bool, float]:
    began = perf_counter()
    text, _ = asker.ask(wishes.pop("text"), options=list(question.options), peer="talker", **wishes)
    return text.strip() == question.answer, perf_counter() - began


def _share(ends: list[tuple[bool, float]], questions: list[Question], kind: str) -> str:
    of_kind = [right for (right, _), question in zip(ends, questions, strict=True) if question.kind == kind]
    return f"{sum(of_kind)} of {len(of_kind)}"


# --- The questions --------------------------------------------------------------------------------------------------------


def _count(dice: Random) -> Question:
    target, how_many = dice.choice(LANGUAGES), dice.randint(0, 8)
    others = [sentence for name in LANGUAGES if name != target for sentence in SENTENCES[name]]
    texts = dice.sample(SENTENCES[target], how_many) + dice.sample(others, 8 - how_many)
    dice.shuffle(texts)
    step = {"id": "count", "op": "reduce", "over": "${language}", "fn": "count", "where": {"is": target}}
    options = tuple(map(str, range(9)))
    return Question("count", tuple(texts), f"How many of these sentences are in {target}?", options, str(how_many), (step,))


def _most(dice: Random) -> Question:
    target, *others = dice.sample(LANGUAGES, 5)
    texts = dice.sample(SENTENCES[target], 4)
    for number in range(5):
        texts.append(dice.choice([text for text in SENTENCES[others[number % 4]] if text not in texts]))
    dice.shuffle(texts)
    step = {"id": "most", "op": "reduce", "over": "${language}", "fn": "mode"}
    return Question("most", tuple(texts), "In which language are most of these sentences?", LANGUAGES, target, (step,))


def _odd(dice: Random) -> Question:
    usual, other = dice.sample(LANGUAGES, 2)
    texts = dice.sample(SENTENCES[usual], 5)
    place = dice.randint(1, 6)
    texts.insert(place - 1, dice.choice(SENTENCES[other]))
    steps = (
        {"id": "usual", "op": "reduce", "over": "${language}", "fn": "mode"},
        {"id": "odd", "op": "filter", "over": "${places}", "by": "${language}", "where": {"not": {"is": "${usual}"}}},
        {"id": "first", "op": "reduce", "over": "${odd}", "fn": "first"},
    )
    wording = "Which of these sentences is not in the same language as the others? Give its number."
    return Question("odd", tuple(texts), wording, tuple(map(str, range(1, 7))), str(place), steps)


# --- One model ------------------------------------------------------------------------------------------------------------


def _written(question: Question) -> str:
    lines = "\n".join(f"{number}. {text}" for number, text in enumerate(question.texts, 1))
    return f"{lines}\n\n{question.wording}"


def _example(question: Question, shown: list[Question]) -> Question:
    return next(each for each in shown if each.kind == question.kind)


def _chat(question: Question, example: Question | None) -> dict[str, Any]:
    before = f"{_written(example)}\nAnswer: {example.answer}\n\n" if example else ""
    return {"skill": "chat", "text": f"{before}{_written(question)}\nAnswer with one word."}


def _complete(question: Question, example: Question) -> dict[str, Any]:
    return {"skill": "complete", "text": f"{_written(example)}\nAnswer: {example.answer}\n\n{_written(question)}\nAnswer: "}
