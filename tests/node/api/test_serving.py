"""Listening: what is bound and how, what is refused, and clients that hold on too long."""

import os
import resource
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio
import trio.testing

from node.api import serving
from node.api.access import AccessRules
from node.api.app import make_app
from node.api.serving import ApiBindError, serve
from node.desk import AskText
from tests.node.api.raw_http import KEY, Served, served
from tests.node.api.scripted_desk import ScriptedDesk, done, without_journal

CHAT = "/v1/chat/completions"
HELLO = {"messages": [{"role": "user", "content": "hello"}], "stream": True}


def app():
    desk = ScriptedDesk()
    return make_app(desk, AccessRules(KEY), *without_journal(desk), deadline_s=60.0)


async def refusal(tcp: tuple[str, int] | None, path: Path) -> str:
    async with trio.open_nursery() as nursery:
        with trio.fail_after(20), pytest.raises(ApiBindError) as refused:
            await nursery.start(serve, app(), tcp, path)
        nursery.cancel_scope.cancel()
    return str(refused.value)


async def test_port_zero_becomes_a_real_port_on_loopback_only(api: Served) -> None:
    assert api.port > 0
    assert (await api.get("/healthz")).status == 200


async def test_control_socket_is_for_its_owner_alone(api: Served) -> None:
    assert stat.S_IMODE(api.socket.stat().st_mode) == 0o600


async def test_control_socket_is_gone_after_the_server(tmp_path: Path) -> None:
    async with served(tmp_path) as api:
        assert api.socket.exists()
    assert not api.socket.exists()


async def test_socket_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    async with served(tmp_path) as api:
        api.socket.unlink()
        api.socket.write_text("not ours")
    assert api.socket.read_text() == "not ours"


async def test_taken_port_is_named_with_the_next_step(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = await refusal(("127.0.0.1", port), tmp_path / "control.sock")
    assert f"127.0.0.1:{port} is taken" in said
    assert "--api" in said
    assert not (tmp_path / "control.sock").exists()


async def test_second_node_on_the_same_port_is_refused(api: Served, tmp_path: Path) -> None:
    assert "taken" in await refusal(("127.0.0.1", api.port), tmp_path / "other.sock")


async def test_second_node_on_the_same_socket_is_refused_and_the_first_lives(api: Served) -> None:
    assert "Another node" in await refusal(("127.0.0.1", 0), api.socket)
    assert (await api.get("/healthz", unix=True)).status == 200


async def test_socket_of_a_dead_node_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "control.sock"))
    async with served(tmp_path) as api:
        assert (await api.get("/healthz", unix=True)).status == 200


async def test_file_in_the_sockets_place_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "control.sock").write_text("precious")
    assert "not a socket" in await refusal(None, tmp_path / "control.sock")
    assert (tmp_path / "control.sock").read_text() == "precious"


@pytest.mark.parametrize("name", ["x" * 120, "missing/control.sock"])
async def test_socket_path_that_cannot_be_is_named(tmp_path: Path, name: str) -> None:
    said = await refusal(None, tmp_path / name)
    assert name in said
    assert "too long" in said or "No such file" in said


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.7", "::", "example.org", ""])
async def test_only_loopback_is_listened_on(tmp_path: Path, host: str) -> None:
    assert "127.0.0.1" in await refusal((host, 0), tmp_path / "control.sock")


async def test_without_tcp_only_the_socket_is_served(tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        assert await nursery.start(serve, app(), None, tmp_path / "control.sock") == 0
        served_here = Served(ScriptedDesk(), 0, tmp_path / "control.sock", trio.CancelScope(), trio.Event())
        assert (await served_here.get("/healthz", unix=True)).status == 200
        nursery.cancel_scope.cancel()


async def test_port_is_free_again_at_once(tmp_path: Path) -> None:
    async with served(tmp_path) as api:
        assert (await api.get("/healthz")).status == 200
    async with trio.open_nursery() as nursery:
        assert await nursery.start(serve, app(), ("127.0.0.1", api.port), tmp_path / "again.sock") == api.port
        nursery.cancel_scope.cancel()


async def test_connection_is_used_again(api: Served) -> None:
    async with api.connected() as conversation:
        for _ in range(3):
            await conversation.send("GET", "/v1/models", api.good)
            assert (await conversation.reply()).status == 200
        await api.begin_post(conversation, CHAT, HELLO)
        assert (await conversation.reply()).status == 200
        await conversation.send("GET", "/healthz", api.good)
        assert (await conversation.reply()).status == 200


@pytest.mark.parametrize("stream", [False, True])
async def test_idle_connection_is_closed_after_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: bool) -> None:
    monkeypatch.setattr(serving, "KEEP_ALIVE_S", 0.2)
    async with served(tmp_path) as api, api.connected() as conversation:
        await api.begin_post(conversation, CHAT, {**HELLO, "stream": stream})
        assert (await conversation.reply()).status == 200
        with trio.fail_after(20):
            assert await conversation.stream.receive_some(1) == b""


async def test_stream_closes_when_the_client_asked_for_it(api: Served) -> None:
    async with api.connected() as conversation:
        await api.begin_post(conversation, CHAT, HELLO, [*api.good, ("connection", "close")])
        assert (await conversation.reply()).status == 200
        with trio.fail_after(20):
            assert await conversation.stream.receive_some(1) == b""


@pytest.mark.parametrize("connection", ["close", "keep-alive"])
async def test_connections_over_the_bound_wait_and_are_served_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, connection: str
) -> None:
    monkeypatch.setattr(serving, "CONNECTIONS_MAX", 4)
    async with served(tmp_path) as api:
        finished = 0

        async def ask() -> None:
            nonlocal finished
            assert (await api.get("/healthz", [*api.good, ("connection", connection)])).status == 200
            finished += 1

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for _ in range(50):
                    nursery.start_soon(ask)
        assert finished == 50


async def test_tcp_clients_cannot_crowd_out_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "CONNECTIONS_MAX", 2)
    async with served(tmp_path) as api, api.connected(), api.connected(), api.connected():
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert (await api.get("/swarm/v1/status", unix=True)).status == 200


@asynccontextmanager
async def client_that_does_not_read(api: Served) -> AsyncIterator[None]:
    api.desk.answers = lambda task: [AskText("x" * 8_000_000), done(task)]
    async with api.connected() as stuck:
        await api.begin_post(stuck, CHAT, HELLO)
        await api.desk.wait_until(lambda: len(api.desk.asked) == 1)
        await trio.testing.wait_all_tasks_blocked(0.05)
        yield


async def test_client_that_does_not_read_cannot_hold_up_the_shutdown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "SEND_S_MAX", 3600.0)
    monkeypatch.setattr(serving, "SEND_S_MAX_STOPPING", 0.05)
    async with served(tmp_path) as api, client_that_does_not_read(api):
        api.stop.cancel()
        with trio.fail_after(20):
            await api.stopped.wait()


async def test_client_that_does_not_read_is_dropped_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "SEND_S_MAX", 0.05)
    monkeypatch.setattr(serving, "CONNECTIONS_MAX", 1)
    async with served(tmp_path) as api, client_that_does_not_read(api):
        # Its place is free again: the only one there is.
        assert (await api.get("/healthz")).status == 200


async def test_server_without_free_descriptors_goes_on_when_there_are_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(serving, "CONNECTIONS_MAX", 1)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with served(tmp_path) as api:
        with socket.socket() as client, ExitStack() as hoard:
            hoard.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
            resource.setrlimit(resource.RLIMIT_NOFILE, (client.fileno() + 50, limits[1]))
            with suppress(OSError):
                while True:
                    hoard.callback(os.close, os.dup(client.fileno()))
            client.connect(("127.0.0.1", api.port))
            with trio.fail_after(20):
                while "trying again" not in caplog.text:
                    await trio.testing.wait_all_tasks_blocked(0.01)
        assert (await api.get("/healthz")).status == 200


async def test_one_connection_that_breaks_the_server_code_leaves_the_others(
    api: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(self, event):
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr("anycorn.protocol.h11.H11Protocol.handle", broken)
        async with api.connected() as conversation:
            await conversation.stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
            with trio.fail_after(20):
                assert await conversation.stream.receive_some(1) == b""
    assert "ZeroDivisionError" in caplog.text
    assert (await api.get("/healthz")).status == 200


async def test_request_text_is_never_logged(api: Served, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    for body in ({"messages": [{"role": "user", "content": "hush-hush"}]}, {"messages": [{"role": "hush-hush"}]}):
        await api.post(CHAT, body)
    api.desk.answers = lambda task: [RuntimeError("bug")]
    await api.post(CHAT, {"messages": [{"role": "user", "content": "hush-hush"}]})
    assert "RuntimeError" in caplog.text
    assert "hush-hush" not in caplog.text
    assert KEY not in caplog.text
