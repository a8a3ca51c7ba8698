"""`swarm doctor`: finds each thing that is wrong, and says what to do."""

import socket
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from node.cli import checks
from node.exits import ExitCode
from node.store.home import Home
from node.store.keys import identity_seed
from node.store.lock import hold
from tests.node.cli import control_api as canned
from tests.node.cli.conftest import Run
from tests.node.cli.control_api import Answer, Control


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default ports may be taken by whatever else runs here, and the engine takes a second to import."""
    monkeypatch.setattr(checks, "ENGINE", "json")
    monkeypatch.setenv("SWARM_API__LISTEN", "127.0.0.1:0")
    monkeypatch.setenv("SWARM_NODE__LISTEN", "/ip4/127.0.0.1/tcp/0")


def found(swarm: Run, name: str) -> dict[str, Any]:
    """One finding, checked for the exit code that it leads to."""
    ran = swarm("doctor", "--json")
    (check,) = (check for check in ran.json["checks"] if check["name"] == name)
    if check["state"] == "failed":
        assert ran.code == ExitCode.FAILED
        assert ran.json["failed"] >= 1
    return check


def test_a_fresh_home_has_nothing_wrong(swarm: Run, home: Home) -> None:
    ran = swarm("doctor")
    assert ran.code == ExitCode.DONE
    assert ran.out.splitlines()[-1].startswith("0 failed")
    assert not home.logs.exists(), "doctor changes nothing"


def test_a_key_that_others_can_read_is_found(swarm: Run, home: Home) -> None:
    identity_seed(home.identity_key)
    assert found(swarm, "identity")["state"] == "ok"
    home.identity_key.chmod(0o644)
    check = found(swarm, "identity")
    assert (check["state"], check["hint"]) == ("failed", f"chmod 600 {home.identity_key}")
    home.api_key.symlink_to("/nowhere")
    assert found(swarm, "api_key")["state"] == "failed"
    assert f"    chmod 600 {home.identity_key}" in swarm("doctor").out


def test_what_the_environment_sets_is_named(swarm: Run) -> None:
    assert found(swarm, "config")["finding"] == "configuration is valid (SWARM_API__LISTEN, SWARM_NODE__LISTEN)"


def test_a_config_that_is_wrong_is_found(swarm: Run, home: Home) -> None:
    home.config_file.write_text("[api]\nlisen = 1\n")
    check = found(swarm, "config")
    assert (check["state"], check["hint"]) == ("failed", 'Did you mean "listen"?')
    assert "line 2" in check["finding"]
    assert found(swarm, "ports")["state"] == "warning"


def test_a_port_that_is_taken_is_found(swarm: Run, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        port = taken.getsockname()[1]
        monkeypatch.setenv("SWARM_API__LISTEN", f"127.0.0.1:{port}")
        check = found(swarm, "ports")
    assert check["state"] == "failed"
    assert f"127.0.0.1:{port} (api.listen)" in check["finding"]


def test_a_node_that_does_not_answer_is_found(swarm: Run, home: Home) -> None:
    home.create()
    with hold(home):
        check = found(swarm, "node")
    assert (check["state"], "does not answer" in check["finding"]) == ("failed", True)


def test_what_the_running_node_knows_is_found(swarm: Run, control: Control) -> None:
    assert found(swarm, "node")["finding"] == "node is running (process 4242)"
    assert found(swarm, "clock")["state"] == "warning"
    check = found(swarm, "models")
    assert (check["state"], "not a GGUF file" in check["finding"]) == ("failed", True)
    open_api = replace(canned.status(), api="http://0.0.0.0:7976", refused={}, models=[])
    control.answers["GET /status"] = Answer(asdict(open_api))
    assert found(swarm, "api")["state"] == "failed"
    assert found(swarm, "clock")["state"] == "ok"
    assert found(swarm, "models")["state"] == "ok"


def test_packages_that_are_not_ours_are_found(swarm: Run, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(swarm, "packages")["state"] == "ok"
    monkeypatch.setattr(checks, "PACKAGES", ("protocol", "json"))
    check = found(swarm, "packages")
    assert (check["state"], "json (" in check["finding"]) == ("failed", True)


def test_a_library_that_is_missing_is_found(swarm: Run, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "LIBRARIES", ("trio", "no_such_library"))
    check = found(swarm, "libraries")
    assert (check["state"], "no_such_library" in check["finding"]) == ("failed", True)


def test_a_full_disk_is_found(swarm: Run, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "FREE_BYTES_MIN", 10**18)
    assert found(swarm, "disk")["state"] == "failed"
    monkeypatch.setattr(checks, "FREE_BYTES_MIN", 0)
    monkeypatch.setattr(checks, "FREE_BYTES_GOOD", 10**18)
    assert found(swarm, "disk")["state"] == "warning"


def test_an_engine_that_is_missing_or_broken_is_found(
    swarm: Run, home: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert found(swarm, "engine")["finding"].startswith("llama engine ")
    monkeypatch.setattr(checks, "ENGINE", "no_such_engine")
    assert found(swarm, "engine")["state"] == "warning"
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    for name, content, said in (
        ("engine_unlinked", "raise ImportError('libllama.so: cannot open')", "libllama.so: cannot open"),
        ("engine_illegal", "import os; os.abort()", "exit code -6"),
    ):
        (tmp_path / f"{name}.py").write_text(content)
        monkeypatch.setattr(checks, "ENGINE", name)
        check = found(swarm, "engine")
        assert (check["state"], said in check["finding"]) == ("failed", True)


def test_a_journal_that_cannot_be_written_is_a_warning(swarm: Run, control: Control) -> None:
    trouble = "tasks are answered but not recorded: database or disk is full"
    control.answers["GET /status"] = Answer(asdict(replace(canned.status(), journal=trouble)))
    checks = {check["name"]: check for check in swarm("doctor", "--json").json["checks"]}
    assert (checks["journal"]["state"], checks["journal"]["finding"]) == ("warning", f"journal: {trouble}")


def test_a_journal_that_was_set_aside_is_a_warning(swarm: Run, home: Home) -> None:
    home.create()
    (home.state / "journal.db.bad-1").write_bytes(b"")
    out = swarm("doctor").out
    assert "journal.db.bad-1" in out and "rm " in out
