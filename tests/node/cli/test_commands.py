"""What the commands ask of the node, and what they show: in words held by golden files, and as JSON."""

import json
import socket
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from node.exits import ExitCode
from node.store.home import Home
from node.store.lock import hold
from tests.conftest import Golden
from tests.node.backends.llama_cpp.gguf_files import small_model
from tests.node.cli import control_api as canned
from tests.node.cli.conftest import Run
from tests.node.cli.control_api import Answer, Control


@pytest.mark.parametrize(
    "words", ["status", "peers", "skills", "models", "models ls", "route what is 17%", "models add --once echo:", "ping heron -c 1"]
)
def test_what_people_see_stays_as_it_was(swarm: Run, control: Control, golden: Golden, words: str) -> None:
    ran = swarm(*words.split())
    assert ran.code == ExitCode.DONE
    golden(f"{words.replace(' ', '-').replace(':', '').replace('%', '')}.txt", f"$ swarm {words}\n{ran.out}{ran.err}")


@pytest.mark.parametrize(
    ("words", "route"), [("status", "GET /status"), ("peers", "GET /peers"), ("skills", "GET /skills")]
)
def test_json_is_what_the_node_said(swarm: Run, control: Control, words: str, route: str) -> None:
    for arguments in (["--json", words], [words, "--json"]):
        ran = swarm(*arguments)
        assert (ran.code, ran.err) == (ExitCode.DONE, "")
        assert ran.json == control.answers[route].data
        assert ran.json["schema"].startswith(f"swarm.{words}/")


@pytest.mark.parametrize(
    ("words", "schema"),
    [
        ("route hi", "swarm.route/1"),
        ("models ls", "swarm.models/1"),
        ("models add --once echo:", "swarm.model/1"),
        ("join /ip4/127.0.0.1/tcp/1", "swarm.peer/1"),
        ("ping heron -c 1", "swarm.ping/1"),
        ("down", "swarm.event/1"),
        ("version", "swarm.version/1"),
        ("paths", "swarm.paths/1"),
        ("config show", "swarm.config/1"),
        ("config path", "swarm.config-path/1"),
        ("ask hi", "swarm.answer/1"),
    ],
)
def test_every_object_carries_its_schema(swarm: Run, control: Control, words: str, schema: str) -> None:
    ran = swarm(*words.split(), "--json")
    assert (ran.code, ran.err) == (ExitCode.DONE, "")
    assert ran.json["schema"] == schema


def test_a_node_that_is_not_ready_is_not_healthy(swarm: Run, control: Control) -> None:
    control.answers["GET /status"] = Answer(asdict(replace(canned.status(), state="starting")))
    ran = swarm("status")
    assert ran.code == ExitCode.FAILED
    assert "starting" in ran.out


def test_a_table_does_not_let_a_peers_name_touch_the_screen(swarm: Run, control: Control) -> None:
    name = "evil\x1b[2J\x07\u202e\nx"
    control.answers["GET /peers"] = Answer({"peers": [asdict(replace(canned.peers()[1], name=name))]})
    out = swarm("peers", "--color", "always").out
    assert "evil\ufffd[2J\ufffd\ufffd\ufffdx" in out
    assert len(out.splitlines()) == 2


def test_columns_stay_straight_with_wide_characters(swarm: Run, control: Control) -> None:
    named = [replace(canned.peers()[1], name=name) for name in ("隼鳥", "cafe\u0301")]
    control.answers["GET /peers"] = Answer({"peers": [asdict(peer) for peer in named]})
    _, accent, wide = swarm("peers").out.splitlines()
    assert wide.startswith("隼鳥  busy")
    assert accent.startswith("cafe\u0301  busy")


def test_someone_alone_is_told_how_to_join(swarm: Run, control: Control) -> None:
    control.answers["GET /peers"] = Answer({"peers": [asdict(canned.peers()[0])]})
    assert "swarm join" in swarm("peers").err
    assert swarm("peers", "-q").err == ""


def test_route_asks_nobody_and_says_when_nobody_could(swarm: Run, control: Control) -> None:
    control.answers["POST /route"] = Answer(asdict(replace(canned.route(), candidates=[])))
    ran = swarm("route", "hi", "--skill", "chat", "--peer", "wren")
    assert ran.code == ExitCode.NO_CAPABLE_PEER
    assert "does not offer chat" in ran.out
    body = {"turns": [{"role": "user", "text": "hi"}], "skill": "chat", "peer": "wren"}
    assert control.asked == [("POST /route", body)]


def test_join_hands_the_address_over(swarm: Run, control: Control) -> None:
    ran = swarm("join", "/dns4/example.org/tcp/4976")
    assert (ran.code, ran.out) == (ExitCode.DONE, "")
    assert ran.err == "✓ connected to heron (12D3KooW…h3rN)\n"
    assert control.asked == [("POST /join", {"address": "/dns4/example.org/tcp/4976"})]


def test_join_refuses_what_is_no_address_before_asking(swarm: Run, control: Control) -> None:
    ran = swarm("join", "example.org:4976")
    assert ran.code == ExitCode.USAGE
    assert '"example.org:4976"' in ran.err
    assert control.asked == []


def test_join_says_why_nobody_is_there(swarm: Run, control: Control) -> None:
    control.fail("POST /join", "join_failed", "nobody answers at /ip4/127.0.0.1/tcp/1", 502)
    ran = swarm("join", "/ip4/127.0.0.1/tcp/1")
    assert ran.code == ExitCode.FAILED
    assert "nobody answers at" in ran.err
    assert "swarm status" in ran.err


def test_a_model_file_is_found_from_where_the_user_is(
    swarm: Run, control: Control, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home.data / "x.gguf").touch()
    monkeypatch.chdir(home.data)
    assert swarm("models", "add", "./x.gguf").code == ExitCode.DONE
    assert control.asked == [("POST /models", {"ref": str(home.data / "x.gguf")})]


def test_a_model_file_that_is_not_there_is_named_before_asking(swarm: Run, control: Control, home: Home) -> None:
    ran = swarm("models", "add", f"{home.data}/missing.gguf")
    assert ran.code == ExitCode.FAILED
    assert f"{home.data}/missing.gguf does not exist" in ran.err
    assert f"{home.data}/logs.gguf is not a file" in _folder_as_model(swarm, home)
    assert control.asked == []


def _folder_as_model(swarm: Run, home: Home) -> str:
    (home.data / "logs.gguf").mkdir()
    return swarm("models", "add", f"llama_cpp:{home.data}/logs.gguf").err


def test_a_model_is_let_go_by_its_file_or_its_name(
    swarm: Run, control: Control, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home.data)
    home.config_file.parent.mkdir(parents=True, exist_ok=True)
    home.config_file.write_text('[offer]\nmodels = ["/models/smollm2.gguf", "echo"]\n')
    for name, sent in (("./x.gguf", str(home.data / "x.gguf")), ("smollm2", "smollm2")):
        control.asked.clear()
        ran = swarm("models", "rm", name, "--once")
        assert (ran.code, control.asked) == (ExitCode.DONE, [("POST /models/remove", {"ref": sent})])
        assert ran.err.strip() == "smollm2 is no longer offered."
    assert swarm("models", "rm", "smollm2").err.strip() == "smollm2 is no longer offered, nor listed in config.toml."
    assert home.config_file.read_text() == '[offer]\nmodels = ["echo"]\n'
    control.answers["POST /models/remove"] = Answer({"error": {"code": "unknown_model", "message": "no such"}}, 404)
    assert swarm("models", "rm", "x").code == ExitCode.NO_CAPABLE_PEER


def test_a_model_that_cannot_be_used_says_why(swarm: Run, control: Control) -> None:
    control.answers["POST /models"] = Answer(asdict(canned.models()[1]))
    ran = swarm("models", "add", "--once", "echo:")
    assert ran.code == ExitCode.FAILED
    assert "it is not a GGUF file. Download it again." in ran.err


def test_down_of_a_node_that_is_not_running_is_done(swarm: Run, home: Home) -> None:
    assert swarm("down").code == ExitCode.DONE
    assert swarm("down", "--json").json["was_running"] is False


def test_paths_are_those_of_the_home(swarm: Run, home: Home) -> None:
    found = swarm("paths", "--json").json
    assert found["socket"] == str(home.socket)
    assert found["api_key"] == str(home.api_key)
    assert str(home.identity_key) in swarm("paths").out


def test_home_and_config_can_be_named_before_and_after_the_command(swarm: Run, home: Home) -> None:
    for arguments in (["--home", "/x/y", "paths"], ["paths", "--home", "/x/y"]):
        assert swarm(*arguments, "--json").json["identity"] == "/x/y/identity.key"
    assert swarm("config", "path", "--config", "/x/mine.toml").out == "/x/mine.toml\n"


def test_config_show_names_every_origin(
    swarm: Run, home: Home, monkeypatch: pytest.MonkeyPatch, golden: Golden
) -> None:
    home.config_file.write_text('[node]\nname = "wren"\n')
    monkeypatch.setenv("SWARM_OFFER__MAX_PARALLEL", "5")
    golden("config-show.txt", swarm("config", "show").out)
    found = swarm("config", "show", "--json").json["settings"]
    assert found["node.name"] == {"value": "wren", "origin": "file"}
    assert found["offer.max_parallel"] == {"value": 5, "origin": "env"}


def test_an_upgraded_program_notices_an_older_node(swarm: Run, control: Control) -> None:
    status = asdict(canned.status())
    control.answers["GET /status"] = Answer(status | {"version": "0.0.9", "from_the_future": 1})
    ran = swarm("version")
    assert "the running node is 0.0.9" in ran.err
    assert swarm("status").code == ExitCode.DONE, "fields that this version does not know are skipped"
    del status["rss_bytes"]
    control.answers["GET /status"] = Answer(status)
    ran = swarm("status")
    assert ran.code == ExitCode.FAILED
    assert "rss_bytes" in ran.err
    assert "swarm down && swarm up" in ran.err


@pytest.mark.parametrize("data", [None, [], 3, {"state": 1}, {"peers": 3}, {"peers": [None]}, "text"])
def test_nonsense_from_the_node_is_no_bug_of_ours(swarm: Run, control: Control, data: object) -> None:
    for command in ("status", "peers", "version"):
        control.answers[f"GET /{command}"] = Answer(data)
        assert swarm(command).code in (ExitCode.FAILED, ExitCode.DONE)


def test_a_home_that_is_held_by_a_silent_node_is_told(swarm: Run, home: Home) -> None:
    home.create()
    with hold(home):
        ran = swarm("status", "--json")
    assert ran.code == ExitCode.NOT_RUNNING
    assert ran.json["code"] == "not_answering"
    assert "swarm logs" in ran.json["hint"]


def test_the_lock_tells_where_the_socket_is_if_the_environment_differs(swarm: Run, home: Home) -> None:
    other = replace(home, runtime=home.data / "elsewhere")
    other.create()
    with hold(other), canned.control_api(other.socket):
        assert swarm("peers").code == ExitCode.DONE


def test_timeout_bounds_the_wait(swarm: Run, home: Home) -> None:
    with socket.socket(socket.AF_UNIX) as listening:  # Accepts, and never says a word.
        listening.bind(str(home.socket))
        listening.listen(1)
        ran = swarm("status", "--timeout", "50ms", "--json")
    assert (ran.code, ran.json["code"]) == (ExitCode.FAILED, "timeout")


def test_colours_are_drawn_only_where_wanted(swarm: Run, control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b[" not in swarm("status").out
    assert "\x1b[" in swarm("--color", "always", "status").out
    assert "\x1b[" not in swarm("--color", "never", "status").out
    assert json.loads(swarm("--color", "always", "status", "--json").out)


def test_a_model_is_tried_without_a_node(swarm: Run) -> None:
    ran = swarm("models", "bench", "echo:slots=4", "--threads", "1")
    assert ran.code == ExitCode.DONE
    header, *rows = ran.out.splitlines()
    assert header.split() == ["AT", "ONCE", "TOK/S", "EACH", "FIRST"]
    assert [row.split()[0] for row in rows] == ["1", "2", "4"]
    assert "4 at once" in ran.err
    record = json.loads(swarm("models", "bench", "echo:slots=2", "--json").out)
    assert (record["schema"], record["slots"], [each["at_once"] for each in record["trials"]]) == (
        "swarm.models.bench/1", 2, [1, 2],
    )  # fmt: skip


def test_a_model_that_cannot_be_tried_says_why(swarm: Run, home: Home) -> None:
    (home.data / "no.gguf").write_bytes(b"<html>")
    ran = swarm("models", "bench", f"{home.data}/no.gguf")
    assert ran.code == ExitCode.FAILED
    assert "is not a GGUF file" in ran.err


def test_the_log_that_is_named_is_there_afterwards(swarm: Run, home: Home) -> None:
    small = small_model(home.data / "small.gguf", None)
    (home.data / "cut.gguf").write_bytes(small.read_bytes()[:-100_000])
    ran = swarm("models", "bench", f"{home.data}/cut.gguf")
    assert ran.code == ExitCode.FAILED
    log = ran.err.rpartition("Log: ")[2].strip()
    assert "corrupted or incomplete" in Path(log).read_text()
