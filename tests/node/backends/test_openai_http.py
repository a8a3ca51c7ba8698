"""The backend for OpenAI-compatible servers, against a real one on loopback: good, bad and broken."""

import datetime
import ipaddress
import logging
import ssl
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from node.backends import BackendError, GenerationRequest
from node.backends.contract import ask, check_backend, running
from node.backends.openai_endpoint import KEY_VARIABLE
from node.backends.openai_http import OpenAIHttpBackend
from protocol.parts import Sampling, Turn
from tests.node.backends.openai_server import SURROUNDINGS, Exchange, backend_and_server, request, serving


async def failure_at_load(url: str) -> BackendError:
    with pytest.RaisesGroup(BackendError, flatten_subgroups=True, allow_unwrapped=True) as raised:
        async with running(OpenAIHttpBackend(url, SURROUNDINGS)):
            raise AssertionError("it must not load")
    error = raised.value
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, BackendError)
    return error


async def test_backend_keeps_the_contract() -> None:
    async with serving() as server:
        capabilities = await check_backend(lambda: OpenAIHttpBackend(server.url, SURROUNDINGS))
    assert {(c.skill, c.model, c.context_tokens) for c in capabilities} == {
        ("chat", "parrot", 2048),
        ("summarize", "parrot", 2048),
    }


async def test_counts_come_from_the_server() -> None:
    async with backend_and_server() as (backend, _):
        answer = await ask(backend, request())
    assert (answer.text, answer.generated.finish) == ("one two three", "stop")
    assert (answer.generated.tokens_in, answer.generated.tokens_out) == (7, 3)


async def test_the_request_says_what_was_asked_for() -> None:
    async with backend_and_server() as (backend, server):
        await ask(
            backend,
            GenerationRequest("chat", "parrot", (Turn("system", "be"), Turn("user", "a")), 9, Sampling(0.5, 0.9, seed=3), ("x",)),
        )
        body = server.asked[-1].body
    assert body["messages"] == [{"role": "system", "content": "be"}, {"role": "user", "content": "a"}]
    assert (body["max_tokens"], body["temperature"], body["top_p"], body["seed"], body["stop"]) == (
        9,
        0.5,
        0.9,
        3,
        ["x"],
    )


async def test_dice_that_are_not_as_usual_are_told_and_others_not() -> None:
    async with backend_and_server() as (backend, server):
        await ask(backend, request())
        assert not {"top_k", "min_p", "repeat_penalty", "presence_penalty", "frequency_penalty"} & server.asked[-1].body.keys()
        await ask(backend, replace(request(), sampling=Sampling(top_k=5, min_p=0.2, repeat_penalty=1.1, presence_penalty=1.0)))
        body = server.asked[-1].body
    assert (body["top_k"], body["min_p"], body["repeat_penalty"], body["presence_penalty"]) == (5, 0.2, 1.1, 1.0)


async def test_summarize_asks_the_model_for_a_summary() -> None:
    async with backend_and_server() as (backend, server):
        await ask(backend, request("the text", skill="summarize"))
        said = server.asked[-1].body["messages"][-1]["content"]
    assert "ummar" in said and "the text" in said


async def test_fragment_picks_the_model() -> None:
    async with serving() as server, running(OpenAIHttpBackend(f"{server.url}#other", SURROUNDINGS)) as capabilities:
        assert {capability.model for capability in capabilities} == {"other"}
        assert server.asked[-1].body["model"] == "other"


async def test_url_without_path_means_v1() -> None:
    async with serving() as server, running(OpenAIHttpBackend(f"http://127.0.0.1:{server.port}", SURROUNDINGS)):
        assert server.asked[0].path == "/v1/models"


async def test_a_model_that_is_not_there_is_named_with_those_that_are() -> None:
    async with serving() as server:
        error = await failure_at_load(f"{server.url}#perrot")
    assert '"perrot"' in str(error) and "parrot" in str(error)
    assert not error.retryable


async def test_nothing_listening_is_said_plainly() -> None:
    async with serving() as server:
        url = server.url
    error = await failure_at_load(url)
    assert f"Nothing answers at {url}" in str(error) and "is it running?" in str(error)


async def test_a_web_server_without_the_api_is_said_to_be_one() -> None:
    async with serving() as server:
        error = await failure_at_load(f"http://127.0.0.1:{server.port}/wiki")
    assert "no OpenAI-compatible endpoint" in str(error)


@pytest.mark.parametrize(
    "models", [{"data": []}, {"data": [{"id": "embedder"}]}, {"data": 5}, {}, {"data": [{"id": "\ud800"}]}]
)
async def test_a_server_without_models_is_refused(models: object) -> None:
    async with serving() as server:
        server.models = models
        assert "lists no model" in str(await failure_at_load(server.url))


async def stalled_after_two_words(exchange: Exchange) -> None:
    await exchange.begin()
    await exchange.word("one")
    await exchange.word(" two")


async def cut_off(exchange: Exchange) -> None:
    await stalled_after_two_words(exchange)
    # The connection closes inside of a chunked body.


async def ended_early(exchange: Exchange) -> None:
    await stalled_after_two_words(exchange)
    await exchange.end()


async def error_event(exchange: Exchange) -> None:
    await stalled_after_two_words(exchange)
    await exchange.event({"error": {"message": "out of memory\n(all of it)"}})
    await exchange.end()


async def no_json(exchange: Exchange) -> None:
    await stalled_after_two_words(exchange)
    await exchange.data(b"data: {oops\n\n")
    await exchange.end()


async def endless_line(exchange: Exchange) -> None:
    await stalled_after_two_words(exchange)
    for _ in range(40):
        await exchange.data(b"data: " + b"x" * 65_536)


async def deep_json(exchange: Exchange) -> None:
    await stalled_after_two_words(exchange)
    await exchange.data(b"data: " + b"[" * 100_000 + b"\n\n")


@pytest.mark.parametrize(
    ("chat", "says"),
    [
        (cut_off, "broke off"),
        (ended_early, "ended in the middle"),
        (error_event, "out of memory (all of it)"),
        (no_json, "no JSON"),
        (endless_line, "an event of more than"),
        (deep_json, "no JSON"),
    ],
)
async def test_a_broken_stream_is_a_failure_after_what_had_come(chat, says: str) -> None:  # type: ignore[no-untyped-def]
    async with backend_and_server() as (backend, server):
        server.chat = chat
        send, receive = trio.open_memory_channel[str](10)
        with pytest.raises(BackendError) as raised:
            await backend.generate(request(), send)
        assert says in str(raised.value) and server.url in str(raised.value)
        assert raised.value.retryable
        assert [receive.receive_nowait(), receive.receive_nowait()] == ["one", " two"]


async def finished_without_done(exchange: Exchange) -> None:
    await exchange.begin()
    await exchange.word("all")
    await exchange.word("", "stop")
    await exchange.end()


async def done_without_finish(exchange: Exchange) -> None:
    await exchange.begin()
    await exchange.data(b": a comment\r\n\r\nevent: message\r\n")
    await exchange.data(b'data: {"choices": [{"delta": {"content": "al')
    await exchange.data(b'l"}}]}\r\n\r\ndata:[DONE]\r\n\r\n')
    await exchange.end()


@pytest.mark.parametrize("chat", [finished_without_done, done_without_finish])
async def test_either_sign_of_the_end_is_enough(chat) -> None:  # type: ignore[no-untyped-def]
    async with backend_and_server() as (backend, server):
        server.chat = chat
        answer = await ask(backend, request())
    assert (answer.text, answer.generated.finish, answer.generated.tokens_out) == ("all", "stop", 1)


async def test_halves_of_characters_do_not_get_through() -> None:
    async def half(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.word("a\ud83d", "stop")
        await exchange.end()

    async with backend_and_server() as (backend, server):
        server.chat = half
        assert (await ask(backend, request())).text == "a?"


async def test_a_server_that_ignores_max_tokens_is_cut() -> None:
    async def talkative(exchange: Exchange) -> None:
        await exchange.begin()
        while True:
            await exchange.word("la ")

    async with backend_and_server() as (backend, server):
        server.chat = talkative
        answer = await ask(backend, request(tokens_max=5))
        assert (answer.text, answer.generated.finish) == ("la la la la la ", "length")
        with trio.fail_after(20):
            await server.broken_off.wait()


@pytest.mark.parametrize(
    ("status", "retryable"), [(400, False), (422, False), (404, False), (429, True), (500, True), (503, True)]
)
async def test_refusals_keep_the_servers_words(status: int, retryable: bool) -> None:
    async def refuse(exchange: Exchange) -> None:
        await exchange.json({"error": {"message": "context of 2048 is full"}}, status)

    async with backend_and_server() as (backend, server):
        server.chat = refuse
        with pytest.raises(BackendError, match=f"{status}: context of 2048 is full") as raised:
            await ask(backend, request())
        assert raised.value.retryable is retryable


async def test_older_servers_that_cannot_count_in_a_stream_are_served_too() -> None:
    async with serving() as server:
        good = server.chat

        async def strict(exchange: Exchange) -> None:
            if "stream_options" in exchange.body:
                await exchange.json({"detail": "extra field stream_options"}, 422)
            else:
                await good(exchange)

        server.chat = strict
        async with running(backend := OpenAIHttpBackend(server.url, SURROUNDINGS)):
            assert (await ask(backend, request())).text == "one two three"


async def test_the_key_reaches_the_server_and_nobody_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv(KEY_VARIABLE, "sk-from-environment")

    async def refuse(exchange: Exchange) -> None:
        await exchange.json({"error": {"message": f"bad {exchange.headers['authorization']}"}}, 400)

    async with serving() as server:
        async with running(OpenAIHttpBackend(server.url, SURROUNDINGS)):
            assert server.asked[-1].headers["authorization"] == "Bearer sk-from-environment"
        url = server.url.replace("//", "//:sk-from-url@")
        async with running(backend := OpenAIHttpBackend(url, SURROUNDINGS)):
            assert server.asked[-1].headers["authorization"] == "Bearer sk-from-url"
            server.chat = refuse
            with pytest.raises(BackendError) as raised:
                await ask(backend, request())
    assert "bad Bearer …" in str(raised.value)
    assert "sk-from" not in str(raised.value) + caplog.text + backend.url


async def test_a_refused_key_names_the_variable() -> None:
    async def unauthorized(exchange: Exchange) -> None:
        await exchange.json({"error": {"message": "no"}}, 401)

    async with serving(unauthorized) as server:
        error = await failure_at_load(server.url)
    assert KEY_VARIABLE in str(error) and not error.retryable


@pytest.mark.parametrize("argument", ["", "ftp://host/v1", "http://", "http://[::1", "http://host:99999/v1", "//x"])
def test_what_is_no_url_is_refused(argument: str) -> None:
    with pytest.raises(BackendError, match="needs a URL"):
        OpenAIHttpBackend(argument, SURROUNDINGS)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for 127.0.0.1 that nobody has signed, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "starlings test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path = tmp_path / "certificate.pem"
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM) + key.private_bytes(serialization.Encoding.PEM, *form)
    )
    return path


async def test_tls_is_spoken_and_certificates_are_checked(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    async with serving(tls=tls) as server:
        url = server.url.replace("http", "https")
        error = await failure_at_load(url)
        assert "no secure connection" in str(error) and not error.retryable
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        async with running(backend := OpenAIHttpBackend(url, SURROUNDINGS)):
            assert (await ask(backend, request())).text == "one two three"


async def test_cancelling_a_call_ends_it_at_the_server() -> None:
    async def endless(exchange: Exchange) -> None:
        await exchange.begin()
        while True:
            await exchange.word("la ")

    async with backend_and_server() as (backend, server):
        server.chat = endless
        send, receive = trio.open_memory_channel[str](0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(backend.generate, request(tokens_max=32_768), send)
            await receive.receive()
            nursery.cancel_scope.cancel()
        with trio.fail_after(20):
            await server.broken_off.wait()


# --- Vectors and judgements -------------------------------------------------------------------------------------------

VECTOR = {"data": [{"index": 0, "embedding": [3, -4.0]}], "usage": {"prompt_tokens": 5}}
JUDGEMENT = {"results": [{"index": 0, "relevance_score": -1.25}], "usage": {"prompt_tokens": 9}}
PAIR = (Turn("user", "who sings?"), Turn("user", "a wren"))


async def cannot_chat(exchange: Exchange) -> None:
    await exchange.json({"error": {"message": "this model does not support chat"}}, 400)


@pytest.mark.parametrize("model", ["text-embedder", "parrot"])
async def test_a_server_makes_vectors(model: str) -> None:
    """With a model that is called so, and with one of which it is found out."""
    async with serving(cannot_chat) as server:
        server.others["/v1/embeddings"] = (VECTOR, 200)
        async with running(backend := OpenAIHttpBackend(f"{server.url}#{model}", SURROUNDINGS)) as offered:
            assert [(each.skill, each.model, each.features) for each in offered] == [("embed", model, ())]
            answer = await ask(backend, replace(request("a bird", skill="embed"), model=model))
            assert (answer.text, answer.generated.tokens_in) == ("[0.6, -0.8]", 5)
            assert server.asked[-1].body == {"model": model, "input": "a bird", "encoding_format": "float"}
            with pytest.raises(BackendError, match="does embed; not"):
                await ask(backend, replace(request(), model=model))


async def test_a_server_judges() -> None:
    async with serving() as server:
        server.models = {"data": [{"id": "bge-Reranker-v2"}]}
        server.others["/v1/rerank"] = (JUDGEMENT, 200)
        async with running(backend := OpenAIHttpBackend(f"{server.url}#bge-Reranker-v2", SURROUNDINGS)) as offered:
            assert [each.skill for each in offered] == ["rerank"]
            answer = await ask(backend, replace(request(skill="rerank"), model="bge-Reranker-v2", turns=PAIR))
            assert (answer.text, answer.generated.tokens_in) == ("-1.25", 9)
            assert server.asked[-1].body == {"model": "bge-Reranker-v2", "query": "who sings?", "documents": ["a wren"]}
            with pytest.raises(BackendError, match="a question and a text"):
                await ask(backend, replace(request(skill="rerank"), model="bge-Reranker-v2"))


@pytest.mark.parametrize(
    "said", [{}, {"data": []}, {"data": [{"embedding": []}]}, {"data": [{"embedding": ["1"]}]}, {"data": [{"embedding": [True]}]}]
)
async def test_what_is_no_vector_is_not_passed_on(said: dict[str, object]) -> None:
    async with serving(cannot_chat) as server:
        server.others["/v1/embeddings"] = (VECTOR, 200)
        async with running(backend := OpenAIHttpBackend(f"{server.url}#text-embedder", SURROUNDINGS)):
            server.others["/v1/embeddings"] = (said, 200)
            with pytest.raises(BackendError, match="sends what is no vector") as raised:
                await ask(backend, replace(request(skill="embed"), model="text-embedder"))
            assert raised.value.retryable


async def test_a_model_that_can_do_nothing_is_told_of_in_the_servers_words() -> None:
    async with serving(cannot_chat) as server:
        assert "does not support chat" in str(await failure_at_load(server.url))
