"""Values as people write them."""

from pathlib import Path

import pytest

from node.notation import (
    absolute_reference,
    byte_count,
    check_dialled,
    host_and_port,
    is_loopback,
    listening_parts,
    on_loopback_only,
    seconds,
)


@pytest.mark.parametrize(
    ("text", "expected"), [("20s", 20), ("500ms", 0.5), ("1.5m", 90), ("2h", 7200), ("3", 3), (" 4 s ", 4)]
)
def test_durations_are_read(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "soon", "-1s", "1e3s", "5 days", "s", "nan", "1.s"])
def test_other_text_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        seconds(text)


def test_hosts_and_ports_are_read() -> None:
    assert host_and_port("127.0.0.1:7976") == ("127.0.0.1", 7976)
    assert host_and_port("[::1]:0") == ("::1", 0)


@pytest.mark.parametrize("text", ["", "localhost", ":80", "a:b", "a:65536", "::1:80", "a:-1", "a:８０"])
def test_other_text_is_no_host_and_port(text: str) -> None:
    with pytest.raises(ValueError):
        host_and_port(text)


def test_only_loopback_is_loopback() -> None:
    assert all(map(is_loopback, ["127.0.0.1", "127.8.8.8", "::1", "localhost"]))
    assert not any(map(is_loopback, ["0.0.0.0", "::", "192.168.1.1", "example.org", "127.0.0.1.example.org"]))
    assert on_loopback_only("/ip4/127.0.0.1/tcp/1")
    assert not on_loopback_only("/dns4/localhost/tcp/1")


def test_addresses_to_listen_on_have_a_host_and_a_port() -> None:
    host, port = listening_parts("/ip6/::/tcp/4976")
    assert (str(host), port) == ("::", 4976)
    for text in ["", "0.0.0.0:4976", "/ip4/0.0.0.0", "/ip4/::/tcp/1", "/ip4/1.2.3.4/udp/1", "/ip4/0.0.0.0/tcp/70000"]:
        with pytest.raises(ValueError):
            listening_parts(text)


def test_addresses_to_dial_look_like_multiaddrs() -> None:
    check_dialled("/dns4/example.org/tcp/4976/p2p/12D3KooW")
    for text in [
        "",
        "example.org:4976",
        "/",
        "/ip4",
        "/ip4/",
        "/ip4//tcp/1",
        "/http/example.org",
        "/ip4/1.2.3.4/tcp/1\n",
    ]:
        with pytest.raises(ValueError):
            check_dialled(text)


@pytest.mark.parametrize(
    ("text", "count"), [("6GB", 6 * 2**30), ("512 MB", 2**29), ("1.5gib", 3 * 2**29), ("4kB", 4096), ("1TB", 2**40)]
)
def test_amounts_of_memory(text: str, count: int) -> None:
    assert byte_count(text) == count


@pytest.mark.parametrize("text", ["", "6", "GB", "-1GB", "6 G", "6GBs", "nan GB", "6,5GB"])
def test_what_is_no_amount_of_memory(text: str) -> None:
    with pytest.raises(ValueError, match="write it like 6GB or 512MB"):
        byte_count(text)


@pytest.mark.parametrize(
    ("ref", "expected"),
    [
        ("x.gguf", "/here/x.gguf"),
        ("./sub/x.GGUF", "/here/sub/x.GGUF"),
        ("/abs/x.gguf", "/abs/x.gguf"),
        ("llama_cpp:x.gguf", "llama_cpp:/here/x.gguf"),
        ("llama_cpp:mine=x.gguf", "llama_cpp:mine=/here/x.gguf"),
        ("llama_cpp:a/b=x.gguf", "llama_cpp:/here/a/b=x.gguf"),
        ("smollm2-135m", "smollm2-135m"),
        ("echo:", "echo:"),
        ("http://127.0.0.1:11434/v1#llama3", "http://127.0.0.1:11434/v1#llama3"),
        ("openai_http:http://127.0.0.1/v1#x.gguf", "openai_http:http://127.0.0.1/v1#x.gguf"),
        ("http://127.0.0.1/x.gguf", "http://127.0.0.1/x.gguf"),
    ],
)
def test_files_in_model_references_become_absolute(ref: str, expected: str) -> None:
    assert absolute_reference(ref, Path("/here")) == expected
