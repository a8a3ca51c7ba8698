"""What a request may demand, through real nodes: only a worker that can do it is asked."""

import json
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.node.backends.llama_cpp.bert_files import RANK, tiny_bert
from tests.node.backends.llama_cpp.gguf_files import SMOLLM2
from tests.processes import RealNode, Starter

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 10}, "age": {"type": "integer", "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


def client(node: RealNode) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{node.api}/v1", api_key=node.key, max_retries=0, timeout=60)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_demands_cross_the_swarm_to_a_worker_that_can_meet_them(start: Starter, tmp_path: Path) -> None:
    """[CND-14] Four nodes: one asks, one only echoes, one has a chat model, one makes vectors and judges."""
    asker = start.start("asker")
    here = asker.addresses[:1]
    start.start("parrot", models=("echo:",), join=here)
    start.start("writer", models=(f"llama_cpp:smollm2={SMOLLM2}",), join=here)
    judge = str(tiny_bert(tmp_path / "judge.gguf", pooling=RANK))
    start.start("mapper", models=(str(tiny_bert(tmp_path / "tiny.gguf")), judge), join=here)
    asker.wait_for("complete")
    asker.wait_for("embed")
    asker.wait_for("rerank")
    asker.wait_for("chat", 2)

    [speaks] = [each for each in asker.control("GET", "skills")["skills"] if (each["skill"], each["name"]) == ("chat", "writer")]
    assert (speaks["slots"], speaks["tokens_in_per_second"] > 0) == (16, True)
    assert 1 <= speaks["speedup"] < 16, "its conversations share a processor, and everybody knows"

    with client(asker) as api:
        for _ in range(3):
            answer = api.chat.completions.create(
                model="auto", messages=[{"role": "user", "content": "Who lives here?"}], max_tokens=60, temperature=0,
                response_format={"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON}},
                logprobs=True, top_logprobs=1,
            )  # fmt: skip
            assert set(json.loads(answer.choices[0].message.content or "")) == {"name", "age"}
            assert (answer.model, answer.swarm["name"]) == ("smollm2", "writer")  # type: ignore[attr-defined]
            told = answer.choices[0].logprobs
            assert told is not None and told.content is not None
            assert bytes(byte for each in told.content for byte in each.bytes or []).decode() == answer.choices[0].message.content
        choice = api.completions.create(
            model="auto", prompt="The capital of France is", extra_body={"swarm": {"options": [" Paris", " Rome"]}}
        )
        assert choice.choices[0].text == " Paris"
        scored = api.completions.create(model="smollm2", prompt="The sky is blue", echo=True, max_tokens=0, logprobs=1)
        assert scored.choices[0].text == "The sky is blue"
        assert scored.choices[0].logprobs is not None
        assert len(scored.choices[0].logprobs.token_logprobs or []) == 4
        vectors = api.embeddings.create(model="auto", input=["a bird", "a wren", "a bird"])
        assert vectors.data[0].embedding == pytest.approx(vectors.data[2].embedding, abs=1e-3)
        assert len(vectors.data[1].embedding) == 32
        ranked = api.post("/rerank", body={"query": "who sings", "documents": ["a wren", "a reed"]}, cast_to=dict[str, Any])
        assert {each["index"] for each in ranked["results"]} == {0, 1}
        assert ranked["results"][0]["relevance_score"] > ranked["results"][1]["relevance_score"]
        with pytest.raises(openai.BadRequestError, match="the schema cannot be used: Invalid type: bird"):
            api.chat.completions.create(
                model="auto", messages=[{"role": "user", "content": "?"}],
                response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "bird"}}},
            )  # fmt: skip
        with pytest.raises(openai.NotFoundError, match='"smollm2" does not offer the skill "embed"'):
            api.embeddings.create(model="smollm2", input="x")
        with pytest.raises(openai.InternalServerError, match="no known worker can do chat with echo, schema"):
            api.chat.completions.create(
                model="echo", messages=[{"role": "user", "content": "?"}], response_format={"type": "json_object"},
                extra_body={"swarm": {"deadline_s": 8}},
            )  # fmt: skip

        form = {"type": "json_schema", "name": "person", "schema": PERSON}
        with api.responses.stream(
            model="auto", input="Who lives here?", max_output_tokens=60, temperature=0, text={"format": form}
        ) as stream:
            said = stream.get_final_response()
        assert (said.output_text, said.status) == (answer.choices[0].message.content, "completed"), "one answer in other words"

    text, end = asker.ask("Is a wren a bird?", options=["yes", "no"])
    assert (text in ("yes", "no"), end["name"]) == (True, "writer")
