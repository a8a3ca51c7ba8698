"""Who gets in: Host, Origin and key over TCP; nobody is asked on the Unix socket."""

import pytest
import trio
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ResponseReceived

from node import daemon
from node.settings import ApiSettings
from tests.node.api.raw_http import KEY, Served, served

BEARER = ("authorization", f"Bearer {KEY}")


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:{port}",
        "127.0.0.1:1",
        "127.0.0.1.evil.example",
        "localhost.",
        "[::1]:1",
        "127.1",
        "",
    ],
)
async def test_forged_host_is_refused_even_with_the_key(api: Served, host: str) -> None:
    reply = await api.get("/v1/models", [("host", host.format(port=api.port)), BEARER])
    assert reply.status == 403
    assert reply.error["code"] == "host_not_allowed"


async def test_forged_host_is_refused_where_no_key_is_asked(api: Served) -> None:
    assert (await api.get("/healthz", [("host", "evil.example")])).status == 403


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST:{port}", "[::1]:{port}", "127.0.0.1:{port}"])
async def test_own_names_are_accepted_with_the_right_port_or_none(api: Served, host: str) -> None:
    reply = await api.get("/v1/models", [("host", host.format(port=api.port)), BEARER])
    assert reply.status == 200


async def test_configured_host_is_accepted(tmp_path) -> None:
    async with served(tmp_path, hosts=("swarm.home", "proxy.home:8443")) as api:
        for host, status in [("swarm.home", 200), ("proxy.home:8443", 200), ("proxy.home", 403), ("swarm.home:1", 403)]:
            assert (await api.get("/v1/models", [("host", host), BEARER])).status == status, host


async def test_two_host_headers_are_refused(api: Served) -> None:
    async with api.connected() as conversation:
        raw = f"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:{api.port}\r\nHost: evil.example\r\n\r\n"
        await conversation.stream.send_all(raw.encode())
        status, _ = await conversation.begin()
    assert status == 400


async def test_request_without_a_host_is_refused(api: Served) -> None:
    async with api.connected() as conversation:
        await conversation.stream.send_all(f"GET /v1/models HTTP/1.0\r\nAuthorization: Bearer {KEY}\r\n\r\n".encode())
        assert (await conversation.begin())[0] == 403


@pytest.mark.parametrize("origin", ["null", "http://evil.example", "http://localhost:3000", "http://127.0.0.1"])
async def test_web_page_is_refused_even_with_the_key(api: Served, origin: str) -> None:
    reply = await api.get("/v1/models", [*api.good, ("origin", origin)])
    assert reply.status == 403
    assert reply.error["code"] == "origin_not_allowed"
    assert "api.origins" in reply.error["message"]
    assert "access-control-allow-origin" not in reply.headers


async def test_preflight_of_a_strange_page_is_refused(api: Served) -> None:
    headers = [("host", "localhost"), ("origin", "http://evil.example"), ("access-control-request-method", "POST")]
    assert (await api.get("/v1/chat/completions", headers, method="OPTIONS")).status == 403


async def test_listed_page_may_ask_and_read(tmp_path) -> None:
    page = ("origin", "http://localhost:3000")
    async with served(tmp_path, origins=("http://localhost:3000",)) as api:
        preflight = [("host", "localhost"), page, ("access-control-request-method", "POST")]
        allowed = await api.get("/v1/chat/completions", preflight, method="OPTIONS")
        assert allowed.status == 204
        assert "authorization" in allowed.headers["access-control-allow-headers"]
        reply = await api.get("/v1/models", [*api.good, page])
        assert reply.status == 200
        assert reply.headers["access-control-allow-origin"] == "http://localhost:3000"
        assert "x-swarm-task" in reply.headers["access-control-expose-headers"]
        assert (await api.get("/v1/models", [("host", "localhost"), page])).status == 401


@pytest.mark.parametrize(
    ("wanted", "allowed"),
    [
        ("authorization,content-type,x-stainless-lang", "authorization,content-type,x-stainless-lang"),
        ("x\xff", "authorization, content-type"),
        ("x: y", "authorization, content-type"),
        ("x" * 2049, "authorization, content-type"),
    ],
)
async def test_listed_page_may_send_headers_of_any_name(tmp_path, wanted: str, allowed: str) -> None:
    page = [("host", "localhost"), ("origin", "app://obsidian.md"), ("access-control-request-method", "POST")]
    async with served(tmp_path, origins=("app://obsidian.md",)) as api:
        headers = [(name, value.encode("latin-1")) for name, value in [*page, ("access-control-request-headers", wanted)]]
        answer = await api.get("/v1/chat/completions", headers, method="OPTIONS")
    assert (answer.status, answer.headers["access-control-allow-headers"]) == (204, allowed)


def test_node_answers_to_the_address_that_it_listens_on() -> None:
    assert daemon._access_rules(ApiSettings(listen="127.0.0.2:7976"), KEY).hosts == ("127.0.0.2",)
    rules = daemon._access_rules(ApiSettings("[::1]:1", ("my.box",), ("http://a.b",)), KEY)
    assert (rules.hosts, rules.origins) == (("my.box", "[::1]"), ("http://a.b",))


@pytest.mark.parametrize(
    "authorization", [None, "Bearer", "Bearer wrong", f"Basic {KEY}", KEY, f"Bearer {KEY}x", "Bearer \xff\xfe"]
)
@pytest.mark.parametrize("path", ["/v1/models", "/swarm/v1/status", "/nothing/here", "/"])
async def test_wrong_key_opens_nothing(api: Served, path: str, authorization: str | None) -> None:
    headers = [("host", "localhost")] + ([("authorization", authorization)] if authorization else [])
    reply = await api.get(path, [(name, value.encode("latin-1")) for name, value in headers])
    assert reply.status == 401
    assert reply.error["type"] == "authentication_error"
    assert reply.error["code"] == "invalid_api_key"
    assert reply.headers["www-authenticate"] == "Bearer"


async def test_key_is_never_in_an_answer(api: Served) -> None:
    for path in ("/v1/models", "/swarm/v1/status", "/nowhere"):
        assert KEY.encode() not in (await api.get(path)).body


async def test_liveness_needs_no_key(api: Served) -> None:
    assert (await api.get("/healthz", [("host", "localhost")])).status == 200
    assert (await api.get("/readyz", [("host", "localhost")])).status == 200


async def test_unix_socket_asks_for_nothing(api: Served) -> None:
    assert (await api.get("/swarm/v1/status", [("host", "anything.at.all")], unix=True)).status == 200


async def test_refused_upload_still_reads_why(api: Served) -> None:
    # More than socket buffers hold: without draining, the connection is reset under the answer.
    headers = [("host", "localhost"), ("content-type", "application/json")]
    reply = await api.post("/v1/chat/completions", b" " * 3_000_000, headers)
    assert reply.status == 401


async def test_websocket_is_refused(api: Served) -> None:
    headers = [
        *api.good,
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA=="),
    ]
    async with api.connected() as conversation:
        await conversation.send("GET", "/v1/models", headers)
        assert (await conversation.begin())[0] == 403


async def test_http2_does_not_lead_around_the_rules(api: Served) -> None:
    h2 = H2Connection(H2Configuration(client_side=True))
    h2.initiate_connection()
    pseudo = [(":method", "GET"), (":path", "/v1/models"), (":scheme", "http"), (":authority", "localhost")]
    h2.send_headers(1, [*pseudo, BEARER], end_stream=True)
    async with api.connected() as conversation:
        await conversation.stream.send_all(h2.data_to_send())
        with trio.fail_after(20):
            while True:
                events = h2.receive_data(await conversation.stream.receive_some(65_536))
                answered = [event for event in events if isinstance(event, ResponseReceived)]
                if answered:
                    break
    assert dict(answered[0].headers)[b":status"] == b"505"
