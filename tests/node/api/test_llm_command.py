"""The `llm` command, unmodified, in a process of its own with nothing but a model file that names this API."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from node.desk import AskText
from protocol import errors as codes
from tests.node.api.raw_http import KEY, Served
from tests.node.api.scripted_desk import failed, routed


def configured(folder: Path, url: str, key: str) -> dict[str, str]:
    """The environment of an `llm` that knows the swarm."""
    folder.mkdir()
    (folder / "keys.json").write_text(json.dumps({"swarm": key}))
    (folder / "extra-openai-models.yaml").write_text(
        "".join(
            f"- model_id: swarm-{name}\n  model_name: {model}\n  api_base: {url}/v1\n  api_key_name: swarm\n"
            for name, model in [("auto", "auto"), ("summarize", "skill:summarize"), ("gone", "gpt-4o")]
        )
    )
    # No plug-ins: others that happen to be installed are not under test.
    return {**os.environ, "LLM_USER_PATH": str(folder), "LLM_LOAD_PLUGINS": "", "NO_COLOR": "1"}


async def llm(env: dict[str, str], *arguments: str) -> subprocess.CompletedProcess:
    with trio.fail_after(120):
        return await trio.run_process(
            [sys.executable, "-m", "llm", *arguments], env=env, capture_stdout=True, capture_stderr=True, check=False
        )


@pytest.mark.parametrize("streaming", [[], pytest.param(["--no-stream"], marks=pytest.mark.slow)])
async def test_prompt_is_answered(api: Served, tmp_path: Path, streaming: list[str]) -> None:
    env = configured(tmp_path / "llm", api.url, KEY)
    ended = await llm(env, "prompt", "-m", "swarm-auto", *streaming, "one two three")
    assert (ended.returncode, ended.stdout.decode().strip()) == (0, "one two three"), ended.stderr
    assert api.desk.asked[0].skill == "chat"


@pytest.mark.slow
async def test_skill_and_options_reach_the_task(api: Served, tmp_path: Path) -> None:
    env = configured(tmp_path / "llm", api.url, KEY)
    ended = await llm(
        env,
        "prompt",
        "-m",
        "swarm-summarize",
        "-s",
        "be brief",
        "-o",
        "temperature",
        "0.25",
        "-o",
        "max_tokens",
        "9",
        "x",
    )
    assert ended.returncode == 0, ended.stderr
    task = api.desk.asked[0]
    assert (task.skill, task.sampling.temperature, task.tokens_max) == ("summarize", 0.25, 9)
    assert [(turn.role, turn.text) for turn in task.turns] == [("system", "be brief"), ("user", "x")]


async def test_worker_lost_in_mid_stream_is_not_a_success(api: Served, tmp_path: Path) -> None:
    api.desk.answers = lambda task: [routed(task), AskText("so far"), failed(task, codes.STREAM_BROKEN, "wren is gone")]
    ended = await llm(configured(tmp_path / "llm", api.url, KEY), "prompt", "-m", "swarm-auto", "x")
    assert ended.returncode != 0
    assert b"wren is gone" in ended.stderr


@pytest.mark.slow
async def test_wrong_key_and_unknown_model_are_told(api: Served, tmp_path: Path) -> None:
    wrong = await llm(configured(tmp_path / "wrong", api.url, "sk-wrong"), "prompt", "-m", "swarm-auto", "x")
    assert wrong.returncode != 0
    assert b"API key is wrong" in wrong.stderr
    gone = await llm(configured(tmp_path / "gone", api.url, KEY), "prompt", "-m", "swarm-gone", "x")
    assert gone.returncode != 0
    assert b"smollm2-135m" in gone.stderr
